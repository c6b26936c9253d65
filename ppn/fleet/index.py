"""Nodes in the order placement ranks them by, so that few must be looked at.

Nodes that are alike in reservation and KVM form a group. A group is a sorted list, cut into
blocks; a block knows the most its nodes have of each resource, so that a block in which nothing can
fit is passed over at once. A search looks at about the square root of all nodes. The index only
leaves out; whether a node fits is for `ppn.fleet.policy` to say.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping, Set
from typing import NamedTuple

from ppn.fleet.model import Demand, Label, NodeView

# About the square root of a large pool; blocks hold between a quarter and twice as many.
BLOCK = 64
ODD, NETWORK, ADDRESS = 1, 2, 4
FIRST_IMAGE_BIT = 3

# (share, name, vCPUs of one VM, memory, disk, abilities, view); names differ, views never compare.
Entry = tuple[int, str, int, int, int, int, NodeView]
Fits = Callable[[NodeView], bool]


class Need(NamedTuple):
    """What a node must have at least; `abilities` are bits it must all have.

    With `fullest` the node with the greatest share is sought, else the one with the least.
    """

    vcpus: int
    memory_mib: int
    disk_mib: int
    abilities: int
    fullest: bool


class Block:
    """Neighbouring entries, and the most that any of them has."""

    __slots__ = ("abilities", "disk_mib", "entries", "memory_mib", "vcpus")

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.measure()

    def measure(self) -> None:
        """Find anew the most that any entry has."""
        _, _, vcpus, memory, disk, abilities, _ = zip(*self.entries, strict=True)
        self.vcpus: int = max(vcpus)
        self.memory_mib: int = max(memory)
        self.disk_mib: int = max(disk)
        self.abilities = 0
        for bits in set(abilities):
            self.abilities |= bits

    def add(self, entry: Entry) -> None:
        """Put an entry in its place."""
        insort(self.entries, entry)
        _, _, vcpus, memory, disk, abilities, _ = entry
        self.vcpus = max(self.vcpus, vcpus)
        self.memory_mib = max(self.memory_mib, memory)
        self.disk_mib = max(self.disk_mib, disk)
        self.abilities |= abilities

    def may_fit(self, need: Need) -> bool:
        """Whether any entry could have what is needed."""
        return (
            self.vcpus >= need.vcpus
            and self.memory_mib >= need.memory_mib
            and self.disk_mib >= need.disk_mib
            and self.abilities & need.abilities == need.abilities
        )


class Group:
    """Nodes sorted by share, then name."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._lasts: list[tuple[int, str]] = []

    def add(self, entry: Entry) -> None:
        """Take a node in; it is not in yet."""
        if not self._blocks:
            self._blocks.append(Block([entry]))
            self._lasts.append(entry[:2])
            return
        at = min(bisect_left(self._lasts, entry[:2]), len(self._lasts) - 1)
        self._blocks[at].add(entry)
        self._settle(at)

    def remove(self, share: int, name: str) -> None:
        """Take a node out; it is in."""
        at = bisect_left(self._lasts, (share, name))
        entries = self._blocks[at].entries
        del entries[bisect_left(entries, (share, name))]
        if len(entries) < BLOCK // 4 and len(self._blocks) > 1:
            del self._blocks[at], self._lasts[at]
            at = max(at - 1, 0)
            # Both are sorted and neighbours; sorting merges them whichever comes first.
            self._blocks[at].entries = sorted(self._blocks[at].entries + entries)
        if self._blocks[at].entries:
            self._blocks[at].measure()
            self._settle(at)
        else:
            self._blocks.clear()
            self._lasts.clear()

    def first(self, need: Need, fits: Fits, *, least: int = 0) -> NodeView | None:
        """The first node in order that fits, of those with at least this share."""
        for at in range(bisect_left(self._lasts, (least, "")), len(self._blocks)):
            if self._blocks[at].may_fit(need):
                entries = self._blocks[at].entries
                for view in _candidates(entries, need, least):
                    if fits(view):
                        return view
        return None

    def fullest(self, need: Need, fits: Fits) -> NodeView | None:
        """The node with the greatest share that fits; of equal ones the first by name."""
        for block in reversed(self._blocks):
            if block.may_fit(need):
                for view in _candidates(reversed(block.entries), need):
                    if fits(view):
                        return self.first(need, fits, least=view.share)
        return None

    def _settle(self, at: int) -> None:
        """Cut a block that has grown too long, and note where it ends."""
        entries = self._blocks[at].entries
        if len(entries) > 2 * BLOCK:
            self._blocks[at : at + 1] = [Block(entries[:BLOCK]), Block(entries[BLOCK:])]
            self._lasts.insert(at, entries[BLOCK - 1][:2])
            at += 1
        self._lasts[at] = entries[-1][:2]


def _candidates(
    entries: Iterator[Entry] | list[Entry], need: Need, share_least: int = 0
) -> Iterator[NodeView]:
    vcpus_least, memory_least, disk_least = need.vcpus, need.memory_mib, need.disk_mib
    wanted = need.abilities
    for share, _, vcpus, memory, disk, abilities, view in entries:
        if (
            share >= share_least
            and vcpus >= vcpus_least
            and memory >= memory_least
            and disk >= disk_least
            and abilities & wanted == wanted
        ):
            yield view


class Index:
    """Every node that is a candidate now."""

    def __init__(self) -> None:
        self._views: dict[str, NodeView] = {}
        self._shares: dict[str, int] = {}
        self._abilities: dict[str, int] = {}
        self._groups = {(reserved, kvm): Group() for reserved in (0, 1) for kvm in (0, 1)}
        self._holders: dict[Label, set[str]] = {}

    def __len__(self) -> int:
        return len(self._views)

    def view(self, name: str) -> NodeView | None:
        """A node as it may be used; None when it is no candidate."""
        return self._views.get(name)

    def views(self) -> Mapping[str, NodeView]:
        """Every candidate by its name."""
        return self._views

    def holders(self, label: Label) -> Set[str]:
        """The candidates that hold a VM of this owner with this label."""
        return self._holders.get(label, frozenset())

    def put(self, view: NodeView) -> None:
        """Take a node in, or take it as it is now."""
        before = self._views.get(view.name)
        if before == view:
            return
        if before is not None:
            self._groups[before.reserved, before.kvm].remove(self._shares[view.name], view.name)
        self._views[view.name] = view
        entry = self._entry(view)
        self._shares[view.name] = entry[0]
        self._groups[view.reserved, view.kvm].add(entry)
        self._relabel(view.name, before.labels if before else frozenset(), view.labels)

    def drop(self, name: str) -> None:
        """Take a node out, if it is in."""
        before = self._views.pop(name, None)
        if before is not None:
            self._groups[before.reserved, before.kvm].remove(self._shares.pop(name), name)
            self._relabel(name, before.labels, frozenset())

    def search(self, need: Need, group: tuple[bool, bool], fits: Fits) -> NodeView | None:
        """The node of a group that the demand's policy ranks first among those that fit.

        Args:
            need: what to look for.
            group: reserved or not, with KVM or without.
            fits: says of a node that seems to fit whether it does.
        """
        if need.fullest:
            return self._groups[group].fullest(need, fits)
        return self._groups[group].first(need, fits)

    def _entry(self, view: NodeView) -> Entry:
        bits = ODD if view.allow_odd else 0
        if view.addresses is not None:
            bits |= NETWORK
        if view.addresses is None or view.addresses > 0:
            bits |= ADDRESS
        for image in view.images:
            bits |= self._abilities.setdefault(image, 1 << FIRST_IMAGE_BIT + len(self._abilities))
        return (
            view.share,
            view.name,
            min(view.free_vcpus, view.largest_socket),
            view.free_memory_mib,
            view.free_disk_mib,
            bits,
            view,
        )

    def need(self, demand: Demand) -> Need | None:
        """What to look for; None when no node has ever had the image."""
        image = self._abilities.get(demand.image)
        if image is None:
            return None
        odd = ODD if demand.vcpus % 2 else 0
        network = NETWORK if demand.network else 0
        abilities = image | odd | network | ADDRESS
        fullest = demand.policy == "pack"
        return Need(demand.vcpus, demand.memory_mib, demand.disk_mib, abilities, fullest)

    def _relabel(self, name: str, before: frozenset[Label], now: frozenset[Label]) -> None:
        for label in before - now:
            self._holders[label].discard(name)
            if not self._holders[label]:
                del self._holders[label]
        for label in now - before:
            self._holders.setdefault(label, set()).add(name)
