"""Use counters: batched, never understated, and the limit holds over crashes and processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.keyring.keyring_tools import Keys, context, random_subjects, subject

from strongroom.crypto import SealContext
from strongroom.errors import (
    InvalidInputError,
    KeyExhaustedError,
    KeyMovedError,
    KeyStateError,
    StorageReadOnlyError,
)
from strongroom.keyring import Keyring, seal_groups
from strongroom.keyring._uses import USES_BUFFERED_MAX


def uses(ring: Keyring, key_id: int) -> int:
    return {k.key_id: k.uses for k in ring.list_keys()}[key_id]


def crash(ring: Keyring) -> None:
    """End a keyring as kill -9 would: nothing is flushed."""
    ring._book.close()
    ring._cache.closed = True


def test_each_seal_counts_and_nothing_is_written(keys: Keys) -> None:
    """Sealing counts one use each, opening none; the counts reach the file with flush, not before."""
    ring = keys.create()
    key = ring.data_key(0, None, create=False)
    for _ in range(10):
        sealed = key.seal(context(0), b"x")
        key.open(context(0), sealed)
    assert uses(ring, key.key_id) == 10
    assert keys.sql("SELECT * FROM key_uses") == []
    ring.flush()
    assert keys.sql("SELECT * FROM key_uses") == [(key.key_id, 10)]
    ring.close()
    assert uses(keys.open(), key.key_id) == 10


def test_buffer_is_bounded(keys: Keys) -> None:
    """After 4096 uses of a key they are written by themselves."""
    ring = keys.create()
    for _ in range(USES_BUFFERED_MAX + 1):
        ring.count_uses(1)
    assert keys.sql("SELECT uses FROM key_uses") == [(USES_BUFFERED_MAX,)]
    assert uses(ring, 1) == USES_BUFFERED_MAX + 1


def test_number_of_buffered_keys_is_bounded(keys: Keys) -> None:
    """Uses of very many keys are written before the buffer grows over its limit."""
    ring = keys.create()
    ns = ring.create_namespace("a")
    for key in ring.data_keys(ns, random_subjects(16_500)).values():
        ring.count_uses(key.key_id)
    assert keys.sql("SELECT count(*) FROM key_uses") == [(16_384,)]
    ring.flush()
    assert keys.sql("SELECT count(*), sum(uses) FROM key_uses") == [(16_500, 16_500)]


@pytest.mark.parametrize("crashes", [1, 2, 3])
def test_never_understated_after_crashes(keys: Keys, crashes: int) -> None:
    """However often processes crash with uses in memory, the count shown is not below the truth."""
    keys.create().close()
    truth = 0
    for n in range(crashes):
        ring = keys.open()
        ring.count_uses(1, 100 + n)
        ring.flush()
        ring.count_uses(1, 4000 + n)
        truth += 4100 + 2 * n
        crash(ring)
    ring = keys.open()
    assert truth <= uses(ring, 1) <= truth + crashes * USES_BUFFERED_MAX
    ring.count_uses(1, 1)
    ring.close()
    assert uses(keys.open(), 1) >= truth + 1


def test_clean_ends_leave_no_margin(keys: Keys) -> None:
    """After clean ends the count is exact, also when two keyrings were open at once."""
    keys.create().close()
    a, b = keys.open(), keys.open()
    a.count_uses(1, 5)
    b.count_uses(1, 7)
    assert uses(a, 1) >= 12
    a.close()
    b.close()
    assert uses(keys.open(), 1) == 12


def test_limit_holds_with_two_processes(keys: Keys) -> None:
    """Two keyrings together never pass the limit of a key, and both end in KeyExhaustedError."""
    limit = 8 * USES_BUFFERED_MAX
    keys.create().close()
    rings = [keys.open(uses_max=limit), keys.open(uses_max=limit)]
    done, stopped = 0, set[int]()
    while len(stopped) < 2:
        for n, ring in enumerate(rings):
            try:
                ring.count_uses(1, 500)
                done += 500
            except KeyExhaustedError as e:
                assert e.hint == "rotate the key"
                stopped.add(n)
        assert done <= limit
    assert done >= limit - 3 * USES_BUFFERED_MAX


def test_limit_holds_for_large_counts(keys: Keys) -> None:
    """A count larger than the buffer is written at once, or refused as a whole."""
    limit = 8 * USES_BUFFERED_MAX
    ring = keys.create(uses_max=limit)
    ring.count_uses(1, 5 * USES_BUFFERED_MAX)
    assert keys.sql("SELECT uses FROM key_uses") == [(5 * USES_BUFFERED_MAX,)]
    with pytest.raises(KeyExhaustedError):
        ring.count_uses(1, 4 * USES_BUFFERED_MAX)
    assert keys.sql("SELECT uses FROM key_uses") == [(5 * USES_BUFFERED_MAX,)]


def test_exhausted_key_seals_no_more_and_rotation_helps(keys: Keys) -> None:
    """A spent key refuses to seal and still opens; its successor seals."""
    limit = 3 * USES_BUFFERED_MAX
    ring = keys.create(uses_max=limit)
    ns = ring.create_namespace("a")
    key = ring.data_key(ns, subject(1), create=True)
    sealed = key.seal(context(ns), b"x")
    ring.count_uses(key.key_id, USES_BUFFERED_MAX)
    ring.count_uses(key.key_id, USES_BUFFERED_MAX)
    with pytest.raises(KeyExhaustedError):
        for _ in range(USES_BUFFERED_MAX + 1):
            key.seal(context(ns), b"x")
    assert key.open(context(ns), sealed) == b"x"
    assert ring.rotate_data_key(ns, subject(1)).seal(context(ns), b"x")


def test_failed_flush_keeps_the_counts(keys: Keys) -> None:
    """When a flush fails the counts stay pending, and a seal that needs one is refused."""
    ring = keys.create()
    key = ring.data_key(0, None, create=False)
    ring.count_uses(1, USES_BUFFERED_MAX)
    for use in (ring.flush, lambda: key.seal(context(0), b"x")):
        ring._book.db.execute("PRAGMA query_only = ON")  # of this connection: the next one is not
        with pytest.raises(StorageReadOnlyError):
            use()
    assert uses(ring, 1) == USES_BUFFERED_MAX
    ring.flush()
    assert keys.sql("SELECT uses FROM key_uses") == [(USES_BUFFERED_MAX,)]


def test_limit_is_bounded(keys: Keys) -> None:
    """A limit above 2**32, or none, cannot be asked for."""
    keys.create().close()
    for bad in (0, 2**32 + 1):
        with pytest.raises(InvalidInputError):
            keys.open(uses_max=bad)


def test_half_spent_key_is_told_by_check(keys: Keys) -> None:
    """A key past half of its uses is a warning of the check."""
    ring = keys.create()
    ring.count_uses(1, 2**31 + 1)
    found = ring.check()
    assert [(f.severity, f.code, f.where) for f in found] == [("warning", "key_exhausted", "data key 1")]


def test_the_keys_of_one_namespace_are_listed_as_among_all(keys: Keys) -> None:
    """Uses in the file and those that wait in this process; other namespaces are not looked at for it."""
    ring = keys.create()
    spaces = [ring.create_namespace("company_a") for _ in range(3)]
    for n, ns in enumerate(spaces, start=1):
        for owner in (None, bytes([n]) * 32):
            ring.count_uses(ring.data_key(ns, owner, create=True).key_id, 10 * n)
    ring.flush()
    ring.count_uses(ring.data_key(spaces[1], None, create=False).key_id, 5)
    everything = ring.list_keys()
    for ns in spaces:
        assert ring.list_keys(ns) == [k for k in everything if k.ns == ns]
    assert sorted(k.uses for k in ring.list_keys(spaces[1])) == [20, 25]


def test_rows_under_many_keys_are_counted_for_each_or_none_is_sealed(keys: Keys, tmp_path: Path) -> None:
    """Sealing for several keys counts each by its rows; when one of them may not be used none is sealed."""
    ring = keys.create()
    ns = ring.create_namespace("a")
    found_subjects = random_subjects(2)
    first, second = (ring.data_key(ns, s, create=True) for s in found_subjects)
    rows = [(bytes([n]) * 16, 0, 1, b"%d" % n) for n in range(3)]
    sealed = seal_groups(1, [(first, "a", rows), (second, "a", rows[:1]), (second, "a", [])])
    assert [len(s) for s in sealed] == [3, 1, 0]
    for key, found in zip((first, second), sealed, strict=False):
        for (memory_id, field, version, plaintext), one in zip(rows, found, strict=False):
            assert key.open(SealContext("a", ns, memory_id, field, version, 1), one) == plaintext
    assert [uses(ring, key.key_id) for key in (first, second)] == [3, 1]
    assert seal_groups(1, []) == []
    ring.rotate_data_key(ns, found_subjects[1])
    with pytest.raises(KeyMovedError):
        seal_groups(1, [(first, "a", rows), (second, "a", rows)])
    ring.disable_data_key(second.key_id)
    with pytest.raises(KeyStateError):
        seal_groups(1, [(first, "a", rows), (second, "a", rows)])
    other = Keys(tmp_path / "other.keys").create()
    with pytest.raises(InvalidInputError, match="one keyring"):
        seal_groups(1, [(first, "a", rows), (other.data_key(0, None, create=False), "a", rows)])
    other.close()
    with pytest.raises(InvalidInputError, match="16 bytes"):
        seal_groups(1, [(first, "a", [(b"short", 0, 1, b"x")])])
