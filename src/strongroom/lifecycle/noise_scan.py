"""Is the data directory noise? Looks for known phrases and known vectors in every file.

Whoever seals everything can be asked to show it: take phrases and vectors that were stored, and find
them nowhere on disk. Each phrase is looked for in the forms in which plaintext has leaked from stores
like this one; each vector in pieces, so that a part of it is enough to be found.

    form        what is looked for
    utf-8       the phrase
    utf-16-le   the phrase, two bytes per character, either byte order
    utf-16-be
    base64      the phrase at any of the three alignments, standard or URL alphabet, without the
                characters that its neighbours would change
    hex         the phrase as hexadecimal digits, lower or upper case
    float32     windows of 16 bytes (4 values) of the vector, little endian
    float16     windows of 16 bytes (8 values) of the vector, little endian

All patterns are searched in one pass: the first eight bytes at every offset of a file are looked up in
a bit table, the few survivors are compared in full.
"""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import InvalidInputError, InvalidVectorError, StorageError, StoreNotFoundError

__all__ = ["FileFigure", "ScanFinding", "ScanReport", "scan_directory"]

NEEDLE_CHARS_MIN = 12
NEEDLE_BYTES_MAX = 4096
CHUNK_BYTES = 4 * 1024 * 1024
FINDINGS_PER_FILE_MAX = 1000

_PREFIX_BYTES = 8
_WINDOW_BYTES = 16
_TABLE_BITS = 22
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing


@dataclass(frozen=True, slots=True)
class FileFigure:
    """One file that was read. ``entropy_bits``: Shannon entropy of its bytes, bits per byte, 0 to 8."""

    path: str  # relative to the directory
    bytes: int
    entropy_bits: float


@dataclass(frozen=True, slots=True)
class ScanFinding:
    """Something that should not be there; names the needle or vector by its index, never by its text."""

    path: str
    offset: int
    form: str
    index: int  # in ``vectors`` for float32 and float16, else in ``needles``


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a scan has read and found. At most ``FINDINGS_PER_FILE_MAX`` findings are kept per file."""

    files: tuple[FileFigure, ...]
    findings: tuple[ScanFinding, ...]
    patterns: int

    @property
    def clean(self) -> bool:
        return not self.findings

    @property
    def bytes_total(self) -> int:
        return sum(f.bytes for f in self.files)


@dataclass(frozen=True, slots=True)
class _Pattern:
    data: bytes
    form: str
    index: int


def scan_directory(
    directory: Path, needles: Sequence[str], vectors: Sequence[NDArray[Any]] = ()
) -> ScanReport:
    """Search every regular file below ``directory``; symbolic links are not followed.

    ``needles``: phrases of at least 12 characters each. ``vectors``: arrays of shape (dimensions,), any
    float dtype, with at least 8 values each.

    Raises:
        InvalidInputError: a needle is too short or too long, or there is nothing to look for.
        InvalidVectorError: a vector has another shape. StoreNotFoundError: there is no such directory.
        StorageError: a file cannot be read (a file that vanishes meanwhile is left out).
    """
    if not directory.is_dir():
        raise StoreNotFoundError(f"there is no directory {directory}")
    matcher = _Matcher(_patterns(needles, vectors))
    files: list[FileFigure] = []
    findings: list[ScanFinding] = []
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                continue
            figure, found = _scan_file(path, name, matcher)
        except FileNotFoundError:
            continue
        except OSError as e:
            raise StorageError(f"{name} cannot be read: {type(e).__name__}") from None
        files.append(figure)
        findings.extend(found)
    return ScanReport(tuple(files), tuple(findings), len(matcher.patterns))


def _patterns(needles: Sequence[str], vectors: Sequence[NDArray[Any]]) -> list[_Pattern]:
    out: list[_Pattern] = []
    for index, needle in enumerate(needles):
        if len(needle) < NEEDLE_CHARS_MIN or len(needle.encode()) > NEEDLE_BYTES_MAX:
            raise InvalidInputError(
                f"needle {index} must have at least {NEEDLE_CHARS_MIN} characters "
                f"and at most {NEEDLE_BYTES_MAX} bytes"
            )
        out.extend(_Pattern(data, form, index) for form, data in _text_forms(needle))
    for index, vector in enumerate(vectors):
        out.extend(_Pattern(data, form, index) for form, data in _vector_windows(vector, index))
    if not out:
        raise InvalidInputError("there is nothing to look for")
    return out


def _text_forms(needle: str) -> Iterator[tuple[str, bytes]]:
    raw = needle.encode()
    yield "utf-8", raw
    yield "utf-16-le", needle.encode("utf-16-le")
    yield "utf-16-be", needle.encode("utf-16-be")
    yield "hex", raw.hex().encode()
    yield "hex", raw.hex().upper().encode()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        # a sextet counts when all its bits come from the needle
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        core = encoded[first:last]
        yield "base64", core
        url = core.replace(b"+", b"-").replace(b"/", b"_")
        if url != core:
            yield "base64", url


def _vector_windows(vector: NDArray[Any], index: int) -> Iterator[tuple[str, bytes]]:
    if vector.ndim != 1 or len(vector) < _WINDOW_BYTES // 2 or vector.dtype.kind != "f":
        raise InvalidVectorError(f"vector {index} is not an array of at least 8 floating point values")
    for form, dtype in (("float32", "<f4"), ("float16", "<f2")):
        data = vector.astype(dtype).tobytes()
        for start in range(0, len(data) - _WINDOW_BYTES + 1, _WINDOW_BYTES):
            window = data[start : start + _WINDOW_BYTES]
            if len(set(window)) > 4:  # zeros and other runs are in every file
                yield form, window


def _prefix(data: bytes) -> int:
    return int.from_bytes(data[:_PREFIX_BYTES], "little")


class _Matcher:
    """Finds any of many patterns, each at least eight bytes long, at any offset."""

    def __init__(self, patterns: list[_Pattern]) -> None:
        self.patterns = patterns
        self.longest = max(len(p.data) for p in patterns)
        self._by_prefix: dict[int, list[_Pattern]] = {}
        for pattern in patterns:
            self._by_prefix.setdefault(_prefix(pattern.data), []).append(pattern)
        self._table = np.zeros(1 << _TABLE_BITS, dtype=np.bool_)
        self._table[self._slots(np.array(list(self._by_prefix), dtype=np.uint64))] = True

    @staticmethod
    def _slots(prefixes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        with np.errstate(over="ignore"):
            return (prefixes * _MULTIPLIER) >> np.uint64(64 - _TABLE_BITS)

    def find(self, block: bytes) -> Iterator[tuple[int, _Pattern]]:
        """(offset, pattern) for each place in ``block`` where a pattern lies wholly inside."""
        for shift in range(_PREFIX_BYTES):
            count = (len(block) - shift) // _PREFIX_BYTES
            if count <= 0:
                continue
            words = np.frombuffer(block, dtype="<u8", count=count, offset=shift)
            for place in np.flatnonzero(self._table[self._slots(words)]):
                offset = int(place) * _PREFIX_BYTES + shift
                for pattern in self._by_prefix.get(int(words[place]), ()):
                    if block.startswith(pattern.data, offset):
                        yield offset, pattern


def _scan_file(path: Path, name: str, matcher: _Matcher) -> tuple[FileFigure, list[ScanFinding]]:
    """Read one file in chunks that overlap by the longest pattern less one byte.

    Read, not mapped: a log that is truncated meanwhile would kill a process that has mapped it.
    """
    counts = np.zeros(256, dtype=np.int64)
    found: set[ScanFinding] = set()
    size = 0
    tail = b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            counts += np.bincount(np.frombuffer(chunk, dtype=np.uint8), minlength=256)
            block = tail + chunk
            start = size - len(tail)
            for offset, pattern in matcher.find(block):
                if len(found) < FINDINGS_PER_FILE_MAX:
                    found.add(ScanFinding(name, start + offset, pattern.form, pattern.index))
            size += len(chunk)
            tail = block[-(matcher.longest - 1) :]
    ordered = sorted(found, key=lambda f: (f.offset, f.form, f.index))
    return FileFigure(name, size, _entropy_bits(counts)), ordered


def _entropy_bits(counts: NDArray[np.int64]) -> float:
    total = int(counts.sum())
    if not total:
        return 0.0
    shares = counts[counts > 0] / total
    return abs(float(-(shares * np.log2(shares)).sum()))
