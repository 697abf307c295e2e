"""The proof of a configuration: wrap, unwrap, refuse another context, and how long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from hmac import compare_digest
from statistics import median
from typing import Final, TypeVar
from uuid import UUID

from strongroom.crypto import SecretKey
from strongroom.errors import (
    KeyManagementError,
    KmsDeniedError,
    StrongroomError,
    UnwrapError,
)
from strongroom.kms._contract import KmsProvider
from strongroom.model import Finding, Severity

T = TypeVar("T")

ROUNDS: Final = 5
SLOW_MS: Final = 500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was found. Times are milliseconds of one call; None: it did not come to that."""

    findings: tuple[Finding, ...]
    wrap_ms: float | None = None
    unwrap_ms_median: float | None = None
    unwrap_ms_max: float | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing stands in the way of using this configuration."""
        return all(f.severity is not Severity.ERROR for f in self.findings)


class _Failed(Exception):
    """The proof cannot go on."""

    def __init__(self, finding: Finding) -> None:
        super().__init__()
        self.finding = finding


def prove(
    make: Callable[[], KmsProvider], store_id: UUID, *, clock: Callable[[], float] = time.perf_counter
) -> Proof:
    """Use a provider as a store would, with a key that is thrown away. ``make`` is called twice."""
    findings: list[Finding] = []
    times: dict[str, list[float]] = {"wrap": [], "unwrap": []}
    try:
        with closing(_step("settings", make)) as provider:
            _rounds(provider, make, _context(store_id), times, clock, findings)
    except _Failed as e:
        findings.append(e.finding)
    unwraps = times["unwrap"]
    if unwraps and median(unwraps) > SLOW_MS:
        findings.append(
            Finding(
                Severity.WARNING,
                "kms_slow",
                f"one unwrap takes {median(unwraps):.0f} ms",
                "latency",
                "choose a nearer region or endpoint: each namespace waits for it on first use",
            )
        )
    return Proof(
        findings=tuple(findings),
        wrap_ms=times["wrap"][0] if times["wrap"] else None,
        unwrap_ms_median=median(unwraps) if unwraps else None,
        unwrap_ms_max=max(unwraps) if unwraps else None,
    )


def _rounds(
    provider: KmsProvider,
    make: Callable[[], KmsProvider],
    context: dict[str, str],
    times: dict[str, list[float]],
    clock: Callable[[], float],
    findings: list[Finding],
) -> None:
    def timed(name: str, ask: Callable[[], T]) -> T:
        started = clock()
        found = _step(name, ask)
        times[name].append((clock() - started) * 1000)
        return found

    key = SecretKey.generate()
    wrapped = timed("wrap", lambda: provider.wrap(key, context))
    for _ in range(ROUNDS):
        back = timed("unwrap", lambda: provider.unwrap(wrapped, context))
        if not compare_digest(back.mac(b"proof"), key.mac(b"proof")):
            raise _Failed(_error("unwrap", "another key came back than the one that was wrapped"))
    with closing(make()) as second:
        _step("unwrap by a second connection", lambda: second.unwrap(wrapped, context))
    other = {**context, "tenant": "another tenant"}
    changed = wrapped[:-1] + bytes((wrapped[-1] ^ 1,))
    for name, bad, given in (("another context", wrapped, other), ("a changed byte", changed, context)):
        try:
            provider.unwrap(bad, given)
        except UnwrapError:
            continue
        except StrongroomError as e:
            findings.append(_error(name, f"it is refused for the wrong reason: {e.message}", e.code, e.hint))
        else:
            findings.append(_error(name, "it is accepted, and must not be"))


def _step(name: str, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except StrongroomError as e:
        hint = e.hint
        if isinstance(e, KmsDeniedError) and name in ("wrap", "unwrap"):
            hint = f"the permission to {name} is missing; see: strongroom kms policy"
        raise _Failed(_error(name, e.message, e.code, hint)) from None


def _error(where: str, message: str, code: str = KeyManagementError.code, hint: str | None = None) -> Finding:
    return Finding(Severity.ERROR, code, message, where, hint)


def _context(store_id: UUID) -> dict[str, str]:
    """As for a namespace key of that store, with a purpose of its own."""
    return {
        "store_id": str(store_id),
        "tenant": "",
        "namespace": "0",
        "key_version": "1",
        "purpose": "proof",
    }
