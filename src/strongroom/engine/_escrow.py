"""The recovery keys of the configuration: every key of the store is wrapped to them too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.engine._call import Call
from strongroom.errors import ConfigurationError, KeyManagementError, StrongroomError
from strongroom.model import Action, Finding, Severity

if TYPE_CHECKING:
    from strongroom.engine._core import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class EscrowStatus:
    """``recovery_keys``: those of the configuration; ``covered`` of ``keys`` are wrapped to each of them.

    ``unknown``: those of them that nobody has accepted yet (``escrow_add``): nothing is wrapped to them.
    """

    recovery_keys: tuple[str, ...]
    keys: int
    covered: int
    findings: tuple[Finding, ...] = ()
    unknown: tuple[str, ...] = ()


def status(call: Call) -> EscrowStatus:
    """Whether everything could be opened with the recovery keys of the configuration. Asks no KMS."""
    call.reason = "recovery keys"
    call.require(Action.ADMINISTER, None)
    return _status(call.engine, ())


def add(call: Call) -> EscrowStatus:
    """Accept the recovery keys of the configuration, and wrap every key that there is to them too.

    A namespace whose KMS does not do its part is told of in the findings; the others are done.
    """
    call.reason = "wrap every key to the recovery keys of the configuration"
    call.require(Action.ADMINISTER, None)
    engine = call.engine
    keyring = engine.vault.keyring
    if not engine.kms_directory.recipients:
        raise ConfigurationError(
            "the configuration names no recovery key", hint="strongroom escrow init, or escrow add KEY"
        )
    keyring.register_recovery_keys()
    call.done = "the recovery keys are accepted"
    lacking = sorted({ns for ns, _ in keyring.unrecoverable()})
    findings: list[Finding] = []
    for tried, ns in enumerate(lacking, 1):
        try:
            keyring.rewrap_integrity() if ns < 0 else keyring.rewrap_namespace(ns)
        except KeyManagementError as e:
            findings.append(finding_of(ns, e))
        wrapped = tried - len(findings)
        call.done = f"the recovery keys are accepted, {wrapped} of {len(lacking)} namespaces wrapped to them"
    found = _status(engine, findings)
    call.count = found.covered
    return found


def _status(engine: Engine, findings: Sequence[Finding]) -> EscrowStatus:
    keyring = engine.vault.keyring
    known = tuple(r.describe().key_uri for r in engine.kms_directory.recipients)
    keys = len({(w.ns, w.version) for w in keyring.wraps()})
    lacking = len(keyring.unrecoverable()) if known else keys
    return EscrowStatus(
        recovery_keys=known,
        keys=keys,
        covered=keys - lacking,
        findings=tuple(findings),
        unknown=tuple(uri for uri in known if not keyring.master_numbers(uri)),
    )


def finding_of(ns: int, error: StrongroomError) -> Finding:
    where = "the integrity key" if ns < 0 else f"key of namespace {ns}"
    return Finding(Severity.ERROR, error.code, error.message, where, error.hint)
