"""The examination of a store and of the machine it is on: findings with hints, no change to anything.

Each check is contained: what it meets in a broken store becomes a finding, and the others still run.
The codes of findings are listed in docs/operations.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from strongroom.config import CONFIG_NAME, Config, keys_directory, load_config
from strongroom.errors import ConfigurationError, StoreNotFoundError, StrongroomError
from strongroom.governance import _files, _keys, _machine, _model_files, _policies, _tls
from strongroom.governance._case import Case, System
from strongroom.governance._versions import check_versions, versions
from strongroom.model import Finding, Severity

__all__ = ["System", "examine", "worst"]

Check = Callable[[Case], Iterator[Finding]]


def _versions(_: Case) -> Iterator[Finding]:
    yield from check_versions(versions())


_MACHINE: Final[tuple[Check, ...]] = (
    _versions,
    _keys.check_crypto,
    _machine.check_clock,
    _machine.check_memory,
    _machine.check_key_memory,
)
_STORE: Final[tuple[Check, ...]] = (
    _files.check_data,
    _files.check_keys_place,
    _files.check_private_keys,
    _files.check_references,
    _files.check_disks,
    _keys.check_keyring,
    _keys.check_queue,
    _policies.check_policies,
    _model_files.check_models,
    _tls.check_tls,
    _machine.check_opens,
)
_ORDER: Final = (Severity.ERROR, Severity.WARNING, Severity.INFO)


def examine(
    directory: Path,
    *,
    system: System | None = None,
    newest_audit: Callable[[], datetime | None] | None = None,
) -> list[Finding]:
    """Everything that there is to say, the worst first.

    ``newest_audit`` opens the store and gives the time of its newest audit entry (None: there is none).
    """
    system = system or System()
    findings: list[Finding] = []
    config: Config | None = None
    try:
        config = load_config(directory)
    except (ConfigurationError, StoreNotFoundError) as e:
        findings.append(Finding(Severity.ERROR, e.code, e.message, CONFIG_NAME, e.hint))
    known = config or Config()
    case = Case(directory, known, keys_directory(directory, known), system, newest_audit)
    for check in (*_MACHINE, *(_STORE if config is not None else ())):
        findings += _contained(check, case)
    return sorted(dict.fromkeys(findings), key=lambda f: _ORDER.index(f.severity))


def worst(findings: Sequence[Finding]) -> Severity | None:
    """The gravest severity; None without findings."""
    return next((s for s in _ORDER if any(f.severity == s for f in findings)), None)


def _contained(check: Check, case: Case) -> list[Finding]:
    """The findings of one check; what it stumbles over is one more."""
    found: list[Finding] = []
    name = check.__name__.removeprefix("check_").removeprefix("_")
    try:
        found.extend(check(case))
    except StrongroomError as e:
        found.append(Finding(Severity.ERROR, e.code, e.message, name, e.hint))
    except OSError as e:
        found.append(Finding(Severity.WARNING, "check_failed", f"it cannot be looked at: {e.strerror}", name))
    except Exception as e:  # noqa: BLE001 - the boundary: one check that fails must not hide the others
        found.append(
            Finding(Severity.WARNING, "check_failed", f"the check itself failed: {type(e).__name__}", name)
        )
    return found
