"""The lock table: what is in flight on the node, in two sections (HOST-16 to HOST-19).

The aggregate section guards the node's sums (CPUs, memory, disk). It is held while the node is read
and one change is admitted. The detailed section guards which CPUs each VM holds, and is held while
they are chosen; addresses and ports have a lock of their own beside the rules they stand in. The
long work runs under neither: its entry stands for what it takes until it ends, however it ends. No
one ever waits for one section while holding the other.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ppn.errors import PpnError, Refusal
from ppn.host.model import Pins
from ppn.host.spec import VmSpec
from ppn.wire.agent import Going, Holds

SECTION_SECONDS = 60.0
ENDED_KEPT = 1024

# Which CPUs each VM holds.
Details = Mapping[str, Pins]


@dataclass(frozen=True)
class Entry:
    """An operation in flight.

    Args:
        vm: whom it changes.
        operation: what it does.
        correlation_id: of the request it came from.
        began: reading of the table's clock.
        spec: the VM as it shall be, once admitted.
        before: the CPUs its VM held when it began.
        buffer_mib: memory that is kept for it beside that.
    """

    vm: str
    operation: str
    correlation_id: str
    began: float
    spec: VmSpec | None = None
    before: Pins | None = None
    buffer_mib: int = 0


class AgentBusy(PpnError):
    """The agent has more to do than it takes on at once."""

    code = "agent_busy"


def claimed(details: Details, vm: str, pins: Pins | None) -> dict[str, Pins]:
    """The detailed section once a VM holds these CPUs; pure (HOST-18).

    Args:
        details: what every VM holds.
        vm: who takes them, in place of what it held.
        pins: what it takes; None for none.

    Raises:
        Refusal: another VM holds one of them.
    """
    others = {name: held for name, held in details.items() if name != vm}
    if pins is None:
        return others
    for other, held in others.items():
        if both := sorted(set(held.cpus) & set(pins.cpus)):
            raise Refusal(
                f"vm {vm}: CPU {both[0]} is held by vm {other}",
                code="cpu_taken",
                constraint="CPUs of the node",
                hint="ask again, or choose another node",
            )
    return others | {vm: pins}


@dataclass
class Section:
    """A lock that gives up in time and knows how long it was held.

    Args:
        name: for messages.
        clock: seconds that only count up.
    """

    name: str
    clock: Callable[[], float] = time.monotonic
    count: int = 0
    total: float = 0.0
    longest: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def held(self, timeout: float = SECTION_SECONDS) -> Iterator[None]:
        """Hold the section.

        Raises:
            AgentBusy: others held it all that time.
        """
        if not self._lock.acquire(timeout=timeout):
            raise AgentBusy(
                f"the {self.name} section of the lock table was held for over {timeout:g} s",
                hint="look at what libvirt is doing on the node",
            )
        began = self.clock()
        try:
            yield
        finally:
            seconds = self.clock() - began
            self.count += 1
            self.total += seconds
            self.longest = max(self.longest, seconds)
            self._lock.release()

    @property
    def holds(self) -> Holds:
        """How often and how long it was held."""
        mean = self.total / self.count if self.count else 0.0
        return Holds(count=self.count, mean_seconds=mean, longest_seconds=self.longest)


class LockTable:
    """What is in flight on this node, in memory alone: it ends with the agent."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.aggregate = Section("aggregate", clock)
        self.detailed = Section("detailed", clock)
        self._clock = clock
        self._guard = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._details: dict[str, Pins] = {}
        self._ended: deque[tuple[int, str]] = deque(maxlen=ENDED_KEPT)
        self._mark = 0

    @contextmanager
    def operation(self, vm: str, operation: str, correlation_id: str) -> Iterator[None]:
        """Be the one operation on a VM; the entry goes when the work ends, however it ends.

        Raises:
            Refusal: another operation is changing this VM.
        """
        with self._guard:
            if (other := self._entries.get(vm)) is not None:
                raise Refusal(
                    f"vm {vm}: {other.operation} is going on",
                    code="vm_busy",
                    constraint="one operation per VM",
                    hint="ask again when it has ended",
                )
            before = self._details.get(vm)
            self._entries[vm] = Entry(vm, operation, correlation_id, self._clock(), before=before)
        done = False
        try:
            yield
            done = True
        finally:
            with self._guard:
                entry = self._entries.pop(vm)
                if not done:
                    self._details = claimed(self._details, vm, None)
                    if entry.before is not None:
                        self._details[vm] = entry.before
                self._mark += 1
                self._ended.append((self._mark, vm))

    def reserve(self, vm: str, spec: VmSpec) -> None:
        """Note what an admitted operation will take; under the aggregate section."""
        with self._guard:
            self._entries[vm] = replace(self._entries[vm], spec=spec)

    def keep(self, vm: str, mib: int) -> None:
        """Keep so much memory for an admitted operation; under the aggregate section (DISK-03)."""
        with self._guard:
            self._entries[vm] = replace(self._entries[vm], buffer_mib=mib)

    def kept_mib(self, besides: str = "") -> int:
        """The memory in MiB that is kept for operations in flight, but for one VM's."""
        with self._guard:
            entries = tuple(self._entries.values())
        return sum(entry.buffer_mib for entry in entries if entry.vm != besides)

    def learn(self, found: Details, busy: Container[str]) -> None:
        """Take over which CPUs the VMs hold that nobody was changing when the node was read.

        Args:
            found: what their sidecars say.
            busy: VMs in flight before the node was read; of these the table knows better.
        """
        with self._guard:
            kept = {vm: pins for vm, pins in self._details.items() if vm in busy}
            self._details = kept | {vm: pins for vm, pins in found.items() if vm not in busy}

    def details(self) -> dict[str, Pins]:
        """Which CPUs each VM holds, as far as is known."""
        with self._guard:
            return dict(self._details)

    def claim(self, vm: str, pins: Pins | None) -> None:
        """Note which CPUs an operation gives its VM; under the detailed section.

        Raises:
            Refusal: another VM holds one of them.
        """
        with self._guard:
            self._details = claimed(self._details, vm, pins)

    def in_flight(self) -> tuple[VmSpec, ...]:
        """The VMs that admitted operations are changing, as they shall be.

        Read before the node is: an operation leaves only when its effect can be seen.
        """
        with self._guard:
            entries = tuple(self._entries.values())
        return tuple(entry.spec for entry in entries if entry.spec is not None)

    def going(self) -> tuple[Going, ...]:
        """Every operation in flight."""
        now = self._clock()
        with self._guard:
            entries = tuple(self._entries.values())
        return tuple(
            Going(
                vm=entry.vm,
                operation=entry.operation,
                correlation_id=entry.correlation_id,
                seconds=now - entry.began,
            )
            for entry in entries
        )

    def mark(self) -> int:
        """A moment, for `changed_since`."""
        with self._guard:
            return self._mark

    def changed_since(self, mark: int) -> frozenset[str]:
        """VMs that an operation is changing now, or was changing since a moment."""
        with self._guard:
            ended = {vm for at, vm in self._ended if at > mark}
            return frozenset(self._entries.keys() | ended)
