"""The snapshot files of a store: written, read, thrown away (spec/snapshot.md).

A snapshot is a copy of what the ledger says and never more than that: whatever is wrong with one, it is
dropped and the index is built from the ledger. Nothing here reaches a caller as an error.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from strongroom import crypto
from strongroom.embedding import SweeperLock
from strongroom.engine import _learnt_file
from strongroom.engine import _snapshot_file as form
from strongroom.engine._registry import NamespaceEntry
from strongroom.engine._survey import Rest, take_survey
from strongroom.errors import (
    IntegrityError,
    StorageBusyError,
    StorageError,
    StorageFullError,
    StrongroomError,
    TamperedError,
    cause_of,
)
from strongroom.model import Finding, Severity
from strongroom.recall import LAYOUT_VERSION, FrozenIndex, Learnt, NamespaceIndex, analysis_id, take_up

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

DIRECTORY: Final = "snapshots"
FREE_BYTES_MIN: Final = 64 << 20  # that a snapshot leaves to the ledger
_AGAIN_ROWS_MIN: Final = 50_000  # from here on columns are read in the background
_SUFFIX: Final = ".snap"
_LOCK_NAME: Final = "write.lock"
_LOCK_WAIT_S: Final = 10.0
_PURPOSE: Final = "snapshot"
_NUMBER_MAX: Final = 2**63 - 1  # of a namespace or change in the ledger


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A file by its name."""

    ns: int
    seq: int
    path: Path


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """An index out of a snapshot, and what is needed to compare it with the ledger afterwards."""

    index: NamespaceIndex
    seq: int
    made_us: int
    ids: NDArray[np.uint8]  # shape (memories, 16)
    seqs: NDArray[np.int64]
    prints: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Written:
    seq: int
    made_us: int
    rows: int


class _RejectedError(Exception):
    """A snapshot does not fit; ``why`` is a word for the log. Never leaves this module."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class _Again:
    """A snapshot's stream to be read once more; whoever takes it closes the file."""

    def __init__(self, file: form.OpenedFile, stream: crypto.OpenStream, begin: int) -> None:
        self._file, self._stream, self._begin = file, stream, begin
        self._taken = False

    def __call__(self, position: int) -> AbstractContextManager[crypto.OpenStream]:
        self._taken = True
        return self._reading(position)

    @contextmanager
    def _reading(self, position: int) -> Iterator[crypto.OpenStream]:
        with self._file:
            self._stream.skip_to(self._begin + position, self._file.seek)
            yield self._stream

    def close(self) -> None:
        """Let go of the file when nobody took it."""
        if not self._taken:
            self._file.close()


class Snapshots:
    """``DIR/snapshots``. Thread-safe; one process at a time writes there."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._directory = engine.directory / DIRECTORY

    # -- which there are ----------------------------------------------------------------------------
    def files(self, ns: int | None = None) -> list[SnapshotFile]:
        """The snapshots (of one namespace), the newest first."""
        found: list[SnapshotFile] = []
        with suppress(OSError):
            for path in self._directory.iterdir():
                number, _, seq = path.name.removesuffix(_SUFFIX).partition("-")
                if path.suffix != _SUFFIX or not (number.isdecimal() and seq.isdecimal()):
                    continue
                if max(int(number), int(seq)) <= _NUMBER_MAX:
                    found.append(SnapshotFile(int(number), int(seq), path))
        return sorted((f for f in found if ns is None or f.ns == ns), key=lambda f: (f.ns, -f.seq))

    def header(self, file: SnapshotFile) -> form.Header | None:
        """The clear part of a file; None when there is none."""
        try:
            with form.open_file(file.path) as opened:
                return form.read_header(opened)[0]
        except (OSError, IntegrityError):
            return None

    # -- reading ------------------------------------------------------------------------------------
    def restore(
        self,
        entry: NamespaceEntry,
        new_index: Callable[[], NamespaceIndex],
        discard: Callable[[NamespaceIndex], None],
    ) -> Restored | None:
        """An index out of the newest snapshot that fits; None when there is none.

        What does not fit or is damaged is thrown away; what cannot be read just now stays.
        """
        for _ in range(2):
            vanished = False
            for file in self.files(entry.ns):
                index = new_index()
                try:
                    return self._restore(entry, file, index)
                except FileNotFoundError:
                    vanished = True  # another process has just written a newer one
                except (_RejectedError, IntegrityError) as e:
                    self._rejected(file, e.why if isinstance(e, _RejectedError) else e.code)
                    self._shred(file)
                except (StrongroomError, OSError, MemoryError) as e:
                    self._rejected(file, cause_of(e))
                discard(index)
            if not vanished:
                break
        return None

    def _restore(self, entry: NamespaceEntry, file: SnapshotFile, index: NamespaceIndex) -> Restored:
        with form.open_file(file.path) as opened:
            header, stream = self._open(entry, file, opened)
            described = form.read_description(stream)
            if described.layout != LAYOUT_VERSION:
                raise _RejectedError("version")
            if (described.model_no, described.language) != (entry.model_no, entry.language):
                raise _RejectedError("settings")
            if described.analysis != _analysis(entry):
                raise _RejectedError("analysis")
            self._compare_head(entry, header.seq, described.head_sum)
            prints = form.read_prints(stream, described.rows)
            if described.rows < _AGAIN_ROWS_MIN:
                index.restore(stream)
            else:
                with closing(self._again(entry, file, opened, stream.position)) as again:
                    index.restore(stream, again)
            if stream.read(1):
                raise _RejectedError("length")
        ids, seqs = index.known()
        if index.watermark != header.seq or len(ids) != described.rows:
            raise _RejectedError("form")
        self._take_up(entry, file, header, index)
        return Restored(index, header.seq, header.made_us, ids, seqs, prints)

    def _open(
        self, entry: NamespaceEntry, file: SnapshotFile, opened: form.OpenedFile
    ) -> tuple[form.Header, crypto.OpenStream]:
        header, raw = form.read_header(opened)
        if header.store_id != self._engine.ledger.store_id or header.ns != entry.ns or header.seq != file.seq:
            raise _RejectedError("foreign")
        kek = self._engine.vault.purpose_key(entry.ns, _PURPOSE)
        return header, form.open_stream(opened, raw, entry.tenant, kek)

    def _take_up(
        self, entry: NamespaceEntry, file: SnapshotFile, header: form.Header, index: NamespaceIndex
    ) -> None:
        """Let an index know what was learnt after its snapshot was written; without it, it learns again."""
        path = _learnt_file.beside(file.path)
        kek = self._engine.vault.purpose_key(entry.ns, _PURPOSE)
        try:
            fits = take_up(index, _learnt_file.read(path, header, entry.tenant, kek))
        except FileNotFoundError:
            return
        except (OSError, StrongroomError) as e:
            self._engine.log.warning("learnt_rejected", ns=entry.ns, code=cause_of(e))
            fits = False
        if not fits:
            _take_away(path)

    def _again(
        self, entry: NamespaceEntry, file: SnapshotFile, opened: form.OpenedFile, position: int
    ) -> _Again:
        """The same file once more, by a name that still has to be its name."""
        second = form.open_file(file.path)
        try:
            if not os.path.sameopenfile(opened.fileno(), second.fileno()):
                raise FileNotFoundError("another one took its place meanwhile")
            return _Again(second, self._open(entry, file, second)[1], position)
        except BaseException:
            second.close()
            raise

    def _compare_head(self, entry: NamespaceEntry, watermark: int, head_sum: bytes) -> None:
        """The ledger may have gone on, never back, and at the same number it must be the same ledger."""
        engine = self._engine
        seq, head = engine.ledger.head(entry.ns)
        if watermark > seq:
            raise _RejectedError("ahead")
        if watermark == seq and head_sum:
            total = engine.heads.open_head(entry.ns, head, seq)
            if int.from_bytes(head_sum) != total:
                raise _RejectedError("history")

    def _rejected(self, file: SnapshotFile, why: str) -> None:
        self._engine.metrics.snapshots.labels("rejected").inc()
        self._engine.log.warning("snapshot_rejected", ns=file.ns, seq=file.seq, why=why)

    # -- writing ------------------------------------------------------------------------------------
    def write(self, entry: NamespaceEntry, index: NamespaceIndex, rest: Rest) -> Written | None:
        """Write a snapshot of an index that agrees with the ledger; None when it could not be.

        ``rest`` is called after each piece of work with its seconds, and raises to give up.

        Raises:
            TamperedError, DecryptionError: the rows of the ledger do not match its head. What ``rest``
            raises. StorageError: the ledger could not be read.
        """
        started = time.perf_counter()
        try:
            with self._locked(wait_s=0.0):
                done = self._write(entry, index, rest)
        except (OSError, StorageBusyError, StorageFullError, MemoryError) as e:
            self._engine.metrics.snapshots.labels("failed").inc()
            code = cause_of(e)
            self._engine.log.warning("snapshot_not_written", ns=entry.ns, code=code)
            return None
        if done is not None:
            self._engine.metrics.snapshots.labels("written").inc()
            self._engine.metrics.step("write_snapshot", time.perf_counter() - started)
        return done

    def _write(self, entry: NamespaceEntry, index: NamespaceIndex, rest: Rest) -> Written | None:
        engine = self._engine
        frozen = index.freeze()
        try:
            survey = take_survey(engine.ledger, engine.heads, entry, rest)
            if not survey.matches:
                raise TamperedError("the rows of a namespace do not match its head")
            ids = frozen.ids()
            if not survey.agrees(frozen.watermark, ids, frozen.seqs(), None):
                engine.log.info("snapshot_left_out", ns=entry.ns, why="rows that do not open")
                return None
            described = form.Description(
                LAYOUT_VERSION,
                entry.model_no,
                entry.language,
                _analysis(entry),
                frozen.rows,
                survey.head_sum.to_bytes(32) if survey.seq == frozen.watermark else b"",
            )
            prints = survey.prints_of(frozen.watermark, ids)
            del survey, ids
            header = form.Header(engine.ledger.store_id, entry.ns, frozen.watermark, engine.now_us())
            self._require_room(index)
            self._publish(entry, header, described, prints, frozen, rest)
        finally:
            frozen.close()
        return Written(header.seq, header.made_us, described.rows)

    def keep_learnt(self, entry: NamespaceEntry, seq: int, made_us: int, learnt: Learnt) -> bool:
        """Put what was learnt beside the snapshot of that number and time; False when it could not be."""
        header = form.Header(self._engine.ledger.store_id, entry.ns, seq, made_us)
        snapshot = self._directory / f"{entry.ns}-{seq}{_SUFFIX}"
        suite = crypto.suite_by_name(self._engine.config.keys.suite).number
        kek = self._engine.vault.purpose_key(entry.ns, _PURPOSE)
        try:
            with self._locked(wait_s=0.0):
                if self.header(SnapshotFile(entry.ns, seq, snapshot)) != header:
                    return False  # another process has written a newer one
                _learnt_file.write(_learnt_file.beside(snapshot), header, entry.tenant, kek, suite, learnt)
        except (OSError, StrongroomError) as e:
            self._engine.log.warning("learnt_not_kept", ns=entry.ns, code=cause_of(e))
            return False
        return True

    def _require_room(self, index: NamespaceIndex) -> None:
        about = index.memory_bytes() + index.table.dump_bytes() * 5 // 4
        if shutil.disk_usage(self._directory).free < about + FREE_BYTES_MIN:
            raise StorageFullError("no room for a snapshot")

    def _publish(
        self,
        entry: NamespaceEntry,
        header: form.Header,
        described: form.Description,
        prints: NDArray[np.uint64],
        frozen: FrozenIndex,
        rest: Rest,
    ) -> None:
        name = f"{header.ns}-{header.seq}{_SUFFIX}"
        draft = self._directory / f".{name}.draft"
        kek = self._engine.vault.purpose_key(entry.ns, _PURPOSE)
        suite = crypto.suite_by_name(self._engine.config.keys.suite).number
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
                sink = form.SnapshotSink(file, rest)
                with form.begin(sink, header, entry.tenant, kek, suite, described) as stream:
                    stream.write(prints.astype("<u8", copy=False).data.cast("B") if len(prints) else b"")
                    frozen.dump(stream)
                file.flush()
                os.fsync(file.fileno())
            with suppress(OSError):  # of the same rows, with other lists
                form.erase_key(self._directory / name)
            draft.rename(self._directory / name)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise
        _take_away(_learnt_file.beside(self._directory / name))
        _sync_directory(self._directory)
        for file_ in self.files(header.ns):
            if file_.path.name != name:
                self._shred(file_)

    @contextmanager
    def _locked(self, wait_s: float) -> Iterator[None]:
        """Be the only writer of the directory, which is made when it is not there.

        Raises:
            StorageBusyError: another process writes. OSError: the directory cannot be made.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        if self._directory.is_symlink():
            raise NotADirectoryError(f"{DIRECTORY} is a link")
        lock = SweeperLock(self._directory / _LOCK_NAME)
        deadline = time.monotonic() + wait_s
        try:
            while not lock():
                if time.monotonic() >= deadline:
                    raise StorageBusyError("another process writes a snapshot")
                time.sleep(0.02)
            for draft in self._drafts():
                _take_away(draft)
            yield
        finally:
            lock.release()

    # -- throwing away ------------------------------------------------------------------------------
    def clear_drafts(self) -> None:
        """Take away what killed writers have left, unless somebody writes just now; and what was learnt of
        snapshots that are no longer there."""
        for learnt in self._directory.glob(f"*{_learnt_file.SUFFIX}"):
            if not learnt.with_suffix(_SUFFIX).exists():
                _take_away(learnt)
        if self._drafts():
            with suppress(OSError, StorageBusyError), self._locked(wait_s=0.0):
                pass

    def _drafts(self) -> list[Path]:
        return list(self._directory.glob(".*.draft"))

    def discard(self, ns: int) -> int:
        """Throw away every snapshot of a namespace; how many there were.

        Waits for another process that writes one. This process's own writer is the caller's to stop first.

        Raises:
            StorageBusyError: another process goes on writing; what was there is gone all the same.
        """
        if not self._directory.is_dir():
            return 0
        done = sum(self._shred(file) for file in self.files(ns))
        try:
            with self._locked(wait_s=_LOCK_WAIT_S):
                done += sum(self._shred(file) for file in self.files(ns))
                for learnt in self._directory.glob(f"{ns}-*{_learnt_file.SUFFIX}"):  # put there meanwhile
                    _take_away(learnt)
        except OSError:
            raise StorageError("the snapshots of a namespace cannot be removed") from None
        if done:
            self._engine.metrics.snapshots.labels("discarded").inc(done)
        return done

    def _shred(self, file: SnapshotFile) -> bool:
        """Overwrite the wrapped key and take the file away; True when it was there."""
        _take_away(_learnt_file.beside(file.path))
        return _take_away(file.path)

    # -- checking -----------------------------------------------------------------------------------
    def check(self, read_data: bool) -> Iterator[Finding]:
        """Open every snapshot: its key, and with ``read_data`` every chunk. A bad one is no loss."""
        known = {entry.ns: entry for entry in self._engine.registry.entries()}
        for file in self.files():
            try:
                entry = known.get(file.ns)
                if entry is None:
                    raise _RejectedError("foreign")
                with form.open_file(file.path) as opened:
                    _, stream = self._open(entry, file, opened)
                    form.read_description(stream)
                    buffer = bytearray(1 << 20)
                    while read_data and stream.readinto(buffer):
                        pass
            except FileNotFoundError:
                continue  # a newer one took its place meanwhile
            except (_RejectedError, StrongroomError, OSError) as e:
                code = e.why if isinstance(e, _RejectedError) else getattr(e, "code", type(e).__name__)
                yield Finding(
                    Severity.WARNING,
                    "snapshot_unreadable",
                    f"it does not open ({code})",
                    f"{DIRECTORY}/{file.path.name}",
                    "delete it: it only makes the start quicker, and is made again",
                )


def _take_away(path: Path) -> bool:
    with suppress(OSError):
        form.erase_key(path)
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _analysis(entry: NamespaceEntry) -> str:
    """What decides which terms and columns an index holds."""
    return analysis_id(entry.language) + ("/sealed-in-memory" if entry.sealed else "")
