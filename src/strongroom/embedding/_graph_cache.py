"""The built graph, kept in the user's cache directory. Public data, but code-like: it is verified.

    BASE/models/<fingerprint>/model.onnx      the graph
                              model.json      {"format": 1, "sha256": ..., "bytes": ..., "weights": [stamp]}
    BASE/models/<fingerprint>.lock            held while building

BASE is ``$STRONGROOM_CACHE``, else ``$XDG_CACHE_HOME/strongroom``, else ``~/.cache/strongroom``. Each
directory must belong to this user (or root) and must not be writable by others; otherwise the cache
is passed over. An entry appears by one rename, so a half-written one is never seen; one that does
not match its digest is taken away and built again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_FORMAT = 1
_GRAPH_NAME = "model.onnx"
_SIDECAR_NAME = "model.json"
_GRAPH_BYTES_MAX = 512 * 1024 * 1024
_SIDECAR_BYTES_MAX = 4096
_LOCK_WAIT_S_MAX = 60.0
_LOCK_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class CachedGraph:
    """A graph whose bytes match the digest beside it; ``stamp`` is that of the weights it came from."""

    graph: bytes
    stamp: tuple[int, ...]


def cache_base(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Where the cache is; None when there is no home directory."""
    if own := environ.get("STRONGROOM_CACHE"):
        return Path(own)
    xdg = environ.get("XDG_CACHE_HOME", "")
    if xdg and Path(xdg).is_absolute():
        return Path(xdg) / "strongroom"
    try:
        return Path.home() / ".cache" / "strongroom"
    except RuntimeError:
        return None


class GraphCache:
    """One entry of the cache. No method raises for what it finds on disk: a bad cache is no cache."""

    def __init__(self, base: Path, fingerprint: str) -> None:
        self._chain = [base, base / "models", base / "models" / fingerprint]
        self._entry = self._chain[-1]
        self._parent = self._chain[-2]

    def load(self) -> CachedGraph | None:
        """The entry, or None when it is missing, damaged, or in a place that others can write to."""
        if not all(_is_private_directory(p) for p in self._chain):
            return None
        sidecar = _read_private(self._entry / _SIDECAR_NAME, _SIDECAR_BYTES_MAX)
        graph = _read_private(self._entry / _GRAPH_NAME, _GRAPH_BYTES_MAX)
        if sidecar is None or graph is None:
            return None
        try:
            facts = json.loads(sidecar)
            if facts["format"] != _FORMAT or facts["bytes"] != len(graph):
                return None
            stamp = tuple(int(n) for n in facts["weights"])
            digest = str(facts["sha256"])
        except (ValueError, KeyError, TypeError):
            return None
        if hashlib.sha256(graph).hexdigest() != digest:
            return None
        return CachedGraph(graph, stamp)

    def save(self, graph: bytes, stamp: tuple[int, ...]) -> bool:
        """Put an entry there by one rename, in place of whatever was there. False: not possible here."""
        facts = {
            "format": _FORMAT,
            "sha256": hashlib.sha256(graph).hexdigest(),
            "bytes": len(graph),
            "weights": list(stamp),
        }
        try:
            for directory in self._chain[:-1]:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                if not _is_private_directory(directory):
                    return False
            fresh = Path(tempfile.mkdtemp(prefix=".building-", dir=self._parent))
        except OSError:
            return False
        try:
            _write_synced(fresh / _GRAPH_NAME, graph)
            _write_synced(fresh / _SIDECAR_NAME, json.dumps(facts).encode())
            return self._swap(fresh)
        except OSError:
            return False
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _swap(self, fresh: Path) -> bool:
        self.drop()
        try:
            fresh.rename(self._entry)
        except OSError:
            return self.load() is not None  # another process was faster; its entry is as good
        return True

    def drop(self) -> None:
        """Take the entry away, if there is one."""
        try:
            if self._entry.is_symlink() or (self._entry.exists() and not self._entry.is_dir()):
                self._entry.unlink()
                return
            away = Path(tempfile.mkdtemp(prefix=".dropped-", dir=self._parent))
        except OSError:
            return
        with contextlib.suppress(OSError):
            self._entry.rename(away / "entry")
        shutil.rmtree(away, ignore_errors=True)

    @contextlib.contextmanager
    def building(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Iterator[None]:
        """Hold the build lock, so that processes that start together build once.

        A holder that hangs delays by 60 s at most, and a place where no lock can be made by nothing:
        building twice is waste, not harm.
        """
        descriptor = self._open_lock()
        if descriptor is None:
            yield
            return
        try:
            end = clock() + _LOCK_WAIT_S_MAX
            while not _try_lock(descriptor) and clock() < end:
                sleep(_LOCK_POLL_S)
            yield
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int | None:
        try:
            self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not all(_is_private_directory(p) for p in self._chain[:-1]):
                return None
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            return os.open(self._parent / f"{self._entry.name}.lock", flags, 0o600)
        except OSError:
            return None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_private(st: os.stat_result) -> bool:
    return st.st_uid in (0, os.geteuid()) and not st.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _is_private_directory(path: Path) -> bool:
    try:
        st = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(st.st_mode) and _is_private(st)


def _read_private(path: Path, bytes_max: int) -> bytes | None:
    """The content of a regular file that only its owner can write; never follows a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as f:
        st = os.fstat(f.fileno())
        if not stat.S_ISREG(st.st_mode) or not _is_private(st) or st.st_size > bytes_max:
            return None
        try:
            return f.read(bytes_max)
        except OSError:
            return None


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
