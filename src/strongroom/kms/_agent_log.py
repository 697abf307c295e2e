"""The key agent's own log: append-only, each line bound to all before it (spec/key-agent.md, "The log").

The key of a line's MAC is derived from that of the line before and forgotten when it was used (after Bellare
and Yee, CT-RSA 2003): what is read from the agent's memory forges no earlier line. The first key is wrapped
by the agent's own provider, so whoever can use that can make another log; the heads outside show it.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from hmac import compare_digest
from pathlib import Path
from typing import IO, Any, Final

from strongroom.crypto import SecretKey
from strongroom.errors import LimitExceededError, StorageError, StorageFullError, TamperedError
from strongroom.kms._contract import KmsProvider
from strongroom.kms.files import FILE_MODE, require_private_file, storage_error

_NEXT: Final = "key-agent-log/next"
LOG_PURPOSE: Final = "key-agent-log"
_TOLD_EVERY: Final = 100
_LINE_BYTES_MAX: Final = 8_192
_MAC_MARK: Final = ',"mac":"'
_BEGIN_NAMES: Final = ("n", "time_us", "op", "log_id", "key", "mac")


def _dumps(entry: Mapping[str, object]) -> str:
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=True)


def _context(log_id: str) -> dict[str, str]:
    return {"purpose": LOG_PURPOSE, "log_id": log_id}


def _to_stderr(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class _Chain:
    """The key and the MAC of the last line; pure."""

    def __init__(self, key: SecretKey) -> None:
        self._key = key.derive(_NEXT)
        self.mac = bytes(32)
        self.n = 0

    def next(self, body: str) -> str:
        """The MAC of the next line, in hexadecimal; its key is gone afterwards."""
        return self.passed(self.mac_of(body))

    def mac_of(self, body: str) -> bytes:
        """The MAC of the next line, which may yet not be written."""
        return self._key.mac(self.mac + body.encode("ascii"))

    def passed(self, mac: bytes) -> str:
        """The next line, with this MAC, is there: its key is gone; the MAC in hexadecimal."""
        self.mac = mac
        key, self._key = self._key, self._key.derive(_NEXT)
        key.wipe()
        self.n += 1
        return mac.hex()


class AgentLog:
    """Writes. Thread-safe. ``tell`` gets the heads that somebody else should keep."""

    def __init__(
        self,
        path: Path,
        provider: KmsProvider,
        *,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        tell: Callable[[str], None] = _to_stderr,
    ) -> None:
        """Begin a log, or verify the one that is there and go on with it.

        Raises:
            TamperedError: the file does not verify. KeystorePermissionError: it is not private.
            StorageError. What ``provider`` raises.
        """
        self._clock_us = clock_us
        self._tell = tell
        self._lock = threading.Lock()
        self._path = path
        self._dirty = False
        self._torn = False
        fresh = not path.exists()
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(path, flags, FILE_MODE)
        except OSError as e:
            raise storage_error(e, path.name) from None
        try:
            require_private_file(path)
            torn = _cut_torn(self._fd)
            if fresh or not os.fstat(self._fd).st_size:
                self._begin(provider)
            else:
                self._chain = _verified(path, provider)
            self.append("start", torn_bytes=torn)
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def entries(self) -> int:
        """Lines written so far, of all runs."""
        return self._chain.n

    def append(self, op: str, **fields: str | int) -> None:
        """Write one line; it is in the file when this returns, and on the disk after ``sync``.

        Raises:
            StorageError: it could not be written; then nothing that it tells of may happen. The file and what
            follows are as if nobody had tried. LimitExceededError: no line is so long.
        """
        with self._lock:
            body = _dumps({"n": self._chain.n + 1, "time_us": self._clock_us(), "op": op, **fields})[:-1]
            self._write(body)
            if op in ("start", "stop") or self._chain.n % _TOLD_EVERY == 0:
                self._tell(f"key-agent log: n={self._chain.n} mac={self._chain.mac.hex()}")

    def sync(self) -> None:
        """Make durable what was written since the last time."""
        with self._lock:
            if self._dirty:
                os.fdatasync(self._fd)
                self._dirty = False

    def close(self) -> None:
        """The last line."""
        try:
            self.append("stop")
            self.sync()
        finally:
            os.close(self._fd)

    def _begin(self, provider: KmsProvider) -> None:
        log_id, key = os.urandom(16).hex(), SecretKey.generate()
        wrapped = provider.wrap(key, _context(log_id))
        self._chain = _Chain(key)
        key.wipe()
        entry = {"n": 1, "time_us": self._clock_us(), "op": "begin", "log_id": log_id, "key": wrapped.hex()}
        with self._lock:
            self._write(_dumps(entry)[:-1])

    def _write(self, body: str) -> None:
        mac = self._chain.mac_of(body)
        line = f'{body}{_MAC_MARK}{mac.hex()}"}}\n'.encode("ascii")
        if len(line) > _LINE_BYTES_MAX:
            raise LimitExceededError(f"a line of the key agent's log has at most {_LINE_BYTES_MAX} bytes")
        if self._torn:
            raise StorageError(
                "the log of the key agent ends in half a line", hint="make room, and start the agent anew"
            )
        try:
            size = os.fstat(self._fd).st_size
            written = os.write(self._fd, line)
            if written != len(line):
                self._torn = True  # unless it can be taken back
                os.ftruncate(self._fd, size)
                self._torn = False
        except OSError as e:
            raise storage_error(e, self._path.name) from None
        if written != len(line):
            raise StorageFullError
        self._chain.passed(mac)
        self._dirty = True


def read_agent_log(path: Path, provider: KmsProvider) -> Iterator[dict[str, Any]]:
    """The lines of a log, each verified before it is given; its key is unwrapped by ``provider``.

    Raises:
        TamperedError: a line was changed, dropped, put in or moved, or the last one is not whole.
        StorageError: it cannot be read. What ``provider`` raises.
    """
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise StorageError(f"{path.name} is no file")
            for _, entry in _lines(file, provider):
                yield entry
    except OSError as e:
        raise storage_error(e, path.name) from None


def _cut_torn(fd: int) -> int:
    """Take away a last line that a power failure has left incomplete; how many bytes that were."""
    size = os.fstat(fd).st_size
    tail = os.pread(fd, _LINE_BYTES_MAX, max(0, size - _LINE_BYTES_MAX))
    torn = len(tail) - (tail.rfind(b"\n") + 1)
    if torn and torn < _LINE_BYTES_MAX:
        os.ftruncate(fd, size - torn)
    return torn


def _verified(path: Path, provider: KmsProvider) -> _Chain:
    chain: _Chain | None = None
    with path.open("rb") as file:
        for found, _ in _lines(file, provider):
            chain = found
    if chain is None:
        raise _broken(1)
    return chain


def _lines(file: IO[bytes], provider: KmsProvider) -> Iterator[tuple[_Chain, dict[str, Any]]]:
    chain: _Chain | None = None
    n = 0
    while raw := file.readline(_LINE_BYTES_MAX):
        n += 1
        try:
            line = raw.decode("ascii")
            body, mark, rest = line.rpartition(_MAC_MARK)
            entry = json.loads(line)
            if not mark or not line.endswith('"}\n') or len(rest) != 67 or entry["n"] != n:
                raise ValueError
            if chain is None:
                if tuple(entry) != _BEGIN_NAMES or entry["op"] != "begin":
                    raise ValueError
                chain = _Chain(provider.unwrap(bytes.fromhex(entry["key"]), _context(entry["log_id"])))
        except (ValueError, KeyError, TypeError):
            raise _broken(n) from None
        if not compare_digest(chain.next(body), rest[:64]):
            raise _broken(n)
        yield chain, entry


def _broken(n: int) -> TamperedError:
    return TamperedError(
        f"the log of the key agent does not verify from line {n} on",
        hint="keep the file as evidence, compare it with the heads in the journal, and begin another one",
    )
