"""Pages of memory for keys, and what the process does about dumps. Linux; everything through libc.

A region lies between two pages that nobody may touch:

    | guard page | pages for slots ... | guard page |

Best first, and never without saying which it became:

``secret``    memfd_secret(2): locked, outside the kernel's own map, out of reach of ptrace, /proc/PID/mem and
              core dumps, for root as well; not inherited by a forked child.
``locked``    mlock(2), MADV_DONTDUMP, MADV_WIPEONFORK: not swapped, not dumped, zero in a forked child; a
              privileged debugger reads it.
``unlocked``  as before without mlock: it may be swapped.
``open``      ordinary memory. Only with STRONGROOM_UNSAFE_MEMORY=1, to look at a process in a test.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from strongroom.errors import KeyMemoryError

UNSAFE_VARIABLE: Final = "STRONGROOM_UNSAFE_MEMORY"

__all__ = [
    "UNSAFE_VARIABLE",
    "ProcessMemory",
    "Protection",
    "Region",
    "fill_after_fork",
    "fill_random",
    "harden_process",
    "is_unsafe",
    "new_region",
    "overwrite",
    "process_memory",
    "restart_scrubbing",
    "scrubs_freed_memory",
    "view_of",
]

_MEMFD_SECRET: Final = 447  # the same number on x86-64 and arm64
_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
_MAP_FIXED: Final = 0x10
_MAP_FIXED_NOREPLACE: Final = 0x100000
_MADV_DONTFORK: Final = 10
_MADV_DONTDUMP: Final = 16
_MADV_WIPEONFORK: Final = 18
_PROT_NONE: Final = 0
_READ_WRITE: Final = mmap.PROT_READ | mmap.PROT_WRITE
_PRIVATE: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_NO_ADDRESS: Final = ctypes.c_void_p(-1).value


class Protection(StrEnum):
    """How well a region is kept; the words are explained at the top of this module."""

    SECRET = "secret"  # noqa: S105 - a word, no secret
    LOCKED = "locked"
    UNLOCKED = "unlocked"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Region:
    """``size_bytes`` of zeroed memory at ``address``, for as long as the process lives.

    ``why``: why it is not better, as names of system calls and errors; empty when it is ``secret``.
    """

    address: int
    size_bytes: int
    protection: Protection
    why: str


class _Refused(Exception):
    """A system call said no; the text is its name and the name of the error."""


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.getrandom.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
    libc.getrandom.restype = ctypes.c_ssize_t
    libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
    libc.syscall.restype = ctypes.c_long
    libc.malloc.argtypes = (ctypes.c_size_t,)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = (ctypes.c_void_p,)
    libc.free.restype = None
    return libc


_LIBC: Final = _libc()


def _check(name: str, result: int) -> None:
    if result == -1:
        number = ctypes.get_errno()
        raise _Refused(f"{name}: {errno.errorcode.get(number, str(number))}")


def is_unsafe() -> bool:
    """Whether the operator has switched the protection of memory off, for a test."""
    return os.environ.get(UNSAFE_VARIABLE) == "1"


def new_region(size_bytes: int) -> Region:
    """Zeroed pages between guard pages, kept as well as this process may. ``size_bytes``: whole pages.

    Raises:
        KeyMemoryError: there is no memory at all.
    """
    why: list[str] = []
    if is_unsafe():
        return _or_none(size_bytes, Protection.OPEN, why)
    for protection in (Protection.SECRET, Protection.LOCKED):
        try:
            return _mapped(size_bytes, protection, why)
        except _Refused as e:
            why.append(str(e))
    return _or_none(size_bytes, Protection.UNLOCKED, why)


def _or_none(size_bytes: int, protection: Protection, why: list[str]) -> Region:
    try:
        return _mapped(size_bytes, protection, why)
    except _Refused as e:
        raise KeyMemoryError(f"the system gives no memory for keys ({e})") from None


def _mapped(size_bytes: int, protection: Protection, why: list[str]) -> Region:
    """Reserve guard, room and guard without access, then put the pages into the middle."""
    page = mmap.PAGESIZE
    whole = size_bytes + 2 * page
    base = _LIBC.mmap(None, whole, _PROT_NONE, _PRIVATE, -1, 0)
    if base is None or base == _NO_ADDRESS:
        raise _Refused("mmap: ENOMEM")
    address = base + page
    try:
        if protection is Protection.SECRET:
            _put_secret(address, size_bytes)
        else:
            _check("mprotect", _LIBC.mprotect(address, size_bytes, _READ_WRITE))
            if protection is not Protection.OPEN:
                _check("madvise", _LIBC.madvise(address, size_bytes, _MADV_DONTDUMP))
                _check("madvise", _LIBC.madvise(address, size_bytes, _MADV_WIPEONFORK))
            if protection is Protection.LOCKED:
                _check("mlock", _LIBC.mlock(address, size_bytes))
    except _Refused:
        _LIBC.munmap(base, whole)
        raise
    return Region(address, size_bytes, protection, "; ".join(why))


def _put_secret(address: int, size_bytes: int) -> None:
    fd = _LIBC.syscall(_MEMFD_SECRET, os.O_CLOEXEC)
    _check("memfd_secret", fd)
    try:
        os.ftruncate(fd, size_bytes)
        found = _LIBC.mmap(address, size_bytes, _READ_WRITE, mmap.MAP_SHARED | _MAP_FIXED, fd, 0)
        _check("mmap of memfd_secret", -1 if found in (None, _NO_ADDRESS) else 0)
    except OSError as e:
        raise _Refused(f"memfd_secret: {errno.errorcode.get(e.errno or 0, '?')}") from None
    finally:
        os.close(fd)
    _check("madvise", _LIBC.madvise(address, size_bytes, _MADV_DONTFORK))


def fill_after_fork(region: Region) -> None:
    """In a forked child: where secret pages were there is a hole now; put zeros there, so nothing crashes."""
    if region.protection is Protection.SECRET:
        _LIBC.mmap(region.address, region.size_bytes, _READ_WRITE, _PRIVATE | _MAP_FIXED_NOREPLACE, -1, 0)
    elif region.protection is Protection.OPEN:
        ctypes.memset(region.address, 0, region.size_bytes)


def view_of(region: Region) -> memoryview:
    """The region as writable bytes."""
    return memoryview((ctypes.c_char * region.size_bytes).from_address(region.address)).cast("B")


def fill_random(address: int, size_bytes: int) -> None:
    """Random bytes of the operating system, straight to their place. At most 256 bytes.

    Raises:
        KeyMemoryError: the system gave none.
    """
    if _LIBC.getrandom(address, size_bytes, 0) != size_bytes:
        raise KeyMemoryError("the system gave no random bytes")


def overwrite(data: bytes | bytearray) -> None:
    """Zero the bytes of an object that nobody else uses: what was a copy of a key is gone.

    ``bytes`` never change for anybody who follows the rules of the language; this breaks them on
    purpose, for an object that the caller has just made and is about to drop. An object that
    somebody else holds too is left as it is.
    """
    if isinstance(data, bytearray):
        data[:] = bytes(len(data))
    elif len(data) > 1 and sys.getrefcount(data) <= _REFERENCES_MAX:  # shorter ones are shared by all
        _MEMSET(id(data) + _BYTES_HEADER, 0, len(data))


_MEMSET: Final = ctypes.PyDLL(None).memset  # without giving up the interpreter's lock
_MEMSET.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
_MEMSET.restype = None
_BYTES_HEADER: Final = bytes.__basicsize__ - 1
_REFERENCES_MAX: Final = 3  # the caller's, the parameter's, and that of the question itself


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """``dumpable``: whether the kernel would write this process into a core file, and let others of its user
    look into it. ``core_bytes_max``: the soft limit of a core file, -1 for none. ``unsafe``: the
    protection was switched off.
    """

    dumpable: bool
    core_bytes_max: int
    unsafe: bool

    @property
    def hardened(self) -> bool:
        return not self.dumpable and self.core_bytes_max == 0


def process_memory() -> ProcessMemory:
    """How this process stands."""
    dumpable = _LIBC.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 0
    soft, _ = resource.getrlimit(resource.RLIMIT_CORE)
    return ProcessMemory(dumpable, soft, is_unsafe())


def harden_process() -> ProcessMemory:
    """Make this process one that is not dumped: PR_SET_DUMPABLE 0 and RLIMIT_CORE 0, soft and hard.

    The commands and servers of Strongroom do it when they start. A program that embeds the library
    decides for itself: from then on debuggers and profilers of the same user cannot attach, and no
    child of it writes core files. Returns how it stands afterwards; nothing is done where
    STRONGROOM_UNSAFE_MEMORY=1.
    """
    if not is_unsafe():
        _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        with suppress(OSError, ValueError):  # what it is then is returned, and doctor tells it
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return process_memory()


_SCRUBBING: Final = {
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0",
}


def scrubs_freed_memory() -> bool:
    """Whether this process overwrites what it frees.

    The interpreter then takes its memory from the C library (``PYTHONMALLOC=malloc``), and that fills freed
    blocks with a byte (mallopt(3), M_PERTURB; without the thread caches, which are freed unfilled). Found
    out by freeing a block and looking.
    """
    if os.environ.get("PYTHONMALLOC") != "malloc":
        return False
    size = 256  # no size of a fast bin, whose first bytes are links
    block = _LIBC.malloc(size)
    ctypes.memset(block, 0x5A, size)
    held = _LIBC.malloc(size)  # so that the first one is not merged with what lies behind it
    _LIBC.free(block)
    left = ctypes.string_at(block + 64, 64)
    _LIBC.free(held)
    return b"\x5a" * 8 not in left


def restart_scrubbing() -> None:
    """Begin this program anew, in the same process, as one that overwrites what it frees.

    Returns when the environment says so already (the C library may not know how). Files without the
    close-on-exec flag stay open.
    """
    if all(os.environ.get(name) == value for name, value in _SCRUBBING.items()):
        return
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **_SCRUBBING})  # noqa: S606
