"""Two ends of a direct path, with a network between them that loses, delays and reorders."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, pairwise
from random import Random

from ppn.mesh import policy, wire
from ppn.mesh.policy import Link

# Given the time, the sender (0 or 1) and chance: the delay of a datagram, or None when it is lost.
Network = Callable[[float, int, Random], float | None]


@dataclass
class Simulation:
    """Runs the very state machine that the service runs.

    Args:
        network: what becomes of each datagram.
        seed: of the network's chance.
    """

    network: Network
    seed: int = 0
    now: float = 1000.0
    links: list[Link] = field(
        default_factory=lambda: [Link(leads=True, session=7), Link(leads=False, session=5)]
    )
    history: list[tuple[float, bool, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.order = count()
        self.events: list[tuple[float, int, int, bytes | None]] = []
        for end in (0, 1):
            self._wake(end, self.now + 0.2 * end)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.events and self.events[0][0] <= end:
            self.now, _, node, datagram = heapq.heappop(self.events)
            self._step(node, datagram)
        self.now = end

    def restart(self, node: int) -> None:
        """Kill a keeper and start it anew: it begins on the relay, in a newer session."""
        old = self.links[node]
        self.links[node] = Link(leads=old.leads, session=old.session + 1)
        self._wake(node, self.now)

    def _step(self, node: int, datagram: bytes | None) -> None:
        link = self.links[node]
        if datagram is None:
            if self.now < link.due:
                return
            link = policy.ticked(link, self.now)
        else:
            probe = wire.decode(datagram)
            if probe is None:
                raise ValueError(f"not a probe: {datagram!r}")
            link = policy.received(link, probe, self.now)
        if self.now >= link.due:
            link, answer = policy.sent(link, self.now)
            delay = self.network(self.now, node, self.random)
            if delay is not None:
                self._push(self.now + delay, 1 - node, wire.encode(answer))
            self._wake(node, link.due)
        self.links[node] = link
        self.history.append((self.now, self.links[0].is_direct, self.links[1].is_direct))

    def _wake(self, node: int, when: float) -> None:
        self._push(when, node, None)

    def _push(self, when: float, node: int, datagram: bytes | None) -> None:
        heapq.heappush(self.events, (when, next(self.order), node, datagram))

    @property
    def both_direct(self) -> bool:
        """Whether both ends use the direct path now."""
        return all(link.is_direct for link in self.links)

    @property
    def both_relayed(self) -> bool:
        """Whether both ends use the relay now."""
        return not any(link.is_direct for link in self.links)

    def disagreements(self) -> list[float]:
        """How long each disagreement lasted, in seconds."""
        found: list[float] = []
        began: float | None = None
        for moment, one, other in [*self.history, (self.now, self.both_direct, self.both_direct)]:
            if one != other and began is None:
                began = moment
            elif one == other and began is not None:
                found.append(moment - began)
                began = None
        return found

    def changes(self) -> int:
        """How often the first end changed its path."""
        paths = [one for _, one, _ in self.history]
        return sum(a != b for a, b in pairwise(paths))
