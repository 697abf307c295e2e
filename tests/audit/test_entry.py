"""The bytes of an audit entry."""

import dataclasses
import hashlib

import msgspec
import pytest

from strongroom import audit
from strongroom.errors import IntegrityError, InvalidInputError, SchemaVersionError
from strongroom.model import AuditEntry


def make(**changes):
    base = AuditEntry(
        at_us=1_700_000_000_000_000,
        request_id="r-1",
        principal="0123456789ab",
        surface="rest",
        action="search",
        namespaces=("company_a/support",),
        outcome="ok",
        reason="scope read-only, grant *",
        memory_ids=(b"i" * 16,),
        count=1,
    )
    return dataclasses.replace(base, **changes)


def test_encode_and_decode_are_inverse_and_the_number_comes_from_the_ledger():
    entry = make()
    assert audit.decode(audit.encode(entry), seq=7) == dataclasses.replace(entry, seq=7)
    assert audit.encode(make(seq=99)) == audit.encode(entry)


def test_the_bytes_are_those_of_the_spec():
    assert msgspec.msgpack.decode(audit.encode(make())) == [
        1, 1_700_000_000_000_000, "r-1", "0123456789ab", "rest", "search", ["company_a/support"], "ok",
        "scope read-only, grant *", [b"i" * 16], 1,
    ]  # fmt: skip


def test_more_ids_than_fit_are_counted():
    entry = audit.decode(audit.encode(make(memory_ids=(b"i" * 16,) * 5000, count=5000)))
    assert (len(entry.memory_ids), entry.count) == (audit.MEMORY_IDS_MAX, 5000)
    assert audit.decode(audit.encode(make(memory_ids=(b"i" * 16,) * 5000, count=0))).count == 5000


def test_more_namespaces_than_fit_are_counted_in_a_name_that_none_can_have():
    entry = audit.decode(audit.encode(make(namespaces=tuple(f"n{i}" for i in range(2000)))))
    assert len(entry.namespaces) == audit.NAMESPACES_MAX and entry.namespaces[-1] == "+977 more"


@pytest.mark.parametrize("field", ["request_id", "principal", "surface", "action", "outcome", "reason"])
def test_long_texts_are_cut_at_a_character_and_never_refused(field):
    data = audit.encode(make(**{field: "ü" * 10_000 + "\ud800"}))
    text = getattr(audit.decode(data), field)
    assert text.endswith("…") and set(text) == {"ü", "…"} and len(text.encode()) <= audit.REASON_BYTES_MAX


def test_an_entry_stays_small_whatever_is_given():
    big = make(
        namespaces=("n" * 255,) * 5000, memory_ids=(b"i" * 16,) * 50_000, reason="x" * 1_000_000, count=50_000
    )
    assert len(audit.encode(big)) < 300 * 1024


@pytest.mark.parametrize("changes", [{"at_us": -1}, {"count": 1 << 61}, {"memory_ids": (b"short",)}])
def test_values_out_of_range_are_refused(changes):
    with pytest.raises(InvalidInputError):
        audit.encode(make(**changes))


def test_every_truncation_and_trailing_byte_is_refused():
    data = audit.encode(make())
    for n in range(len(data)):
        with pytest.raises(IntegrityError):
            audit.decode(data[:n])
    with pytest.raises(IntegrityError):
        audit.decode(data + b"\x00")
    with pytest.raises(IntegrityError):
        audit.decode(data[:1] + b"\xcc\x01" + data[2:])


def test_a_list_that_is_too_long_is_refused_on_reading():
    items = msgspec.msgpack.decode(audit.encode(make()))
    items[9], items[10] = [b"i" * 16] * 1025, 1025
    with pytest.raises(IntegrityError):
        audit.decode(msgspec.msgpack.encode(items))


def test_a_newer_version_is_told_apart_from_damage():
    with pytest.raises(SchemaVersionError):
        audit.decode(msgspec.msgpack.encode([3, "something else"]))
    items = msgspec.msgpack.decode(audit.encode(make(details=(("purpose", "audit"),))))
    with pytest.raises(SchemaVersionError):
        audit.decode(msgspec.msgpack.encode([3, *items[1:]]))


def test_details_make_a_version_2_entry_in_the_order_of_their_names():
    """Facts beyond the fixed ones are in the bytes once, sorted, and come back as they were."""
    entry = make(details=(("purpose", "quarterly review"), ("elevation", "e-1")))
    data = audit.encode(entry)
    items = msgspec.msgpack.decode(data)
    assert (
        items[0] == 2
        and items[12] == []
        and list(items[11].items())
        == [
            ("elevation", "e-1"),
            ("purpose", "quarterly review"),
        ]
    )
    assert audit.decode(data).details == (("elevation", "e-1"), ("purpose", "quarterly review"))


@pytest.mark.parametrize("details", [{}, {"b": "1", "a": "2"}, {"x" * 300: "1"}])
def test_details_that_are_empty_unsorted_or_too_long_are_refused_on_reading(details):
    """There is one form of the bytes for an entry."""
    items = msgspec.msgpack.decode(audit.encode(make(details=(("a", "1"),))))
    with pytest.raises(IntegrityError):
        audit.decode(msgspec.msgpack.encode([*items[:11], details, []]))


def test_subjects_are_kept_in_their_order_and_capped():
    """More than fit are left out, and one that is no pseudonym is refused."""
    entry = make(subjects=(b"b" * 8, b"a" * 8))
    assert audit.decode(audit.encode(entry)) == entry
    many = tuple(i.to_bytes(8) for i in range(2000))
    assert audit.decode(audit.encode(make(subjects=many))).subjects == many[:1024]
    with pytest.raises(InvalidInputError):
        audit.encode(make(subjects=(b"short",)))


def test_details_beyond_their_limits_are_cut_and_never_refused():
    """An operation does not escape the log by having much to say."""
    many = tuple((f"name{i:04}", "ü" * 2000) for i in range(100))
    found = audit.decode(audit.encode(make(details=many))).details
    assert len(found) == 32 and all(len(text.encode()) <= audit.REASON_BYTES_MAX for _, text in found)


def test_leaf_hash_is_that_of_rfc_9162():
    """The empty leaf is the RFC 6962/9162 known answer; the prefix parts leaves from nodes."""
    assert audit.leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert audit.leaf_hash(b"x") == hashlib.sha256(b"\x00x").digest()
