"""The attribute policies in force: read from their directory, looked at again at most once a second.

Without a directory in the configuration there is no attribute layer, and decisions say so. With one, a set
that is empty, broken or unreadable denies everything, and says so. One that is just being written decides
nothing: files are taken when they have stood still for a moment. Every version that comes into force is
written into the audit log, before the first decision by it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from strongroom.errors import ConfigurationError
from strongroom.governance.policy_files import (
    Stamp,
    is_fresh,
    policy_directory,
    read_policies,
    stamp_of,
)
from strongroom.ledger import WriteBatch
from strongroom.model import Principal, RequestContext
from strongroom.policy import Asker, Circumstances, PolicyProblems, PolicySet, digest_of, load

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

_LOOK_S: Final = 1.0
_STILL_S: Final = 0.1  # how long files that were just written have to stay as they are
_READS_MAX: Final = 10
DIGEST_SHOWN: Final = 16  # hex digits of a version in audit entries
NOT_IN_USE: Final = "attribute policies not in use"


@dataclass(frozen=True, slots=True)
class InForce:
    """What decides: a policy set, or None with the reason why everything is denied."""

    policies: PolicySet | None
    digest: str
    problem: str = ""


class Policies:
    """The attribute layer of an opened store. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        """Raises: ConfigurationError: the time zone is not known."""
        self._engine = engine
        setting = engine.config.access.policy_directory
        self.directory = policy_directory(engine.directory, setting) if setting else None
        try:
            self._zone = ZoneInfo(engine.config.access.policy_timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ConfigurationError(
                "access.policy_timezone is no time zone", hint="for example UTC or Europe/Berlin"
            ) from None
        self._lock = threading.Lock()
        self._stamp: Stamp | None = None
        self._look_at = 0.0
        self._in_force: InForce | None = None

    @property
    def in_use(self) -> bool:
        return self.directory is not None

    def current(self) -> InForce | None:
        """What is in force; None: no attribute layer is configured.

        Raises:
            StorageError: a new version could not be written into the audit log.
        """
        if self.directory is None:
            return None
        known = self._in_force
        if known is not None and time.monotonic() < self._look_at:
            return known
        with self._lock:
            stamp = stamp_of(self.directory)
            if self._in_force is None or stamp is None or stamp != self._stamp:
                stamp, found = self._read_whole(stamp)
                if self._in_force is None or found.digest != self._in_force.digest:
                    self._record(found)
                    self._in_force = found
                self._stamp = stamp
            self._look_at = time.monotonic() + _LOOK_S
            return self._in_force

    def _read_whole(self, stamp: Stamp | None) -> tuple[Stamp | None, InForce]:
        """The set and its stamp, while nobody writes it: half of it could permit what all of it forbids."""
        assert self.directory is not None
        for _ in range(_READS_MAX):
            if stamp is not None and is_fresh(stamp):
                time.sleep(_STILL_S)
            found = self._read()
            before, stamp = stamp, stamp_of(self.directory)
            if stamp == before:
                return stamp, found
        return None, InForce(None, "unreadable", "the policy files are being written all the time")

    def _read(self) -> InForce:
        assert self.directory is not None
        try:
            texts: Mapping[str, bytes] = read_policies(self.directory)
        except ConfigurationError as e:
            return InForce(None, "unreadable", e.message)
        digest = digest_of(texts)
        if self._in_force is not None and self._in_force.digest == digest:
            return self._in_force
        try:
            return InForce(load(texts), digest)
        except PolicyProblems as e:
            return InForce(None, digest, str(e))

    def _record(self, found: InForce) -> None:
        from strongroom.engine._call import Call

        engine = self._engine
        call = Call(engine, "system", "policy", secrets.token_hex(8), "policy_load")
        call.details = {"policy_set": found.digest[:DIGEST_SHOWN]}
        if found.policies is None:
            call.reason = f"the policy set denies everything: {found.problem}"
            engine.log.error("policies_unusable", problem=found.problem, policy_set=found.digest)
        else:
            call.reason = f"policy set of {len(found.policies.policies)} policies"
            call.count = len(found.policies.policies)
        outcome = "ok" if found.policies is not None else "denied"
        engine.ledger.commit(WriteBatch(audit=[call.entry(outcome, call.reason)]))

    def asker(
        self, principal: Principal, surface: str, context: RequestContext, *, supervising: bool = False
    ) -> Asker:
        """Who asks and how, at this moment."""
        now_us = self._engine.now_us()
        local = datetime.fromtimestamp(now_us // 1_000_000, self._zone)
        return Asker(
            principal,
            Circumstances(
                hour=local.hour,
                weekday=local.isoweekday(),
                now_us=now_us,
                surface=surface,
                supervising=supervising,
                purpose=context.purpose,
                reason=context.reason,
                source_address=context.source_address,
                tls_group=context.tls_group,
            ),
        )
