"""A controller's parts put together."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from ppn.errors import PpnError, Refusal
from ppn.fleet.batches import Batches
from ppn.fleet.identity import vm_id
from ppn.fleet.journal import Journal
from ppn.fleet.making import Asked, Made, Maker
from ppn.fleet.metrics import Counts, PoolCollector
from ppn.fleet.moving.lost import LostMoves
from ppn.fleet.moving.mover import Mover
from ppn.fleet.nodes import Nodes
from ppn.fleet.peers import Peers
from ppn.fleet.recovery import Recovery
from ppn.fleet.registry import Registry
from ppn.fleet.removing import Remover
from ppn.fleet.settings import FleetSettings
from ppn.host.policy import in_transit
from ppn.wire.fleet import VmOrder


def boot_clock() -> float:
    """Seconds since boot, those of a suspended machine counted, whatever the wall clock does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Service:
    """Everything one controller works with.

    Args:
        settings: from the inventory.
        clock: seconds that never jump.
        registry: what is known of the pool.
        maker: makes VMs.
        remover: removes and changes them.
        batches: makes several.
        mover: moves them between nodes.
        lost_moves: ends moves that only an operator can end.
        recovery: ends what an earlier process began.
        counts: what is counted.
        collectors: what Prometheus reads.
    """

    settings: FleetSettings
    clock: Callable[[], float]
    registry: Registry
    maker: Maker
    remover: Remover
    batches: Batches
    mover: Mover
    lost_moves: LostMoves
    recovery: Recovery
    counts: Counts
    collectors: CollectorRegistry

    async def create(self, order: VmOrder, key: str | None, asked: Asked) -> Made:
        """Have a VM made, and count what became of it.

        Args:
            order: what it shall be.
            key: the caller's idempotency key; None for an order that is never repeated.
            asked: who waits.

        Raises:
            PpnError: see `Maker.make`.
        """
        vm = vm_id(order.owner, key or secrets.token_hex(16))
        try:
            made = await self.maker.make(vm, order, asked)
        except PpnError as error:
            self.counts.orders.labels(error.code).inc()
            raise
        self.counts.orders.labels("made" if made.fresh else "found").inc()
        return made

    async def destroy(self, vm: str, asked: Asked, uuid: str | None = None) -> tuple[str, ...]:
        """Have a VM removed; returns the nodes on which nothing of it is left now.

        Args:
            vm: its id.
            asked: who waits.
            uuid: the one that is meant; None for whatever has this id now.

        Raises:
            Refusal: `vm_busy`: it is being made just now; a node asked too early would say that
                nothing is there, and make it after; `vm_moving`: it is between two nodes.
            PpnError: see `Remover.remove`.
        """
        if vm in self.maker.under_way:
            raise Refusal(
                f"vm {vm} is being made",
                code="vm_busy",
                constraint="one operation on a VM at a time",
                hint="ask again once it is made",
            )
        if self.mover.is_moving(vm):
            raise in_transit(vm, "moving")
        return await self.remover.remove(vm, asked, uuid)


def assemble(settings: FleetSettings, journal: Journal, nodes: Nodes) -> Service:
    """A controller from its settings and its edges."""
    clock = boot_clock
    known = {node.name: node.address for node in settings.nodes}
    registry = Registry(known, clock(), settings.stale_seconds)
    peers = Peers(settings.address, settings.controllers, settings.port)
    maker = Maker(registry, journal, nodes, peers, clock)
    remover = Remover(registry, nodes, clock)
    mover = Mover(maker, remover, settings.node_proxy_port, settings.stall_seconds, clock)
    collectors = CollectorRegistry()
    collectors.register(PoolCollector(registry, settings.name, clock))
    return Service(
        settings=settings,
        clock=clock,
        registry=registry,
        maker=maker,
        remover=remover,
        batches=Batches(maker, remover),
        mover=mover,
        lost_moves=LostMoves(mover),
        recovery=Recovery(maker, remover),
        counts=Counts(collectors),
        collectors=collectors,
    )
