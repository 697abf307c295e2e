"""One operation on its way through the engine: who, what, where, and its audit entry.

``run`` is the frame of every operation: it authorizes before anything else, measures, and sees to it
that the audit entry is durable before the answer goes out. A write puts its entry into the ledger
transaction of the write itself (``audit_ok``); everything else gets it committed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from strongroom import audit
from strongroom.engine._decide import decide
from strongroom.errors import (
    AccessDeniedError,
    ClosedError,
    DuplicateMemoryError,
    InternalError,
    KeyMovedError,
    StorageBusyError,
    StrongroomError,
    UnauthenticatedError,
    VersionConflictError,
    no_memory,
)
from strongroom.ledger import OutdatedError, Telling, WriteBatch
from strongroom.model import IN_PROCESS, Action, AuditEntry, Notice, Principal, RequestContext
from strongroom.model.rows import Facts, Reach

if TYPE_CHECKING:
    from strongroom.engine._core import Engine
    from strongroom.engine._pseudonyms import PseudonymDraft
    from strongroom.engine._registry import NamespaceEntry

T = TypeVar("T")
W = TypeVar("W")
# DuckDB looks for signals while it works, and raises this instead of what the signal's handler has raised.
_SIGINT_IN_DUCKDB = ("Query interrupted",)
_TRIES = 5
_DONE_SHOWN = 128  # characters of what was done before an error, in its audit entry

_ASKING = frozenset(("search", "list", "sql"))  # what holds indexes of many namespaces
_LIVE = frozenset(("store", "search", "read", "list", "update", "delete", "sql"))  # what a wave gives way to


@dataclass(slots=True)
class Call:
    """The state of one operation."""

    engine: Engine
    caller: str
    surface: str
    request_id: str
    action: str
    namespaces: Sequence[str] = ()
    memory_ids: Sequence[bytes] = ()
    count: int = 0
    reason: str = ""
    written: bool = field(default=False)
    repeatable: bool = True  # whether the work may be done again when a key was rotated under its hands
    authenticate: Callable[[], Principal] | None = None
    context: RequestContext = IN_PROCESS
    details: dict[str, str] = field(default_factory=dict)  # further facts for the audit entry
    subjects: dict[bytes, None] = field(default_factory=dict)  # pseudonyms, in order
    drafts: list[PseudonymDraft] = field(default_factory=list)  # of new subjects: they go into the commit
    apart: bool = False  # whether pseudonyms of new subjects are committed first, as others make them too
    known: int | None = None  # the watermark of the registry before the caller was looked at
    relies_on: int | None = None  # the watermark of the registry that a store was prepared from
    reaches: dict[int, Reach] = field(default_factory=dict)  # by namespace number; WHOLE where there is none
    of_memory: bool = False  # whether the policies named in the details decided about single memories
    notices: dict[Notice, None] = field(default_factory=dict)  # what goes with the answer, in order
    concealed: str = ""  # why it was denied, when the answer does not say that it was
    done: str = ""  # what is durable and no part of ``written``: an error is told with it, as is the entry
    _principal: Principal | None = None

    @property
    def principal(self) -> Principal:
        """The authenticated caller; before that there is none to ask for."""
        if self._principal is None:
            raise UnauthenticatedError
        return self._principal

    def refresh_principal(self) -> None:
        """Ask who calls, and whether the credential is still good; long work asks again on its way.

        Raises:
            UnauthenticatedError: it was revoked or has expired.
        """
        self.known = self.engine.registry.watermark  # first: a revocation after this is one that is not known
        if self.authenticate is None:
            return
        try:
            self._principal = self.authenticate()
        except UnauthenticatedError as e:
            self.reason = e.reason
            raise

    def require(self, action: Action, namespace: str | None, facts: Facts | None = None) -> Reach:
        """Authorize one namespace (None: the whole store), or one memory of it; how far that reaches.

        Raises:
            AccessDeniedError: the reason goes into the audit entry, not to the caller.
        """
        answer = decide(self, action, namespace, facts)
        if not answer.decision.allowed:
            self.reason = answer.decision.reason
            if namespace is not None:
                self.namespaces = (namespace,)
            raise AccessDeniedError
        return answer.reach

    def decided_by(self, policies: Sequence[str], *, of_memory: bool) -> None:
        """Note the ids of the attribute policies that decided, for the audit entry.

        ``of_memory``: about one memory; that says more than what was said of its namespace before.
        """
        if of_memory and not self.of_memory:
            self.details.pop("policies", None)
            self.of_memory = True
        if policies and of_memory == self.of_memory:
            known = self.details.get("policies", "")
            ids = dict.fromkeys([*(known.split(",") if known else ()), *policies])
            self.details["policies"] = ",".join(ids)

    def conceal(self, reason: str, answered: StrongroomError | None = None) -> None:
        """Deny, and answer as if the memory were not there; the audit entry alone says that it was denied.

        ``answered``: the error that the caller gets; None: an answer without one.
        """
        self.concealed = reason
        self.details["answered"] = answered.code if answered is not None else "ok"

    def entry(self, outcome: str, reason: str = "") -> bytes:
        return audit.encode(
            AuditEntry(
                at_us=self.engine.now_us(),
                request_id=self.request_id,
                principal=self.caller,
                surface=self.surface,
                action=self.action,
                namespaces=tuple(self.namespaces),
                outcome=outcome,
                reason=reason or self.reason,
                memory_ids=tuple(self.memory_ids) if self.engine.config.audit.record_memory_ids else (),
                count=self.count,
                details=self._details(),
                subjects=tuple(self.subjects),
            )
        )

    def _details(self) -> tuple[tuple[str, str], ...]:
        context, record = self.context, self.engine.config.audit
        lent = self._principal.elevations if self._principal is not None else ()
        if context is IN_PROCESS and not self.details and not lent:
            return ()
        facts = {
            "source": context.source_address if record.record_source_address else "",
            "tls_group": context.tls_group,
            "purpose": context.purpose,
            "purpose_reason": context.reason,
            "elevation": " ".join(e.id for e in lent),
        }
        known = {name: text for name, text in facts.items() if text}
        return tuple(sorted({**known, **self.details}.items()))

    def about(self, entry: NamespaceEntry, subjects: Iterable[str | None], *, create: bool = False) -> None:
        """Note the data subjects that the operation is about; the audit entry has their pseudonyms."""
        named = {s: None for s in subjects if s is not None}
        if named and self.engine.config.audit.record_subjects:
            pseudonyms = self.engine.pseudonyms
            if create and not self.apart:
                found, drafts = pseudonyms.drafted(entry, named)
                self.drafts += drafts
            else:
                found = pseudonyms.of(entry, named, create=create)
            self.subjects.update(dict.fromkeys(found))

    def forget_subjects(self) -> None:
        """Nothing was committed: the operation is about nobody yet."""
        self.subjects.clear()
        self.drafts.clear()

    def begin_again(self, why: KeyMovedError | OutdatedError) -> None:
        """What a write was prepared from has changed: take in what there is now, who calls included.

        Raises:
            UnauthenticatedError: the credential was revoked meanwhile.
        """
        self.forget_subjects()
        if isinstance(why, KeyMovedError):
            self.engine.vault.keyring.refresh()
            return
        self.apart = True
        self.engine.registry.refresh()
        self.refresh_principal()

    def commit_standing(self, batch: WriteBatch) -> list[int]:
        """Commit, unless the credential was revoked meanwhile: nothing of a key comes after its revocation.

        The transaction itself sees whether namespace 0 has changed since the caller was looked at (or since
        what ``batch.relies_on`` says). Then the caller is looked at again, and the batch goes in as it is
        when the caller may do what it might before.

        Raises:
            UnauthenticatedError: the credential was revoked or has expired. OutdatedError: what the caller
            may do has changed, or what the batch relies on besides. And as ``Ledger.commit``.
        """

        def commit(relies_on: int | None) -> list[int]:
            batch.relies_on = relies_on
            return self.engine.ledger.commit(batch)

        return self._standing(commit, batch.relies_on)

    def _standing(self, commit: Callable[[int | None], T], relies_on: int | None = None) -> T:
        before = self._principal
        if before is None or before.is_owner:
            return commit(relies_on)
        known = self.known if relies_on is None else relies_on
        while True:
            try:
                return commit(known)
            except OutdatedError:
                self.engine.registry.refresh()
                self.refresh_principal()
                if self.known == known or self._principal != before:
                    raise
                known = self.known

    def tell(self, change: Callable[[Telling[W]], T], entry: Callable[[W], bytes] | None = None) -> T:
        """Have the ledger make a change of its own, with the entry of this call in the same transaction.

        ``entry``: made of what was done; without it, of the call as it is. Where nothing was done there is no
        entry either.

        Raises:
            As ``commit_standing``, and what ``change`` raises.
        """
        told = False

        def of(done: W) -> bytes:
            nonlocal told
            told = True
            return self.entry("ok") if entry is None else entry(done)

        result = self._standing(lambda relies_on: change(Telling(of, relies_on)))
        self.written = self.written or told
        return result

    def commit(self, batch: WriteBatch) -> list[int]:
        """Commit a write; pseudonyms that were made for it come last, in the same transaction.

        Raises:
            KeyMovedError, OutdatedError: prepare it again after ``begin_again``. UnauthenticatedError: as
            ``commit_standing``. And as ``Ledger.commit``.
        """
        drafts = self.drafts
        batch.puts += [draft.put for draft in drafts]
        batch.roots.update({draft.ns: draft.root for draft in drafts})
        try:
            seqs = self.commit_standing(batch)
        except (DuplicateMemoryError, VersionConflictError):
            if not drafts:
                raise
            raise OutdatedError from None  # perhaps somebody else made the same pseudonym: it counts
        self.written = True
        if drafts:
            self.engine.pseudonyms.keep(drafts)
            drafts.clear()
        return seqs

    def entry_of_one(self, namespace: str, count: int) -> bytes:
        """Of what was done to one namespace, in a transaction of its own, among those of the operation."""
        return replace(self, namespaces=(namespace,), count=count).entry("ok")

    def audit_ok(self) -> list[bytes]:
        """The entry of a write, to share the transaction of the write."""
        return [self.entry("ok")]


def run(call: Call, work: Callable[[Call], T]) -> T:
    """Carry out an operation inside its frame.

    Raises:
        StrongroomError: whatever the work raised; or that the audit entry could not be written, in
            which case the answer is withheld. It says what of the work is done and stays (``Call.done``).
    """
    engine = call.engine
    started = perf_counter()
    outcome = "ok"
    failed: StrongroomError
    engine.ensure_open()
    try:
        call.refresh_principal()
        with engine.indexes.residency.asking() if call.action in _ASKING else nullcontext():
            return _repeated(call, work)
    except StrongroomError as e:
        outcome = e.code
        _record_failure(call, e)
        if not call.done:
            raise
        failed = e
    except Exception as e:  # the one door: foreign exceptions end here, by type and without their text
        if type(e) is RuntimeError and e.args == _SIGINT_IN_DUCKDB:
            raise KeyboardInterrupt from None
        if isinstance(e, MemoryError):
            failed = no_memory()
        else:
            failed = InternalError(f"unexpected {type(e).__name__} in {call.action}")
        outcome = failed.code
        engine.log.error(
            "internal_error", action=call.action, request_id=call.request_id, type=type(e).__name__
        )
        if engine.debug:
            raise
        _record_failure(call, failed)
    finally:
        seconds = perf_counter() - started
        engine.metrics.operation(call.action, outcome, seconds)
        if call.action in _LIVE:
            engine.traffic.note(seconds)
    # Raised out here, so that not even ``__context__`` holds the foreign one: its text could be content.
    raise failed.beside(call.done) if call.done else failed


def _repeated(call: Call, work: Callable[[Call], T]) -> T:
    """Do the work and see to its entry; again when a key was rotated, an index dropped, or the registry or
    what the caller may do changed, and nothing was written yet."""
    changed: KeyMovedError | OutdatedError | ClosedError
    for _ in range(_TRIES):
        try:
            result = work(call)
            if not call.written:
                entry = call.entry("denied", call.concealed) if call.concealed else call.entry("ok")
                call.commit_standing(WriteBatch(audit=[entry]))
            return result
        except (KeyMovedError, OutdatedError) as e:
            changed = e
            if call.written or not call.repeatable:
                break
            call.begin_again(e)
        except ClosedError as e:  # of an index that was dropped while it was asked: it is built again
            call.engine.ensure_open()
            if call.written or not call.repeatable:
                raise
            changed = e
            call.forget_subjects()
    if isinstance(changed, KeyMovedError):
        raise changed
    raise StorageBusyError("what the operation relies on changes all the time")


def _record_failure(call: Call, error: StrongroomError) -> None:
    engine = call.engine
    denied = isinstance(error, (AccessDeniedError, UnauthenticatedError)) or bool(call.concealed)
    if denied:
        engine.metrics.denied.labels(error.code).inc()
    reason = (call.concealed or call.reason) if denied else ""
    if call.done:
        call.details["done"] = call.done[:_DONE_SHOWN]
    for draft in call.drafts:  # pseudonyms that nothing was written under stand for nobody
        call.subjects.pop(draft.pseudonym, None)
    try:
        engine.ledger.commit(WriteBatch(audit=[call.entry("denied" if denied else error.code, reason)]))
    except StrongroomError as e:
        # The operation is refused already; the log keeps what the audit could not take.
        engine.log.error(
            "audit_not_written",
            action=call.action,
            outcome=error.code,
            cause=e.code,
            request_id=call.request_id,
        )
