"""How often callers come and how often they fail, and the notes of it that go into the audit log in bulk.

What comes in a flood must not become a flood of audit entries, each with its fsync. Refusals of this kind
are counted by surface, caller, source and reason, and written every few seconds with how often each was.
"""

from __future__ import annotations

import secrets
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Final

from strongroom.access import Backoff, RateLimit, network_of
from strongroom.engine._call import Call
from strongroom.errors import LimitExceededError
from strongroom.ledger import WriteBatch
from strongroom.model import RequestContext

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

_NOTES_MAX: Final = 256
_UNKNOWN: Final = "unknown"
_MORE: Final = ("handshake", "several", _UNKNOWN, "", "further refusals")


class Watch:
    """Limits at the doors of a server. Calls from inside the process have no source and no limits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        c = engine.config.guard
        span = (c.wait_ms_min / 1000, c.wait_ms_max / 1000, c.forget_ms / 1000, c.entries_max)
        self.credentials = Backoff(c.failures_of_credential, *span)
        self.sources = Backoff(c.failures_of_source, *span)
        self.principal_rate = RateLimit(c.principal_requests_per_s, c.principal_burst, c.entries_max)
        self.tenant_rate = RateLimit(c.tenant_requests_per_s, c.tenant_burst, c.entries_max)
        self.source_rate = RateLimit(c.source_requests_per_s, c.source_burst, c.entries_max)
        self._notes: dict[tuple[str, str, str, str, str], int] = {}
        self._lock = Lock()

    # -- wrong credentials --------------------------------------------------------------------------
    def wrong(self, caller: str, surface: str, context: RequestContext) -> None:
        """A credential was looked at and was wrong.

        Only those who are wrong wait. A right credential always gets in, so that nobody can lock its holder
        out from the same source; with 256 random bits there is nothing to be won by guessing on.

        Raises:
            LimitExceededError: too many wrong ones came from there, or for this credential from there.
        """
        if not context.source_address:
            return
        source, now = network_of(context.source_address), monotonic()
        pair = f"{caller} {source}"
        wait = self.sources.wait_s(source, now)
        reason = "too many wrong credentials from this source"
        if not wait and caller != _UNKNOWN:
            wait = self.credentials.wait_s(pair, now)
            reason = "too many wrong proofs of this credential from this source"
        if wait:
            self._refuse("authenticate", surface, caller, source, reason, wait)
        self.sources.failed(source, now)
        if caller != _UNKNOWN:
            self.credentials.failed(pair, now)

    def right(self, caller: str, context: RequestContext) -> None:
        """A credential was looked at and was right."""
        if context.source_address:
            self.credentials.succeeded(f"{caller} {network_of(context.source_address)}")

    # -- rates ----------------------------------------------------------------------------------------
    def operation(self, caller: str, tenant: str, surface: str, context: RequestContext) -> None:
        """Count an operation of a caller, and of its tenant ("": none).

        Raises:
            LimitExceededError: it asks too often, or all callers of its tenant together do.
        """
        if not context.source_address:
            return
        wait, reason = self.principal_rate.wait_s(caller, monotonic()), "the caller asks too often"
        if not wait and tenant:
            wait, reason = self.tenant_rate.wait_s(tenant, monotonic()), "the tenant asks too often"
        if wait:
            self._refuse("rate", surface, caller, network_of(context.source_address), reason, wait)

    def arrival(self, surface: str, address: str) -> None:
        """Count a request or connection of a source, before anything else is looked at.

        Raises:
            LimitExceededError: too many come from there.
        """
        source = network_of(address)
        wait = self.source_rate.wait_s(source, monotonic()) if address else 0.0
        if wait:
            self._refuse("rate", surface, _UNKNOWN, source, "too many requests from this source", wait)

    def _refuse(self, action: str, surface: str, caller: str, source: str, reason: str, wait: float) -> None:
        self._engine.metrics.denied.labels(LimitExceededError.code).inc()
        self.note(action, surface, reason, caller=caller, source=source)
        raise LimitExceededError("too many requests", hint="wait, then repeat", retry_after_s=wait)

    # -- notes ----------------------------------------------------------------------------------------
    def handshake(self, surface: str, reason: str) -> None:
        """Keep in mind that a TLS handshake failed; never blocks."""
        self._engine.metrics.tls_refused.labels(surface).inc()
        self.note("handshake", surface, reason)

    def note(
        self, action: str, surface: str, reason: str, *, caller: str = _UNKNOWN, source: str = ""
    ) -> None:
        """Keep a refusal in mind for the audit log."""
        key = (action, surface, caller, source, reason)
        with self._lock:
            if key not in self._notes and len(self._notes) >= _NOTES_MAX:
                key = _MORE
            self._notes[key] = self._notes.get(key, 0) + 1

    def flush(self) -> None:
        """Write what was noted since the last call into the audit log, one entry for what is alike."""
        with self._lock:
            notes, self._notes = self._notes, {}
        if not notes:
            return
        entries = []
        for (action, surface, caller, source, reason), times in notes.items():
            context = RequestContext(source_address=source)
            call = Call(self._engine, caller, surface, secrets.token_hex(8), action, context=context)
            call.details["times"] = str(times)
            entries.append(call.entry("denied", reason))
        self._engine.ledger.commit(WriteBatch(audit=entries))
