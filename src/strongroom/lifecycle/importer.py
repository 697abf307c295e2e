"""Import of JSON lines (docs/import.md): checked as a whole, stored in batches, resumed after a kill.

Two passes, both streaming: the first checks the form of every line and compares what was imported before,
the second stores. Where a batch has become durable and the record of it has not, the ids of the repeated
batch are those of the first time, so that the store refuses them and nothing is stored twice.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Protocol
from uuid import UUID

from strongroom.config import LimitsConfig
from strongroom.errors import (
    ConflictError,
    DuplicateMemoryError,
    InvalidInputError,
    LimitExceededError,
    MemoryNotFoundError,
    StorageError,
    StorageFullError,
    StrongroomError,
    WorkerLostError,
)
from strongroom.lifecycle._import_lines import LineContext, at_line, parse_line
from strongroom.lifecycle._import_state import ImportState, StateFile
from strongroom.model import Memory, MemoryDraft

BATCH_ITEMS: Final = 500
_REFUSED_LINES: Final = 2 * BATCH_ITEMS
BATCH_CHARACTERS: Final = 4 * 1024 * 1024
_REPORT_EVERY_LINES: Final = 200
_REFUSED: Final = (InvalidInputError, LimitExceededError)
_AGAIN: Final = "import the file again: it goes on where it was, and nothing is stored twice"
_RESTART: Final = "--restart begins anew; what is stored already then stays and is stored again"


class ImportTarget(Protocol):
    """What an import needs of a session, embedded or remote."""

    def store_many(self, items: Iterable[Mapping[str, Any] | MemoryDraft]) -> list[Memory]: ...

    def load(
        self,
        items: Iterable[Mapping[str, Any] | MemoryDraft],
        *,
        workers: int = 1,
        progress: Callable[[int], object] | None = None,
    ) -> int: ...

    def get(self, memory_id: UUID | str, *, namespace: str) -> Memory: ...


@dataclass(slots=True, kw_only=True)
class ImportReport:
    """What an import did. ``before``: lines done by earlier runs; ``skipped``: lines that are no good."""

    lines: int = 0
    before: int = 0
    stored: int = 0
    duplicates: int = 0
    skipped: int = 0


Progress = Callable[[str, int, int], None]  # phase, bytes done, bytes in all


@dataclass(slots=True)
class _Batch:
    items: list[tuple[int, MemoryDraft]] = field(default_factory=list)  # line number, draft
    characters: int = 0
    ids: set[UUID | None] = field(default_factory=set)

    def is_full(self) -> bool:
        return len(self.items) >= BATCH_ITEMS or self.characters >= BATCH_CHARACTERS


class _Place(NamedTuple):
    """A place in the file, behind a line, and what was done up to there."""

    lines: int
    bytes: int
    digest: Any  # SHA-256 of what lies before it
    drafts: int  # of this load
    last: tuple[str, str] | None  # namespace and id of the last of them
    refused: StrongroomError | None  # of that very line


class Importer:
    """Imports one file into one store."""

    def __init__(
        self,
        target: ImportTarget,
        state_directory: Path,
        *,
        workers: int = 1,
        namespace: str | None = None,
        limits: LimitsConfig | None = None,
        bad_lines: Path | None = None,
        restart: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """
        Args:
            state_directory: where the record of imports into this store is kept.
            workers: processes that check and seal (``Session.load``); 1: this one alone.
            namespace: for lines that name none.
            bad_lines: leave lines out that are no good, and list them in this new file: number, code
                and message, no content. None: the first such line ends the import before it began.
            restart: forget what an earlier import of this file has done.
        """
        self._target = target
        self._workers = workers
        self._state_directory = state_directory
        self._namespace = namespace
        self._limits = limits or LimitsConfig()
        self._bad_path = bad_lines
        self._restart = restart
        self._progress = progress or (lambda phase, done, total: None)
        self._bad: IO[str] | None = None
        self._report = ImportReport()

    def run(self, source: Path) -> ImportReport:
        """Import ``source``.

        Raises:
            InvalidInputError, ContentTooLargeError: a line is no good, or the file cannot be read.
            ConflictError: the file was changed after an interrupted import, or another process imports
            it. StorageError, and whatever ``store_many`` raises; what was stored before stays.
        """
        self._report = ImportReport()
        file = StateFile(self._state_directory, source)
        with ExitStack() as stack:
            stack.enter_context(file.held())
            stream = stack.enter_context(_opened(source))
            size = os.fstat(stream.fileno()).st_size
            state = None if self._restart else file.load()
            state = self._check(stream, size, state)
            if self._bad_path is not None:
                self._bad = stack.enter_context(_new_text_file(self._bad_path))
            file.save(state)
            stream.seek(state.bytes_done)
            self._store(stream, size, state, file)
        return self._report

    def _context(self, state: ImportState) -> LineContext:
        return LineContext(state.import_id, state.started_at, self._namespace, self._limits, state.ids)

    # -- the first pass -------------------------------------------------------------------------------
    def _check(self, stream: IO[bytes], size: int, state: ImportState | None) -> ImportState:
        """The state to go on from, after a look at every line that is still to be stored."""
        if state is not None and not self._same_beginning(stream, state):
            if not state.finished:
                raise ConflictError(
                    "the file was changed where an interrupted import had read it already", hint=_RESTART
                )
            state = None  # another file under an old name
        if state is not None and state.last is not None:
            self._still_there(state.last)
        state = state or ImportState.new()
        if state.finished:
            state = dataclasses.replace(state, finished=False)
        context = self._context(state)
        stream.seek(state.bytes_done)
        done = state.bytes_done
        for number, raw in _lines(stream, state.lines_done, context.line_bytes_max):
            done += len(raw)
            if self._bad_path is None:
                parse_line(raw, number, context)
            if number % _REPORT_EVERY_LINES == 0:
                self._progress("checking", done, size)
        return state

    def _same_beginning(self, stream: IO[bytes], state: ImportState) -> bool:
        digest = hashlib.sha256()
        left = state.bytes_done
        while left and (part := stream.read(min(left, 1 << 20))):
            digest.update(part)
            left -= len(part)
        return left == 0 and digest.hexdigest() == state.sha256

    def _still_there(self, last: tuple[str, str]) -> None:
        """Raise when the store lost what the record says was stored: it may be an older backup."""
        try:
            self._target.get(last[1], namespace=last[0])
        except MemoryNotFoundError:
            raise ConflictError(
                "the last memory of the earlier import is no longer in the store: others may be missing too",
                hint=_RESTART,
            ) from None

    # -- the second pass ------------------------------------------------------------------------------
    def _store(self, stream: IO[bytes], size: int, state: ImportState, file: StateFile) -> None:
        digest = _digest_of(stream, state.bytes_done)
        self._report.before = state.lines_done
        self._progress("storing", state.bytes_done, size)
        at_end = False
        while not at_end:
            if self._workers > 1:
                state, digest, at_end = self._load(stream, size, state, file, digest)
            if not at_end:  # what is refused is looked at line by line
                lines_max = _REFUSED_LINES if self._workers > 1 else None
                state, at_end = self._store_lines(stream, size, state, file, digest, lines_max)
        file.save(dataclasses.replace(state, finished=True))
        self._report.lines = state.lines_done
        self._progress("storing", size, size)

    def _store_lines(
        self,
        stream: IO[bytes],
        size: int,
        state: ImportState,
        file: StateFile,
        digest: Any,
        lines_max: int | None,
    ) -> tuple[ImportState, bool]:
        """Store the next lines (without ``lines_max`` all of them) in batches; whether that was the end."""
        context = self._context(state)
        batch = _Batch()
        number, done = state.lines_done, state.bytes_done
        end = None if lines_max is None else number + lines_max
        for number, raw in _lines(stream, state.lines_done, context.line_bytes_max):
            digest.update(raw)
            done += len(raw)
            try:
                self._take(batch, number, parse_line(raw, number, context))
            except _REFUSED as e:
                self._skip(number, e)
            if batch.is_full():
                state = self._commit(batch, state, number, done, digest.hexdigest(), file)
                self._progress("storing", done, size)
                batch = _Batch()
            if number == end:
                break
        state = self._commit(batch, state, number, done, digest.hexdigest(), file)
        return state, number != end

    def _load(
        self, stream: IO[bytes], size: int, state: ImportState, file: StateFile, digest: Any
    ) -> tuple[ImportState, Any, bool]:
        """Load what follows by workers, as far as nothing is refused; whether that was to the end.

        The stream stands behind what the state counts.
        """
        context = self._context(state)
        here = _Place(state.lines_done, state.bytes_done, digest.copy(), 0, None, None)
        places: deque[_Place] = deque()  # behind lines that were read and are not durable yet

        def drafts() -> Iterator[MemoryDraft]:
            done, count, last = here.bytes, 0, here.last
            for number, raw in _lines(stream, here.lines, context.line_bytes_max):
                digest.update(raw)
                done += len(raw)
                refused = None
                try:
                    found = parse_line(raw, number, context)
                except _REFUSED as e:
                    if self._bad is None:
                        raise
                    found, refused = [], e
                for draft in found:
                    count += 1
                    last = _evidence(draft) or last
                    yield draft
                places.append(_Place(number, done, digest.copy(), count, last, refused))

        def kept(count: int) -> None:
            nonlocal here, state
            before = here
            while places and places[0].drafts <= count:
                here = places.popleft()
                if here.refused is not None:
                    self._skip(here.lines, here.refused)
            if here is not before:
                self._report.stored += here.drafts - before.drafts
                state = dataclasses.replace(
                    state,
                    lines_done=here.lines,
                    bytes_done=here.bytes,
                    sha256=here.digest.hexdigest(),
                    last=here.last or state.last,
                )
                file.save(state)
                self._progress("storing", here.bytes, size)

        try:
            kept(self._target.load(drafts(), workers=self._workers, progress=kept))
        except (DuplicateMemoryError, *_REFUSED):
            stream.seek(here.bytes)
            return state, here.digest, False
        except WorkerLostError as e:
            raise WorkerLostError(e.message, hint=_AGAIN) from None
        return state, here.digest, True

    def _take(self, batch: _Batch, number: int, drafts: list[MemoryDraft]) -> None:
        for draft in drafts:
            if draft.memory_id in batch.ids:
                self._report.duplicates += 1
                continue
            batch.ids.add(draft.memory_id)
            batch.items.append((number, draft))
            batch.characters += len(draft.content)

    def _commit(
        self, batch: _Batch, state: ImportState, lines: int, done: int, digest: str, file: StateFile
    ) -> ImportState:
        last = state.last
        if batch.items:
            last = self._store_batch(batch.items) or last
        state = dataclasses.replace(state, lines_done=lines, bytes_done=done, sha256=digest, last=last)
        file.save(state)
        return state

    def _store_batch(self, items: list[tuple[int, MemoryDraft]]) -> tuple[str, str] | None:
        """Store a batch, one by one when it is refused as a whole; (namespace, id) of the last that is in."""
        try:
            self._target.store_many([draft for _, draft in items])
        except (DuplicateMemoryError, *_REFUSED):
            return self._store_singly(items)
        self._report.stored += len(items)
        return next((found for _, draft in reversed(items) if (found := _evidence(draft))), None)

    def _store_singly(self, items: list[tuple[int, MemoryDraft]]) -> tuple[str, str] | None:
        last: tuple[str, str] | None = None
        for number, draft in items:
            try:
                self._target.store_many([draft])
                self._report.stored += 1
            except DuplicateMemoryError:
                self._report.duplicates += 1
            except _REFUSED as e:
                self._skip(number, _without_item(e, number))
                continue
            last = _evidence(draft) or last
        return last

    def _skip(self, number: int, error: StrongroomError) -> None:
        """Note a line that is no good, or raise when these are not to be left out."""
        if self._bad is None:
            raise error
        self._report.skipped += 1
        try:
            self._bad.write(json.dumps({"line": number, **error.as_dict()}) + "\n")
        except OSError as e:
            raise _bad_lines_error(e) from None


def _evidence(draft: MemoryDraft) -> tuple[str, str] | None:
    """What shows later that the store still has the draft; None: it expires, and is gone then anyway."""
    return None if draft.expires_at is not None else (draft.namespace, str(draft.memory_id))


def _without_item(error: StrongroomError, number: int) -> StrongroomError:
    """The refusal of a lone item: the line's number instead of the item's."""
    return at_line(type(error)(error.message.removeprefix("item 0: "), hint=error.hint), number)


def _digest_of(stream: IO[bytes], count: int) -> Any:
    """SHA-256 of the first ``count`` bytes; leaves the stream behind them."""
    digest = hashlib.sha256()
    stream.seek(0)
    while count and (part := stream.read(min(count, 1 << 20))):
        digest.update(part)
        count -= len(part)
    return digest


def _lines(stream: IO[bytes], before: int, bytes_max: int) -> Iterator[tuple[int, bytes]]:
    """The numbers and bytes of the lines from here on, one in memory at a time.

    Raises:
        InvalidInputError: one is too long. It is not skipped, because it may be all of the file.
    """
    number = before
    while raw := stream.readline(bytes_max + 2):
        number += 1
        if len(raw) > bytes_max and not raw.endswith(b"\n"):
            raise InvalidInputError(
                f"line {number}: it is too long", hint=f"a line has at most {bytes_max} bytes"
            )
        yield number, raw


def _opened(source: Path) -> IO[bytes]:
    try:
        if not source.is_file():
            raise InvalidInputError("there is no such file, or it is not a regular one")
        return source.open("rb")
    except OSError as e:
        raise InvalidInputError(f"the file cannot be read: {e.strerror}") from None


@contextmanager
def _new_text_file(path: Path) -> Iterator[IO[str]]:
    """A file of which each line is written out at once: what an import has done is recorded behind it."""
    try:
        file = path.open("x", encoding="utf-8", buffering=1)
    except FileExistsError:
        raise ConflictError("the file for the skipped lines exists already") from None
    except OSError as e:
        raise _bad_lines_error(e) from None
    try:
        yield file
    finally:
        with suppress(OSError):  # of a line that could not be written: told already
            file.close()


def _bad_lines_error(error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError("the list of skipped lines cannot be written: the disk is full")
    return StorageError(f"the list of skipped lines cannot be written: {error.strerror}")
