"""The machine: clock, memory locks, core dumps, swap, debuggers."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from strongroom.errors import StrongroomError
from strongroom.governance._case import Case
from strongroom.model import Finding, Severity
from strongroom.pages import UNSAFE_VARIABLE, Protection

BUILT_AFTER: Final = datetime(2026, 1, 1, tzinfo=UTC)  # this program did not exist before
_AHEAD: Final = timedelta(minutes=5)
_LONG: Final = timedelta(days=366)
_MEMLOCK_BYTES: Final = 8 * 1024 * 1024


def check_clock(case: Case) -> Iterator[Finding]:
    """The clock is after the making of this program."""
    if case.system.now() < BUILT_AFTER:
        yield Finding(
            Severity.ERROR,
            "clock_behind",
            f"the clock says {case.system.now():%Y-%m-%d}, which is before this program was made",
            "clock",
            "set the clock; expiry and certificates depend on it",
        )


def check_opens(case: Case) -> Iterator[Finding]:
    """The store opens, and its newest audit entry is not of another time than the clock's."""
    if case.newest_audit is None:
        return
    try:
        newest = case.newest_audit()
    except StrongroomError as e:
        yield Finding(Severity.ERROR, e.code, f"the store does not open: {e.message}", "store", e.hint)
        return
    if newest is None:
        return
    now = case.system.now()
    if newest > now + _AHEAD:
        yield Finding(
            Severity.WARNING,
            "clock_differs",
            f"the newest audit entry is of {newest:%Y-%m-%d %H:%M}, later than the clock",
            "clock",
            "set the clock; it was ahead before, or is behind now",
        )
    elif newest < now - _LONG:
        yield Finding(
            Severity.WARNING,
            "clock_differs",
            f"the newest audit entry is of {newest:%Y-%m-%d}: more than a year ago",
            "clock",
            "if the store was in use since, the clock is ahead or an old copy was restored",
        )


_KEPT: Final = {
    Protection.SECRET: "secret pages: locked, and out of reach of debuggers, dumps and forked processes",
    Protection.LOCKED: "locked pages: not swapped, not dumped, and empty in forked processes",
    Protection.UNLOCKED: "pages that are not dumped, and that may be swapped to disk",
    Protection.OPEN: "ordinary memory",
}


def check_key_memory(case: Case) -> Iterator[Finding]:
    """What keys lie in, and whether this process can be dumped; told also when all is well."""
    process, memory = case.system.process(), case.system.key_memory()
    dumped = "cannot be dumped" if process.hardened else "can be dumped"
    bad = memory.protection in (Protection.UNLOCKED, Protection.OPEN)
    why = f" ({memory.why})" if memory.why else ""
    yield Finding(
        Severity.WARNING if bad else Severity.INFO,
        "key_memory",
        f"keys lie in {_KEPT[memory.protection]}{why}; this process {dumped}",
        "memory",
        "raise RLIMIT_MEMLOCK (LimitMEMLOCK= of the service)" if bad else "docs/memory.md",
    )
    if process.unsafe:
        yield Finding(
            Severity.WARNING,
            "memory_unsafe",
            "the protection of memory is switched off: keys can be dumped and swapped",
            UNSAFE_VARIABLE,
            f"unset {UNSAFE_VARIABLE}; it is for looking at a process in a test",
        )


def check_memory(case: Case) -> Iterator[Finding]:
    """Whether opened memories can get to a disk or to a debugger."""
    soft, _ = case.system.limit(resource.RLIMIT_MEMLOCK)
    if 0 <= soft < _MEMLOCK_BYTES:
        yield Finding(
            Severity.INFO,
            "memlock_low",
            f"only {soft // 1024} KiB of memory can be locked",
            "RLIMIT_MEMLOCK",
            "raise it (LimitMEMLOCK= of the service)",
        )
    yield from _core_dumps(case)
    yield from _swap(case)
    scope = _read(case.system.proc / "sys/kernel/yama/ptrace_scope")
    if scope == "0":
        yield Finding(
            Severity.WARNING,
            "ptrace_open",
            "every process of this user may read the memory of the others",
            "kernel.yama.ptrace_scope",
            "sysctl kernel.yama.ptrace_scope=1",
        )
    elif not scope:
        yield Finding(
            Severity.INFO, "ptrace_unknown", "the kernel does not restrict debuggers (no Yama)", "ptrace"
        )


def _core_dumps(case: Case) -> Iterator[Finding]:
    soft, _ = case.system.limit(resource.RLIMIT_CORE)
    pattern = _read(case.system.proc / "sys/kernel/core_pattern")
    piped = pattern.startswith("|")  # core(5): the limit does not hold for these
    if not case.system.process().dumpable or (soft == 0 and not piped):
        return  # the kernel writes no dump of a process that is not dumpable, to nowhere
    why = "goes to a program whatever the limit" if piped else "is not limited to nothing"
    yield Finding(
        Severity.WARNING,
        "core_dumps",
        f"a core dump would hold opened memories and keys, and it {why}",
        "kernel.core_pattern" if piped else "RLIMIT_CORE",
        "the command and the servers see to it themselves; a program of yours: strongroom.harden_process()",
    )


def _swap(case: Case) -> Iterator[Finding]:
    lines = _read(case.system.proc / "swaps").splitlines()[1:]
    clear = [line.split()[0] for line in lines if line.split() and not _is_safe(case, line.split()[0])]
    if clear:
        yield Finding(
            Severity.WARNING,
            "swap_clear",
            "opened memories can be swapped to disk in clear: " + ", ".join(clear),
            "swap",
            "use encrypted swap, or none",
        )


def _is_safe(case: Case, device: str) -> bool:
    """Whether a swap device is in memory or encrypted."""
    name = Path(device).resolve().name
    if name.startswith("zram"):
        return not _read(case.system.sys / "block" / name / "backing_dev").startswith("/")
    return _read(case.system.sys / "class/block" / name / "dm/uuid").startswith("CRYPT-")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
