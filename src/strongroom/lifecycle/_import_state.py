"""How far an import has come, in a file that survives a kill.

    {"format": 1, "import_id", "started_at", "lines_done", "bytes_done", "sha256", "last", "finished", "ids",
     "check"}

``sha256`` is that of the source's first ``bytes_done`` bytes; ``last`` names the last memory stored; ``ids``:
how ids are made (1, or without it: UUIDv5; 2: lines nearby begin alike), as an import goes on. ``check`` is a
SHA-256 of the other fields (JSON, sorted by name), which records of before do not have: a number of lines or
an id that is another one makes other ids, and what is stored already would be stored again.

The file holds no content, but a digest lets its reader test a guess of the whole beginning of the source, and
so it does not belong into a data directory, which strangers may hold. Of an opened directory it lies in
``imports`` of the *keys* directory: whoever reads that holds the key already. It is replaced as a whole
and fsynced, after the memories that it counts are durable.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from strongroom.errors import ConfigurationError, ConflictError, StorageError, StorageFullError
from strongroom.lifecycle._import_lines import IDS_NEAR

_FORMAT: Final = 1
_BYTES_MAX: Final = 16 * 1024
_RESTART: Final = "--restart begins anew; what is stored already then stays and is stored again"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportState:
    """One import of one file. ``last`` = (namespace, memory id) of the last memory stored."""

    import_id: UUID
    started_at: datetime
    lines_done: int = 0
    bytes_done: int = 0
    sha256: str = hashlib.sha256().hexdigest()
    last: tuple[str, str] | None = None
    finished: bool = False
    ids: int = IDS_NEAR

    @classmethod
    def new(cls) -> ImportState:
        return cls(import_id=uuid4(), started_at=datetime.now(UTC))

    def encode(self) -> bytes:
        fields = dataclasses.asdict(self)
        fields["import_id"] = str(self.import_id)
        fields["started_at"] = self.started_at.isoformat()
        record = {"format": _FORMAT, **fields}
        return json.dumps({**record, "check": _check(record)}).encode()

    @classmethod
    def decode(cls, raw: bytes) -> ImportState:
        """Raises: ConfigurationError: damaged, or of another version."""
        try:
            fields: dict[str, Any] = json.loads(raw)
            check = fields.pop("check", None)
            if check not in (None, _check(fields)) or fields.pop("format") != _FORMAT:
                raise ValueError
            last = fields.pop("last")
            fields.setdefault("ids", 1)
            state = cls(
                import_id=UUID(fields.pop("import_id")),
                started_at=datetime.fromisoformat(fields.pop("started_at")),
                last=None if last is None else (str(last[0]), str(last[1])),
                **fields,
            )
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            raise ConfigurationError("the record of this import is damaged", hint=_RESTART) from None
        numbers = (state.lines_done, state.bytes_done)
        counted = all(type(n) is int and n >= 0 for n in numbers)
        known = type(state.sha256) is str and state.started_at.tzinfo is not None
        if not (counted and known) or type(state.finished) is not bool or state.ids not in (1, IDS_NEAR):
            raise ConfigurationError("the record of this import is damaged", hint=_RESTART)
        return state


def _check(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


class StateFile:
    """The state of the imports of one source into one store, held by one process at a time."""

    def __init__(self, directory: Path, source: Path) -> None:
        """``source``: its resolved path is the identity of the import."""
        name = hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:32]
        self._directory = directory
        self._path = directory / f"{name}.json"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from importing the same file meanwhile.

        Raises:
            ConflictError: one does. StorageError: the directory cannot be written.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._path.with_suffix(".lock"), flags, 0o600)
        except OSError as e:
            raise _storage_error(e) from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConflictError("another process imports this file into this store") from None
            yield
        finally:
            os.close(descriptor)

    def load(self) -> ImportState | None:
        """The state, None when there is none.

        Raises:
            ConfigurationError: it is damaged. StorageError: it cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                raw = file.read(_BYTES_MAX)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise _storage_error(e) from None
        return ImportState.decode(raw)

    def save(self, state: ImportState) -> None:
        """Replace the state; durable when this returns.

        Raises:
            StorageError: it cannot be written; the old one is still there.
        """
        temporary = self._path.with_suffix(".new")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(state.encode())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            directory = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as e:
            raise _storage_error(e) from None


def _storage_error(error: OSError) -> StorageError:
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError()
    return StorageError(f"the record of this import cannot be used: {error.strerror}")
