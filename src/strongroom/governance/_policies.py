"""Attribute policies: in use, whole, and not to be changed by everybody."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from strongroom.governance._case import Case
from strongroom.governance.policy_files import policy_directory, read_policies
from strongroom.model import Finding, Severity
from strongroom.policy import PolicyProblems, load

_PLACE = "policies"


def check_policies(case: Case) -> Iterator[Finding]:
    """Whether the attribute layer is in use, and whether its set could be loaded now."""
    setting = case.config.access.policy_directory
    if not setting:
        yield Finding(
            Severity.INFO,
            "policies_not_in_use",
            "attribute policies are not in use: scopes and grants alone decide",
            _PLACE,
            "strongroom policy init --enable",
        )
        if (case.directory / _PLACE).is_dir():
            yield Finding(
                Severity.WARNING,
                "policies_not_configured",
                "there is a directory of policies that the configuration does not name",
                _PLACE,
                'set policy_directory = "policies" in [access]',
            )
        return
    directory = policy_directory(case.directory, setting)
    texts = read_policies(directory)
    try:
        load(texts)
    except PolicyProblems as e:
        for problem in e.problems[:10]:
            yield Finding(
                Severity.ERROR,
                "policies_unusable",
                f"the policy set denies everything: {problem}",
                _PLACE,
                "strongroom policy check",
            )
    for path in (directory, *(directory / name for name in texts)):
        if path.stat().st_mode & (stat.S_IWOTH | stat.S_IWGRP):
            yield Finding(
                Severity.WARNING,
                "policies_writable",
                f"{path.name} can be changed by others than its owner",
                _PLACE,
                "chmod go-w",
            )
