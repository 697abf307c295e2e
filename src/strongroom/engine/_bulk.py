"""store_many: chunk by chunk, the next one checked and sealed while the one before is being committed.

Writing a chunk is mostly SQLite and the disk, which need no interpreter; preparing one is mostly Python.
So a second thread commits, and the two overlap. What a chunk says about itself in the audit log is put
together when the one before is done, and the answer goes out when all of them are durable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from strongroom.engine._call import Call
from strongroom.engine._collector import collector_paused
from strongroom.engine._registry import NamespaceEntry
from strongroom.engine._validate import check_vector, draft_from
from strongroom.engine._write import (
    Prepared,
    Sealed,
    commit_made,
    new_batch,
    prepare,
    project_new,
    seal_new,
)
from strongroom.errors import AccessDeniedError, InvalidInputError, KeyMovedError, StrongroomError
from strongroom.keyring import DataKey
from strongroom.ledger import OutdatedError, WriteBatch
from strongroom.model import Memory, MemoryDraft

CHUNK_ITEMS = 1000
CHUNK_BYTES = 16 * 1024 * 1024
_RETRIES = 8
_S = TypeVar("_S")
_T = TypeVar("_T")


def store_many(call: Call, items: Iterable[Mapping[str, Any] | MemoryDraft]) -> list[Memory]:
    call.repeatable = False  # the items are gone once they were read
    if not isinstance(items, Iterable):
        raise InvalidInputError("store_many takes an iterable of items")
    loader = _Loader(call)
    try:
        failure = loader.load(_own(iter, items))
        loader.settle()  # what came before is kept; should it have failed, that is what is told
        if failure is not None:
            raise failure
        return loader.stored
    finally:
        loader.close()


@dataclass(slots=True)
class _Chunk:
    prepared: list[Prepared]
    keys: list[DataKey]
    sealed: Sealed | None = None  # None: to be sealed (again)


class _Loader:
    """One call of store_many; at most one chunk is being committed while the next one is prepared."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._names: dict[str, None] = {}
        self._taken = 0
        self._flying: tuple[_Chunk, Callable[[], list[int]]] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self.stored: list[Memory] = []

    def load(self, source: Iterator[Any]) -> StrongroomError | None:
        """Take everything; what refused an item or could not read the next one."""
        try:
            more = True
            while more:
                items, more = _take_chunk(source)
                if items:
                    with collector_paused():
                        self._take(items, more=more)
        except StrongroomError as e:
            return e
        return None

    def _take(self, items: list[Any], *, more: bool) -> None:
        chunk = _Chunk(self._prepared(items), [])
        try:
            self._seal(chunk)
        except KeyMovedError:  # again when the chunk before is done
            chunk.sealed = None
        self.settle()
        if more and self._launch(chunk):
            return
        self._finish(chunk, partial(self._commit, chunk))

    def _launch(self, chunk: _Chunk) -> bool:
        """Commit a chunk on the other thread; False: it has to be sealed again, or there is no thread."""
        try:
            batch, sealed = self._batch(chunk)
        except (KeyMovedError, OutdatedError):
            chunk.sealed = None
            return False
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="strongroom-load")
        try:
            result = self._pool.submit(commit_made, self._call, batch, sealed).result
        except RuntimeError:  # no thread can be started (any more)
            pool, self._pool = self._pool, None
            pool.shutdown(wait=False, cancel_futures=True)
            return False
        self._flying = chunk, result
        self._say(())
        return True

    def settle(self) -> None:
        """Wait for the chunk that is being committed, if any.

        Raises:
            What its commit raised.
        """
        flying, self._flying = self._flying, None
        if flying is not None:
            self._finish(*flying)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def _prepared(self, items: list[Any]) -> list[Prepared]:
        call = self._call
        call.refresh_principal()
        out: list[Prepared] = []
        entries: dict[str, NamespaceEntry] = {}  # authorized and found once per chunk
        taken = {p.memory_id for p in self._flying[0].prepared} if self._flying else set()
        for item in items:
            try:
                out.append(prepare(call, draft_from(item), entries, taken))
            except StrongroomError as e:
                e.message = f"item {self._taken + len(out)}: {e.message}"
                e.args = (e.message,)
                if not isinstance(e, AccessDeniedError):  # which names the namespace that was denied
                    call.namespaces = tuple({**self._names, **entries})
                raise
            taken.add(out[-1].memory_id)
        self._taken += len(out)
        return out

    def _say(self, prepared: Sequence[Prepared]) -> None:
        """What an entry of the audit log says from now on that the operation is about."""
        self._names.update(dict.fromkeys(p.entry.name for p in prepared))
        call = self._call
        call.namespaces = tuple(self._names)
        call.memory_ids = tuple(p.memory_id for p in prepared)
        call.count = len(prepared)

    def _seal(self, chunk: _Chunk) -> Sealed:
        """Seal its rows under the keys that are active now."""
        vault = self._call.engine.vault
        keys: dict[tuple[int, str | None], DataKey] = {}
        by_ns: dict[int, set[str]] = {}
        for p in chunk.prepared:
            subject = p.payload.subject
            if subject is not None:
                by_ns.setdefault(p.entry.ns, set()).add(subject)
            elif (p.entry.ns, None) not in keys:
                keys[(p.entry.ns, None)] = vault.data_key(p.entry.ns, None)
        for ns, subjects in by_ns.items():
            keys.update({(ns, s): k for s, k in vault.data_keys(ns, subjects).items()})
        chunk.keys = [keys[(p.entry.ns, p.payload.subject)] for p in chunk.prepared]
        chunk.sealed = seal_new(self._call.engine, chunk.prepared, chunk.keys)
        return chunk.sealed

    def _batch(self, chunk: _Chunk) -> tuple[WriteBatch, Sealed]:
        """What to commit for it, its audit entry included, and its sealed rows."""
        call = self._call
        call.forget_subjects()
        sealed = chunk.sealed or self._seal(chunk)
        self._say(chunk.prepared)
        by_ns: dict[int, dict[str | None, None]] = {}
        for p in chunk.prepared:
            by_ns.setdefault(p.entry.ns, {})[p.payload.subject] = None
        for ns, subjects in by_ns.items():
            call.about(call.engine.registry.by_ns(ns), subjects, create=True)
        batch = new_batch(call, chunk.prepared, chunk.keys, sealed)
        if not call.principal.is_owner:  # as it was looked at for these items, not for those that come next
            batch.relies_on = call.known
        return batch, sealed

    def _commit(self, chunk: _Chunk) -> list[int]:
        batch, sealed = self._batch(chunk)
        return commit_made(self._call, batch, sealed)

    def _renew(self, chunk: _Chunk) -> None:
        """Take the namespaces as they are now, and seal anew.

        Raises:
            InvalidVectorError: a namespace has a model of other dimensions now than a given vector.
        """
        engine = self._call.engine
        for p in chunk.prepared:
            p.entry = engine.registry.by_ns(p.entry.ns)
            if p.vector is not None:
                p.vector = check_vector(p.vector, engine.models.dimensions(p.entry))
        chunk.sealed = None

    def _finish(self, chunk: _Chunk, commit: Callable[[], list[int]]) -> None:
        """Commit; again under the next key, when a key was rotated meanwhile and nothing was written."""
        seqs: list[int] | None = None
        call = self._call
        before = call.namespaces, call.memory_ids, call.count
        self._say(chunk.prepared)  # should it fail
        for _ in range(_RETRIES):
            try:
                seqs = commit()
                break
            except (KeyMovedError, OutdatedError) as e:
                call.begin_again(e)
            self._renew(chunk)
            commit = partial(self._commit, chunk)
        numbers = iter(commit() if seqs is None else seqs)
        call.forget_subjects()
        call.namespaces, call.memory_ids, call.count = before  # what may fail from here on is not about these
        engine = call.engine
        self.stored += [project_new(engine, p, numbers) for p in chunk.prepared]


def _take_chunk(source: Iterator[Any]) -> tuple[list[Any], bool]:
    """The next items, at most CHUNK_ITEMS and about CHUNK_BYTES of content; and whether more may come."""
    chunk: list[Any] = []
    size = 0
    while len(chunk) < CHUNK_ITEMS and size <= CHUNK_BYTES:
        found = _own(_next, source)
        if found is None:
            return chunk, False
        chunk.append(found[0])
        size += found[1]
    return chunk, True


def _own(work: Callable[[_S], _T], given: _S) -> _T:
    """Do what runs code of the caller's own: its errors, which could hold content, are told by their type."""
    try:
        return work(given)
    except StrongroomError:
        raise
    except Exception as e:  # noqa: BLE001 - an iterator or mapping of the caller raises what it likes
        failure = type(e).__name__
    raise InvalidInputError(f"the items could not be read ({failure})")


def _next(source: Iterator[Any]) -> tuple[Any, int] | None:
    """The next item, as a plain one, and about how long it is; None: there are no more."""
    try:
        item = next(source)
    except StopIteration:
        return None
    if isinstance(item, MemoryDraft):
        content: Any = item.content
    elif isinstance(item, Mapping):
        item = item if type(item) is dict else dict(item)
        content = item.get("content")
    else:
        content = None
    return item, len(content) if isinstance(content, str) else 0
