"""Merkle trees as RFC 6962 hashes them: roots, inclusion proofs, consistency proofs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

# The hash of the perfect subtree of 2**level leaves with this number among those of its level.
Node = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """The hash of an entry's bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees side by side."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass
class Frontier:
    """The right edge of a growing tree: all that its root and further leaves need.

    Args:
        size: how many leaves there are.
        peaks: the perfect subtrees they make up, the largest first.
    """

    size: int = 0
    peaks: list[bytes] = field(default_factory=list)

    def add(self, leaf: bytes) -> None:
        """Grow by one leaf's hash."""
        sha256, peaks, size = hashlib.sha256, self.peaks, self.size
        while size & 1:
            leaf = sha256(b"\x01" + peaks.pop() + leaf).digest()
            size >>= 1
        peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The root of the tree as it is now."""
        if not self.peaks:
            return EMPTY_ROOT
        found = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            found = node_hash(peak, found)
        return found

    def copy(self) -> Frontier:
        """Another one of the same state."""
        return Frontier(self.size, list(self.peaks))


def frontier_of(leaves: Iterable[bytes]) -> Frontier:
    """The frontier of a tree of these leaf hashes."""
    made = Frontier()
    for leaf in leaves:
        made.add(leaf)
    return made


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The root of a tree of these leaf hashes."""
    return frontier_of(leaves).root()


def inclusion(node: Node, index: int, size: int) -> list[bytes]:
    """The proof that a tree of some size has a leaf at an index.

    Args:
        node: gives the tree's hashes.
        index: of the leaf, below `size`.
        size: of the tree.

    Returns:
        Hashes from the leaf's sibling to the root's child.
    """
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_range(node, middle, end))
            end = middle
        else:
            proof.append(_range(node, start, middle))
            start = middle
    return proof[::-1]


def root_by_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """The root that a leaf and its proof come to; None when the proof has another length.

    Args:
        leaf: the hash of the entry.
        index: where the tree has it.
        size: of the tree.
        proof: from the leaf's sibling to the root's child.
    """
    if not 0 <= index < size or not _are_hashes([leaf, *proof]):
        return None
    left, found, hashes = index, leaf, iter(proof)
    last = size - 1
    while last:
        # Without a sibling at this level, the rightmost subtree is carried up as it is.
        if left & 1 or left != last:
            sibling = next(hashes, None)
            if sibling is None:
                return None
            found = node_hash(sibling, found) if left & 1 else node_hash(found, sibling)
        left, last = left >> 1, last >> 1
    return found if next(hashes, None) is None else None


def consistency(node: Node, old: int, new: int) -> list[bytes]:
    """The proof that a tree begins with a smaller one.

    Args:
        node: gives the larger tree's hashes.
        old: size of the smaller tree.
        new: size of the larger one.

    Returns:
        As RFC 6962 has it; empty when one of the two needs no proof.
    """
    if old in (0, new):
        return []
    proof: list[bytes] = []
    start, end, whole = 0, new, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(_range(node, middle, end))
            end = middle
        else:
            proof.append(_range(node, start, middle))
            start, whole = middle, False
    if not whole:
        proof.append(_range(node, start, end))
    return proof[::-1]


def is_consistent(
    old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether a proof shows that one tree begins with another.

    Args:
        old: size of the smaller tree.
        old_root: its root.
        new: size of the larger one.
        new_root: its root.
        proof: as `consistency` gives it.
    """
    if not 0 <= old <= new or not _are_hashes([old_root, new_root, *proof]):
        return False
    if old in (0, new):
        expected = EMPTY_ROOT if old == 0 else new_root
        return not proof and old_root == expected
    hashes = iter(proof)
    left, last = old - 1, new - 1
    while left & 1:
        left, last = left >> 1, last >> 1
    # A smaller tree that is one perfect subtree is known already; else its last one begins.
    first = old_root if left == 0 else next(hashes, None)
    if first is None:
        return False
    of_old = of_new = first
    while last:
        if left & 1 or left != last:
            sibling = next(hashes, None)
            if sibling is None:
                return False
            if left & 1:
                of_old, of_new = node_hash(sibling, of_old), node_hash(sibling, of_new)
            else:
                of_new = node_hash(of_new, sibling)
        left, last = left >> 1, last >> 1
    return next(hashes, None) is None and of_old == old_root and of_new == new_root


def node_of(leaves: Sequence[bytes]) -> Node:
    """Gives a tree's hashes from all its leaf hashes."""

    def node(level: int, index: int) -> bytes:
        return root_of(leaves[index << level : (index + 1) << level])

    return node


def _range(node: Node, start: int, end: int) -> bytes:
    """The hash of the leaves of a subtree, which may be the unfinished one at the right edge."""
    length = end - start
    if length & (length - 1) == 0:
        level = length.bit_length() - 1
        return node(level, start >> level)
    middle = start + _split(length)
    return node_hash(_range(node, start, middle), _range(node, middle, end))


def _split(size: int) -> int:
    """The largest power of two below a size of at least two."""
    return int(1 << ((size - 1).bit_length() - 1))


def _are_hashes(values: Sequence[bytes]) -> bool:
    return all(len(value) == HASH_BYTES for value in values)
