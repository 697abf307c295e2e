"""The examples and numbers in the specifications are true."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from strongroom.crypto import OpenStream, SealContext, SecretKey, open_sealed, stream_length
from strongroom.crypto._keys import prf_of
from strongroom.crypto._record import _WHOLE_INFO
from strongroom.crypto._suites import SUITES

ROOT = Path(__file__).resolve().parents[2]
RECORD = (ROOT / "spec" / "sealed-record.md").read_text("utf-8")
STREAM = (ROOT / "spec" / "stream.md").read_text("utf-8")


def example(text: str, name: str) -> str:
    """The value of a line of the first code block; several lines of bytes are joined."""
    block = text.split("```")[1]
    found = re.search(rf"^ *{name} {{2,}}(\S.*?)(?=^ {{0,2}}\S|\Z)", block, re.MULTILINE | re.DOTALL)
    assert found, name
    return found.group(1)


def octets(text: str) -> bytes:
    return bytes.fromhex("".join(re.match(r" *([0-9a-f]*)", line).group(1) for line in text.splitlines()))  # type: ignore[union-attr]


def test_the_example_record() -> None:
    """The example in spec/sealed-record.md opens, and its context and record key are the ones shown."""
    key = SecretKey.from_bytes(octets(example(RECORD, "data key")))
    context = SealContext("acme", 7, bytes(range(16)), 0, 1, 1)
    assert context.encode() == octets(example(RECORD, "encoded"))
    record = octets(example(RECORD, "record"))
    assert open_sealed(key, context, record).decode() == example(RECORD, "plaintext").strip()
    okm = prf_of(key).expand(_WHOLE_INFO[1] + record[6:30] + context.encode(), 64)
    assert okm[:32] == octets(example(RECORD, "record key"))


def test_the_example_stream() -> None:
    """The example in spec/stream.md opens and has the length that the formula gives."""
    key = SecretKey.from_bytes(octets(example(STREAM, "key")))
    sealed = octets(example(STREAM, "stream"))
    stream = OpenStream(key, io.BytesIO(sealed), example(STREAM, "context").strip().encode())
    assert stream.read().decode() == example(STREAM, "plaintext").strip()
    assert len(sealed) == stream_length(14) == 56 + 14 + 16 * (14 // 16384 + 1)


@pytest.mark.parametrize("number", sorted(SUITES))
def test_the_table_of_suites(number: int) -> None:
    """Each suite stands in the table with its number, name, IANA name and limit."""
    suite = SUITES[number]
    row = next(line for line in RECORD.splitlines() if line.startswith(f"| {number} | {suite.name}"))
    assert suite.iana_name in row
    assert suite.max_uses == 2**32
    assert row.endswith("| 2^32 |")
