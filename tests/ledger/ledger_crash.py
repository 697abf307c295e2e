"""Crash images: the files as a power failure could have left them, from a recorded run.

A writer runs under strace. Of each write to a file it is known when it began and ended, and which
later sync covers it (one that began after the write had ended and that ended itself). An image at a
moment holds every covered write, and of the uncovered ones all, none, or a random part, torn at
512-byte sectors. Order among uncovered writes is not kept: a disk may do any of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

SECTOR = 512
_CALL = re.compile(r"(\w+)\((\d+)<([^>]*)>(.*)\)\s+= (-?\d+)")
_HEX = re.compile(r"\\x([0-9a-f]{2})")


@dataclass(slots=True)
class Operation:
    """A write (``data``) or a new length (``data`` is None); ``covered``: the end of the sync, if any."""

    file: str
    offset: int
    data: bytes | None
    start: int
    end: int
    covered: int | None = None


@dataclass(slots=True)
class Recording:
    before: dict[str, bytes]
    operations: list[Operation] = field(default_factory=list)
    acknowledged: list[tuple[int, str]] = field(default_factory=list)  # (moment, line)
    moments: int = 0


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _calls(trace: Path) -> list[tuple[int, int, str]]:
    """``(start, end, call)`` in the order of the ends; unfinished calls that never resume are left out
    unless they write, in which case they may have happened."""
    open_calls: dict[str, tuple[int, str]] = {}
    calls = []
    moment = 0
    for moment, line in enumerate(trace.read_text("ascii").splitlines()):
        pid, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            open_calls[pid] = (moment, rest.removesuffix("<unfinished ...>"))
        elif rest.startswith("<..."):
            start, head = open_calls.pop(pid)
            calls.append((start, moment, head.rstrip() + rest.partition(" resumed>")[2]))
        else:
            calls.append((moment, moment, rest))
    for start, head in open_calls.values():
        calls.append((start, moment + 1, head.rstrip() + ") = 0"))
    return sorted(calls, key=lambda c: c[1])


def read_trace(
    trace: Path, before: dict[str, bytes], ack_fd: int, databases: Sequence[str] = ("ledger.db",)
) -> Recording:
    """What was written to the databases and their logs, by name, and the lines that were acknowledged."""
    files = {name for d in databases for name in (d, f"{d}-wal")}
    recording = Recording(before)
    operations = recording.operations
    calls = _calls(trace)
    for start, end, text in calls:
        found = _CALL.match(text)
        if not found:
            continue
        name, fd, hex_path, arguments, result = found.groups()
        path = _unhex(hex_path).decode() if "\\x" in hex_path else hex_path
        file = Path(path).name
        if name == "write" and int(fd) == ack_fd:
            recording.acknowledged.append((end, _unhex(arguments.split('"')[1]).decode().strip()))
        if file not in files or int(result) < 0:
            continue
        if name == "pwrite64":
            _, hex_data, tail = arguments.split('"')
            offset = int(tail.split(",")[-1])
            operations.append(Operation(file, offset, _unhex(hex_data), start, end))
        elif name == "ftruncate":
            operations.append(Operation(file, int(arguments.strip(", ")), None, start, end))
        elif name in ("fsync", "fdatasync"):
            for operation in operations:
                if operation.file == file and operation.covered is None and operation.end < start:
                    operation.covered = end
        else:
            raise AssertionError(f"a call that the images do not know: {name}")
    recording.moments = calls[-1][1] + 1
    return recording


def image(recording: Recording, moment: int, mode: str, chance: Random) -> dict[str, bytes]:
    """The files at ``moment``; ``mode``: ``kept``, ``lost`` or ``torn`` uncovered writes."""
    files = {name: bytearray(data) for name, data in recording.before.items()}
    for operation in recording.operations:
        if operation.start > moment:
            continue
        covered = operation.covered is not None and operation.covered <= moment
        target = files.setdefault(operation.file, bytearray())
        if operation.data is None:
            if covered or mode == "kept" or (mode == "torn" and chance.random() < 0.5):
                del target[operation.offset :]
                target.extend(bytes(operation.offset - len(target)))
        elif covered or mode == "kept":
            _place(target, operation.offset, operation.data)
        elif mode == "torn":
            for at in range(0, len(operation.data), SECTOR):
                if chance.random() < 0.5:
                    _place(target, operation.offset + at, operation.data[at : at + SECTOR])
    return {name: bytes(data) for name, data in files.items()}


def _place(target: bytearray, offset: int, data: bytes) -> None:
    if len(target) < offset:
        target.extend(bytes(offset - len(target)))
    target[offset : offset + len(data)] = data
