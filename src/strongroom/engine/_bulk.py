"""store_many and load: in chunks, the next one checked and sealed while the one before is being committed.

Writing a chunk is mostly SQLite and the disk, which need no interpreter; preparing one is mostly Python.
So a second thread commits, and the two overlap. What a chunk says about itself in the audit log is put
together when the one before is done, and the answer goes out when all of them are durable. Where a load has
several processes (``_load``), each of them runs this over its share of the chunks, and commits in its turn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

from strongroom.engine._call import Call
from strongroom.engine._collector import collector_paused
from strongroom.engine._registry import NamespaceEntry
from strongroom.engine._validate import draft_from
from strongroom.engine._vectors import UnitVectors, check_vector
from strongroom.engine._write import (
    Prepared,
    Sealed,
    commit_made,
    former_rows,
    made,
    new_batch,
    prepare,
    project_new,
    seal_new,
    succeed,
)
from strongroom.errors import (
    AccessDeniedError,
    DuplicateMemoryError,
    InvalidInputError,
    KeyMovedError,
    StrongroomError,
    callers_own,
)
from strongroom.keyring import DataKey
from strongroom.ledger import OutdatedError, WriteBatch
from strongroom.model import Memory, MemoryDraft, State

CHUNK_ITEMS = 1000
CHUNK_BYTES = 16 * 1024 * 1024
_RETRIES = 8
_UNREAD = "the items could not be read"

Items = Iterable[Mapping[str, Any] | MemoryDraft]
Kept = Callable[[int], object]  # is told how many items, from the first one on, are durable


class Given(NamedTuple):
    """The items of a chunk; ``start``: the position of the first. ``more``: whether another may follow."""

    start: int
    items: list[Any]
    more: bool


class Turn(Protocol):
    """The order in which the processes of a load commit: that of the items."""

    def wait(self) -> None:
        """Until every chunk before this process's next one is durable.

        Raises:
            OutOfTurnError: one of them never will be.
        """

    def done(self) -> None:
        """The chunk is durable: it is the turn of the next process."""


class OutOfTurnError(Exception):
    """Inside a load only: a chunk before was refused or its process has ended; this one is not committed."""


def store_many(call: Call, items: Items) -> list[Memory]:
    stored: list[Memory] = []
    _load(call, chunks_of(items, "store_many"), stored)
    return stored


def load(call: Call, chunks: Iterator[Given], kept: Kept) -> int:
    """Keep what the chunks hold, and nothing of it in memory; how many items they were."""
    return _load(call, chunks, None, kept=kept)


def load_share(call: Call, chunks: Iterator[Given], share: Share) -> None:
    """Keep one process's share of the chunks of a load, in turn with the others."""
    call.apart = True  # others make pseudonyms for the same subjects at the same time
    try:
        _load(call, chunks, None, share)
    except OutOfTurnError:
        call.forget_subjects()
        call.namespaces, call.memory_ids, call.count = (), (), 0


def told(progress: Kept | None) -> Kept:
    """Who is told how far a load has come, by ``progress`` of the caller's own; without one nobody is.

    Raises (when it tells):
        InvalidInputError: ``progress`` raised something.
    """
    if progress is None:
        return lambda kept: None
    return lambda kept: callers_own(progress, kept, "progress could not be told")


def chunks_of(items: Items, name: str) -> Iterator[Given]:
    """The items in chunks. Raises: InvalidInputError: they are no iterable, or could not be read."""
    if not isinstance(items, Iterable):
        raise InvalidInputError(f"{name} takes an iterable of items")
    return _chunks(items)


def _chunks(items: Items) -> Iterator[Given]:
    source = callers_own(iter, items, _UNREAD)
    start, more = 0, True
    while more:
        chunk, more = _take_chunk(source)
        yield Given(start, chunk, more)
        start += len(chunk)


@dataclass(slots=True)
class Share:
    """What a process of a load has beside its chunks.

    ``kept``: is told how many items are durable, all shares together.
    ``flown``: is called on another thread when a commit has ended in whatever way; ``settle`` is due then.
    """

    turn: Turn
    kept: Kept
    flown: Callable[[], None] = lambda: None
    loader: _Loader | None = None

    @property
    def position(self) -> int:
        """The first item of the chunk that was worked at last."""
        return self.loader.position if self.loader is not None else 0

    def settle(self) -> None:
        """Take in what the last commit has brought."""
        if self.loader is not None:
            self.loader.settle()


def _load(
    call: Call,
    chunks: Iterator[Given],
    stored: list[Memory] | None,
    share: Share | None = None,
    kept: Kept | None = None,
) -> int:
    call.repeatable = False  # the items are gone once they were read
    loader = _Loader(call, stored, share, kept if share is None else share.kept)
    try:
        failure = loader.load(chunks)
        loader.settle()  # what came before is kept; should it have failed, that is what is told
        if failure is not None:
            raise failure
        return loader.count
    finally:
        loader.close()


@dataclass(slots=True)
class _Chunk:
    start: int
    prepared: list[Prepared]
    keys: list[DataKey]
    sealed: Sealed | None = None  # None: to be sealed (again)


class _Loader:
    """One load; at most one chunk is being committed while the next one is prepared."""

    def __init__(
        self, call: Call, stored: list[Memory] | None, share: Share | None, kept: Kept | None
    ) -> None:
        self._call = call
        self._names: dict[str, None] = {}
        self._flying: tuple[_Chunk, Callable[[], list[int]]] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._stored = stored
        self._share = share
        self._told = kept
        self.count = 0
        self.position = 0
        if share is not None:
            share.loader = self

    def load(self, chunks: Iterator[Given]) -> StrongroomError | None:
        """Take everything; what refused an item or could not read the next one."""
        try:
            for given in chunks:
                if given.items:
                    with collector_paused():
                        self._take(given)
        except StrongroomError as e:
            return e
        return None

    def _take(self, given: Given) -> None:
        self.position = given.start
        chunk = _Chunk(given.start, self._prepared(given), [])
        try:
            self._seal(chunk)
        except KeyMovedError:  # again when the chunk before is done
            chunk.sealed = None
        self.settle()
        if given.more and self._launch(chunk):
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
            flight = self._pool.submit(self._write, batch, sealed)
        except RuntimeError:  # no thread can be started (any more)
            pool, self._pool = self._pool, None
            pool.shutdown(wait=False, cancel_futures=True)
            return False
        self._flying = chunk, flight.result
        if self._share is not None:
            flight.add_done_callback(self._flown)
        self._say(())
        return True

    def _flown(self, _: Future[list[int]]) -> None:
        if self._share is not None:
            self._share.flown()

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

    def _prepared(self, given: Given) -> list[Prepared]:
        call = self._call
        call.refresh_principal()
        out: list[Prepared] = []
        new_id = _near_ids(len(given.items)).__next__
        entries: dict[str, NamespaceEntry] = {}  # authorized and found once per chunk
        named: list[int] = []  # those that have come with an id
        vectors = UnitVectors(out)
        failure: StrongroomError | None = None
        for item in given.items:
            try:
                draft = draft_from(item)
                name = draft.namespace
                if (type(name) is not str or name not in entries) and vectors.refused() is not None:
                    break  # no namespace is made for an item behind one that is refused
                out.append(prepare(call, draft, entries, new_id, vectors.take))
            except StrongroomError as e:
                failure = _at(given.start + len(out), e)
                break
            if draft.memory_id is not None:
                named.append(len(out) - 1)
        refused = vectors.refused()
        if refused is not None:
            failure = _at(given.start + refused[0], refused[1])
            named = [place for place in named if place < refused[0]]
        if named:
            failure = self._look_up(given.start, out, named) or failure
        if failure is not None:
            if not isinstance(failure, AccessDeniedError):  # which names the namespace that was denied
                call.namespaces = tuple({**self._names, **entries})
            raise failure
        return out

    def _look_up(self, start: int, prepared: list[Prepared], named: list[int]) -> StrongroomError | None:
        """Find what there was under ids that were given; what the first that is taken has to be told."""
        flying = self._flying[0].prepared if self._flying else ()
        taken = {(p.entry.ns, p.memory_id) for p in flying}
        rows = former_rows(self._call.engine, [prepared[place] for place in named])
        for place in named:
            p = prepared[place]
            try:
                key = p.entry.ns, p.memory_id
                if key in taken:
                    raise DuplicateMemoryError
                taken.add(key)
                succeed(p, rows.get(key))
            except DuplicateMemoryError as e:
                return _at(start + place, e)
        return None

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
        return self._write(*self._batch(chunk))

    def _write(self, batch: WriteBatch, sealed: Sealed) -> list[int]:
        turn = self._share.turn if self._share is not None else None
        if turn is not None:
            turn.wait()
        seqs = commit_made(self._call, batch, sealed)
        if turn is not None:
            turn.done()
        return seqs

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
        working_at, self.position = self.position, chunk.start
        self._say(chunk.prepared)  # should it fail
        try:
            for _ in range(_RETRIES):
                try:
                    seqs = commit()
                    break
                except (KeyMovedError, OutdatedError) as e:
                    call.begin_again(e)
                self._renew(chunk)
                commit = partial(self._commit, chunk)
            numbers = iter(commit() if seqs is None else seqs)
        except DuplicateMemoryError as e:
            raise self._duplicate(chunk, e) from None
        call.forget_subjects()
        call.namespaces, call.memory_ids, call.count = before  # what may fail from here on is not about these
        self.position = working_at
        self._kept(chunk, numbers)

    def _duplicate(self, chunk: _Chunk, error: StrongroomError) -> StrongroomError:
        """The error of a commit, with the position of the item whose id somebody else was first to use."""
        rows = former_rows(self._call.engine, chunk.prepared)
        for place, p in enumerate(chunk.prepared):
            row = rows.get((p.entry.ns, p.memory_id))
            if row is not None and row.state == State.LIVE:
                return _at(chunk.start + place, error)
        return error

    def _kept(self, chunk: _Chunk, numbers: Iterator[int]) -> None:
        """A chunk is durable: the indexes, the answer and whoever waits for it take it in."""
        engine, stored = self._call.engine, self._stored
        self.count += len(chunk.prepared)
        if stored is None:
            project_new(engine, chunk.prepared, numbers)
        else:
            memories = [made(p) for p in chunk.prepared]
            project_new(engine, chunk.prepared, numbers, memories)
            stored += memories
        if self._told is not None:
            self._told(chunk.start + len(chunk.prepared))


def _near_ids(count: int) -> Iterator[bytes]:
    """Ids for the memories of one chunk: 48 random bits that they share, and 74 of their own (ADR 21).

    They stand together in the index, which then has a dozen new pages for a chunk and not a thousand.
    """
    head = os.urandom(6)
    tails = bytearray(os.urandom(10 * count))
    for at in range(0, len(tails), 10):
        tails[at] = (tails[at] & 0x0F) | 0x80  # RFC 9562: version 8, whose bits are the maker's
        tails[at + 2] = (tails[at + 2] & 0x3F) | 0x80
    return iter([head + tails[at : at + 10] for at in range(0, len(tails), 10)])


def _at(position: int, error: StrongroomError) -> StrongroomError:
    """The same error, with the position of the item that it is about."""
    error.message = f"item {position}: {error.message}"
    error.args = (error.message,)
    return error


def _take_chunk(source: Iterator[Any]) -> tuple[list[Any], bool]:
    """The next items, at most CHUNK_ITEMS and about CHUNK_BYTES of content; and whether more may come."""
    chunk: list[Any] = []
    more = callers_own(partial(_fill, chunk), source, _UNREAD)
    return chunk, more


def _fill(chunk: list[Any], source: Iterator[Any]) -> bool:
    """Add the next items, as plain ones; whether more may come."""
    size = 0
    while len(chunk) < CHUNK_ITEMS and size <= CHUNK_BYTES:
        try:
            item = next(source)
        except StopIteration:
            return False
        content: Any = None
        if type(item) is dict:
            content = item.get("content")
        elif isinstance(item, MemoryDraft):
            content = item.content
        elif isinstance(item, Mapping):
            item = dict(item)
            content = item.get("content")
        chunk.append(item)
        if isinstance(content, str):
            size += len(content)
    return True
