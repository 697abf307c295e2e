"""Operations on the audit log: checkpoint, proofs, query, follow, export; for administrators.

Each of them writes its own entry. Those that give out much at once (follow, export) commit it before the
first line leaves; so whoever looks at the log is in it, whatever happens afterwards.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final, TypeVar

from strongroom import audit
from strongroom.audit import AuditFilter, Checkpoint, ConsistencyProof, InclusionProof, KeyChange
from strongroom.engine._audit_log import TreeHead
from strongroom.engine._call import Call
from strongroom.engine._validate import check_count, check_text
from strongroom.errors import IntegrityError, InvalidInputError, NotFoundError, TamperedError
from strongroom.ledger import WriteBatch
from strongroom.model import Action, AuditEntry

_SEQ_MAX: Final = 2**62
_REASON_BYTES_MAX: Final = 512
_POLL_S: Final = 0.5
LOOK_ENTRIES: Final = 5_000  # of an export, after which the right to it is looked at again
T = TypeVar("T")
_FORMATS: Final = ("jsonl", *audit.FORMATS)


def _admit(call: Call, reason: str) -> None:
    call.reason = reason
    call.require(Action.ADMINISTER, None)


def _commit_entry(call: Call) -> None:
    call.commit_standing(WriteBatch(audit=call.audit_ok()))
    call.written = True


def key(call: Call) -> tuple[str, str]:
    _admit(call, "read the public keys of the audit log")
    return call.engine.audit_log.signer().public_keys()


def key_changes(call: Call) -> tuple[str, ...]:
    _admit(call, "read the changes of the audit log's keys")
    return tuple(change.document for change in call.engine.audit_log.signer().changes)


def announcement(change: KeyChange) -> str:
    """What the log says of the change, so that the document cannot be another later."""
    digest = hashlib.sha256(change.document.encode()).hexdigest()
    return f"signs with new keys after {change.size} entries, document SHA-256 {digest}"


def renew_keys(call: Call, reason: str) -> str:
    """New keys sign from now on. Returns the document of the change, which both pairs sign.

    Raises:
        ConflictError: other processes do the same all the time. InvalidInputError: the reason is no text
            of at most 512 bytes.
    """
    why = check_text(reason, "reason", _REASON_BYTES_MAX, empty=True)
    _admit(call, "rotate audit" + (f": {why}" if why else ""))
    said = call.reason

    def entry(change: KeyChange) -> bytes:
        call.reason = f"{said}; {announcement(change)}"
        return call.entry("ok")

    change = call.engine.audit_log.renew_signer(entry, compromised=False)
    call.written = True
    return change.document


def checkpoint(call: Call) -> Checkpoint:
    _admit(call, "sign a checkpoint of the audit log")
    log = call.engine.audit_log
    return log.sign(log.integrate())


def proof(call: Call, seq: int) -> InclusionProof:
    _admit(call, "prove an audit entry")
    check_count(seq, "seq", 1, _SEQ_MAX)
    log = call.engine.audit_log
    head = log.head()
    if seq > head.size:
        head = log.integrate()
    if seq > head.size:
        raise NotFoundError("there is no audit entry of that number")
    found = call.engine.ledger.audit_entries(seq - 1, 1)
    if not found or found[0][0] != seq:
        raise TamperedError("the audit entry is gone")
    hashes = log.prove(audit.inclusion_ranges(seq - 1, head.size))
    return InclusionProof(seq, found[0][1], hashes, log.sign(head))


def consistency(call: Call, old_size: int) -> ConsistencyProof:
    _admit(call, "prove the consistency of the audit log")
    check_count(old_size, "old_size", 0, _SEQ_MAX)
    log = call.engine.audit_log
    head = log.integrate()
    if old_size > head.size:
        raise InvalidInputError("the audit log never had so many entries")
    hashes = log.prove(audit.consistency_ranges(old_size, head.size)) if old_size else ()
    return ConsistencyProof(old_size, log.root(old_size), hashes, log.sign(head))


# -- opened entries -------------------------------------------------------------------------------------
def _opened(call: Call, after: int, until: int) -> Iterator[AuditEntry]:
    vault = call.engine.vault
    for seq, sealed in call.engine.audit_log.entries(after, until):
        yield audit.decode(vault.open_audit(seq, sealed), seq)


def _resolved(call: Call, wanted: AuditFilter) -> AuditFilter:
    """The filter with the pseudonyms of the subjects that it names, in the namespaces that it names."""
    if not wanted.subjects:
        return wanted
    for subject in wanted.subjects:
        check_text(subject, "subject", call.engine.config.limits.text_field_bytes_max)
    found: set[bytes] = set()
    for entry in call.engine.registry.entries():
        if not wanted.namespaces or any(p.matches(entry.name) for p in wanted.namespaces):
            found.update(call.engine.pseudonyms.of(entry, wanted.subjects, create=False))
    return replace(wanted, pseudonyms=frozenset(found))


def query(call: Call, wanted: AuditFilter, limit: int, after: int) -> list[AuditEntry]:
    _admit(call, "query the audit log")
    wanted = _resolved(call, wanted)
    check_count(limit, "limit", 1, call.engine.config.limits.results_max)
    check_count(after, "after", 0, _SEQ_MAX)
    found: list[AuditEntry] = []
    for entry in _opened(call, after, call.engine.ledger.audit_count()):
        if wanted.matches(entry):
            found.append(entry)
            if len(found) == limit:
                break
    call.count = len(found)
    return found


def follow(
    call: Call,
    wanted: AuditFilter,
    last: int,
    emit: Callable[[AuditEntry], object],
    stop: Callable[[], bool] | None,
) -> None:
    _admit(call, "follow the audit log")
    wanted = _resolved(call, wanted)
    engine = call.engine
    check_count(last, "last", 0, engine.config.limits.results_max)
    _commit_entry(call)
    seen = engine.ledger.audit_count()
    newest = deque((e for e in _opened(call, 0, seen) if wanted.matches(e)), maxlen=last)
    for entry in newest:
        emit(entry)
    while stop is not None and not stop():
        count = engine.ledger.audit_count()
        if count == seen:
            time.sleep(_POLL_S)
            engine.ensure_open()
        call.refresh_principal()
        call.require(Action.ADMINISTER, None)
        if count == seen:
            continue
        for entry in _opened(call, seen, count):
            if wanted.matches(entry):
                emit(entry)
        seen = count


# -- export -----------------------------------------------------------------------------------------------
def export(call: Call, write: Callable[[str], object], format: str, opened: bool, wanted: AuditFilter) -> int:
    _admit(call, "export the audit log")
    if format not in _FORMATS:
        raise InvalidInputError("unknown format", hint="one of: " + ", ".join(_FORMATS))
    if format == "jsonl" and wanted != audit.EVERYTHING:
        raise InvalidInputError(
            "an export that can be verified is whole", hint="filters go with: " + ", ".join(audit.FORMATS)
        )
    log = call.engine.audit_log
    _commit_entry(call)
    if format != "jsonl":
        return _export_opened(call, write, format, _resolved(call, wanted))
    try:
        head = log.integrate()
    except TamperedError:
        head = log.head()  # what is there is exported as evidence; it will not verify
    return _export_sealed(call, write, head, opened)


def _export_sealed(call: Call, write: Callable[[str], object], head: TreeHead, opened: bool) -> int:
    engine = call.engine
    signed = engine.audit_log.sign(head)
    write(audit.export_header(signed.origin, head.size) + "\n")
    count = 0
    for seq, sealed in _while_standing(call, engine.audit_log.entries(0, head.size)):
        text = _shown(call, seq, sealed) if opened else None
        write(audit.export_leaf(seq, sealed, text) + "\n")
        count += 1
    write(audit.export_end(signed) + "\n")
    return count


def _while_standing(call: Call, items: Iterable[T]) -> Iterator[T]:
    """An export takes minutes; a caller whose right to it ends meanwhile gets no more."""
    for number, item in enumerate(items, 1):
        if number % LOOK_ENTRIES == 0:
            call.refresh_principal()
            call.require(Action.ADMINISTER, None)
        yield item


def _shown(call: Call, seq: int, sealed: bytes) -> str:
    try:
        return audit.as_json(audit.decode(call.engine.vault.open_audit(seq, sealed), seq))
    except IntegrityError:
        return "null"  # changed bytes are exported as they are: the verifier is to see them


def _export_opened(call: Call, write: Callable[[str], object], format: str, wanted: AuditFilter) -> int:
    form = audit.FORMATS[format]
    if format == "csv":
        write(audit.csv_header() + "\r\n")
    end = "\r\n" if format == "csv" else "\n"
    count = 0
    for entry in _while_standing(call, _opened(call, 0, call.engine.ledger.audit_count())):
        if wanted.matches(entry):
            write(form(entry) + end)
            count += 1
    return count
