"""The tree against RFC 6962's own words, its known roots, and forged proofs (TEN-12)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.audit.merkle import (
    EMPTY_ROOT,
    consistency,
    frontier_of,
    inclusion,
    is_consistent,
    leaf_hash,
    node_hash,
    node_of,
    root_by_inclusion,
    root_of,
)

LARGEST = 33
LEAVES = [leaf_hash(bytes([number])) for number in range(LARGEST + 1)]
# The entries and roots that implementations of RFC 6962 compare themselves by.
KNOWN_ENTRIES = (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
)  # fmt: skip
KNOWN_ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def mth(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, as it is written there."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(mth(leaves[:k]), mth(leaves[k:]))


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962."""
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def test_roots_are_the_known_ones() -> None:
    leaves = [leaf_hash(bytes.fromhex(text)) for text in KNOWN_ENTRIES]
    for size, root in enumerate(KNOWN_ROOTS):
        assert root_of(leaves[:size]).hex() == root


@given(st.lists(st.binary(max_size=4), max_size=80), st.integers(0, 80))
def test_a_frontier_grows_into_the_same_tree(entries: list[bytes], cut: int) -> None:
    leaves = [leaf_hash(one) for one in entries]
    grown = frontier_of(leaves[:cut])
    kept = grown.copy()
    for leaf in leaves[cut:]:
        grown.add(leaf)
    assert (grown.size, grown.root()) == (len(leaves), mth(leaves))
    assert kept.root() == mth(leaves[:cut])


@pytest.mark.parametrize("size", range(1, LARGEST + 1))
def test_proofs_are_those_of_the_rfc_and_verify(size: int) -> None:
    """TEN-12: every inclusion and every consistency proof of every tree up to 33 entries."""
    leaves = LEAVES[:size]
    root, node = mth(leaves), node_of(leaves)
    for index in range(size):
        proof = inclusion(node, index, size)
        assert proof == path(index, leaves)
        assert root_by_inclusion(leaves[index], index, size, proof) == root
    for old in range(1, size + 1):
        proof = consistency(node, old, size)
        assert proof == subproof(old, leaves, True)
        assert is_consistent(old, mth(leaves[:old]), size, root, proof)
    assert is_consistent(0, EMPTY_ROOT, size, root, [])


def forged(proof: list[bytes]) -> Iterator[list[bytes]]:
    """Every small change to a proof."""
    for place in range(len(proof)):
        yield proof[:place] + proof[place + 1 :]
        yield [*proof[:place], bytes([proof[place][0] ^ 1]) + proof[place][1:], *proof[place + 1 :]]
        yield [*proof[:place], proof[place][:-1], *proof[place + 1 :]]
        yield [*proof[:place], proof[place], *proof[place:]]
        for other in range(place):
            swapped = [*proof]
            swapped[place], swapped[other] = proof[other], proof[place]
            if swapped != proof:
                yield swapped
    for extra in (bytes(32), b"", LEAVES[0]):
        yield [*proof, extra]
        yield [extra, *proof]
    if proof:
        yield []
        yield proof[::-1] if proof[::-1] != proof else [*proof, *proof]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 21])
def test_forged_inclusion_proofs_are_rejected(size: int) -> None:
    """TEN-12: wrong index, size, root, order, leaf; hashes missing, added, changed or shortened."""
    leaves = LEAVES[:size]
    root, node = mth(leaves), node_of(leaves)
    for index in range(size):
        proof = inclusion(node, index, size)
        for other in (*range(size), -1, size, 1 << 60):
            if other != index:
                assert root_by_inclusion(leaves[index], other, size, proof) != root
        for wrong in (0, *range(index, 2 * size + 2)):
            # At another size the same hashes may lead to the same root; what is signed names it.
            if wrong > size and len(inclusion(lambda *_: root, index, wrong)) != len(proof):
                assert root_by_inclusion(leaves[index], index, wrong, proof) is None
        assert root_by_inclusion(leaves[index], index, 0, proof) is None
        assert root_by_inclusion(LEAVES[size], index, size, proof) != root
        assert root_by_inclusion(leaf_hash(leaves[index]), index, size, proof) != root
        for changed in forged(proof):
            assert root_by_inclusion(leaves[index], index, size, changed) != root


@pytest.mark.parametrize("new", [1, 2, 3, 7, 8, 9, 21])
def test_forged_consistency_proofs_are_rejected(new: int) -> None:
    """TEN-12: other sizes, roots and orders; hashes missing, added, changed or shortened."""
    leaves = LEAVES[:new]
    root, node = mth(leaves), node_of(leaves)
    for old in range(1, new + 1):
        proof = consistency(node, old, new)
        before = mth(leaves[:old])
        for other in range(1, new + 1):
            if other != old:
                assert not is_consistent(other, before, new, root, proof)
                assert not is_consistent(old, mth(leaves[:other]), new, root, proof)
        if old < new:
            assert not is_consistent(new, root, old, before, proof)
            assert not is_consistent(old, bytes(32), new, root, proof)
        assert not is_consistent(old, before, new, mth([*leaves[:-1], LEAVES[-1]]), proof)
        rewritten = [LEAVES[-1], *leaves[1:]]
        honest = consistency(node_of(rewritten), old, new)
        assert not is_consistent(old, before, new, mth(rewritten), honest)
        for changed in forged(proof):
            assert not is_consistent(old, before, new, root, changed)
    assert not is_consistent(0, bytes(32), new, root, [])
    assert not is_consistent(0, EMPTY_ROOT, new, root, [bytes(32)])
