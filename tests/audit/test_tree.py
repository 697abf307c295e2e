"""The Merkle tree against a naive reading of RFC 9162 and against published vectors."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit import oracle

from strongroom import audit

# The leaves, roots and proofs of the reference implementation of Certificate Transparency (RFC 6962).
LEAVES = [
    bytes.fromhex(h)
    for h in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {  # leaf from 0, size
    (0, 1): [],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


class Kept:
    """Every complete subtree of a list of leaves, by a slow way of its own."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.leaves = leaves

    def __getitem__(self, node: tuple[int, int]) -> bytes:
        level, position = node
        part = self.leaves[position << level : (position + 1) << level]
        assert len(part) == 1 << level, "only complete subtrees are ever asked for"
        return oracle.mth(part)

    def known(self, ranges: list[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        return {node: self[node] for node in audit.needed(ranges)}


def inclusion(index: int, leaves: list[bytes]) -> list[bytes]:
    ranges = audit.inclusion_ranges(index, len(leaves))
    return audit.hashes(ranges, Kept(leaves).known(ranges))


def consistency(old: int, leaves: list[bytes]) -> list[bytes]:
    ranges = audit.consistency_ranges(old, len(leaves))
    return audit.hashes(ranges, Kept(leaves).known(ranges))


def test_the_published_roots_come_out() -> None:
    """Sizes 0 to 8 of the reference leaves, by growing and by folding complete subtrees."""
    assert audit.EMPTY_ROOT.hex() == EMPTY == audit.fold([]).hex()
    tree = audit.Frontier(0, ())
    for size, root in enumerate(ROOTS, 1):
        tree.extend([audit.leaf_hash(LEAVES[size - 1])])
        parts = [Kept(LEAVES)[node] for node in audit.subtrees(0, size)]
        assert tree.root().hex() == root == audit.fold(parts).hex()


@pytest.mark.parametrize(("place", "hashes"), INCLUSION.items())
def test_the_published_inclusion_proofs_come_out(place: tuple[int, int], hashes: list[str]) -> None:
    """The same hashes in the same order."""
    assert [h.hex() for h in inclusion(place[0], LEAVES[: place[1]])] == hashes


@pytest.mark.parametrize(("sizes", "hashes"), CONSISTENCY.items())
def test_the_published_consistency_proofs_come_out(sizes: tuple[int, int], hashes: list[str]) -> None:
    """The same hashes in the same order."""
    assert [h.hex() for h in consistency(sizes[0], LEAVES[: sizes[1]])] == hashes


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_roots_and_proofs_are_those_of_the_recursive_definition(choose: st.DataObject) -> None:
    """Any size up to 130: root, one inclusion proof, one consistency proof."""
    size = choose.draw(st.integers(1, 130))
    leaves = [b"leaf %d" % i for i in range(size)]
    index, old = choose.draw(st.integers(0, size - 1)), choose.draw(st.integers(1, size))
    assert audit.subtree_hash([audit.leaf_hash(leaf) for leaf in leaves]) == oracle.mth(leaves)
    assert inclusion(index, leaves) == oracle.path(index, leaves)
    assert consistency(old, leaves) == oracle.proof(old, leaves)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=6))
def test_a_tree_that_grows_in_steps_stores_each_complete_subtree_once(steps: list[int]) -> None:
    """Whatever the steps: the subtrees given out are all complete ones from the least level up, and right."""
    leaves = [b"%d" % i for i in range(sum(steps))]
    tree, done, at = audit.Frontier(0, ()), {}, 0
    for step in steps:
        resumed = audit.Frontier(at, [Kept(leaves)[n] for n in audit.subtrees(0, at)])
        new = resumed.extend([audit.leaf_hash(leaf) for leaf in leaves[at : at + step]])
        assert tree.extend([audit.leaf_hash(leaf) for leaf in leaves[at : at + step]]) == new
        for level, position, value in new:
            assert (level, position) not in done
            done[level, position] = value
        at += step
        assert tree.root() == resumed.root() == oracle.mth(leaves[:at])
    low = audit.STORED_LEVEL_MIN
    expected = {(level, i) for level in range(low, 12) for i in range(len(leaves) >> level)}
    assert set(done) == expected
    assert all(value == Kept(leaves)[node] for node, value in done.items())


def test_a_proof_at_ten_million_asks_for_few_hashes() -> None:
    """At most two per level and a block of leaves at each end, whichever entry is proven."""
    size = 10_000_000
    for index in (0, 1, 4_999_999, 8_388_607, 8_388_608, size - 1):
        nodes = audit.needed(audit.inclusion_ranges(index, size))
        assert len(nodes) <= 2 * 24
        assert len({p >> (4 - lv) for lv, p in nodes if lv < 4}) <= 2
    assert len(audit.needed(audit.consistency_ranges(6_543_210, size))) <= 3 * 24


def test_a_leaf_is_never_an_inner_node() -> None:
    """The first byte keeps the two apart, so that no entry can pass for two hashes."""
    left, right = sha256(b"l").digest(), sha256(b"r").digest()
    assert audit.leaf_hash(left + right) != audit.fold([left, right])
