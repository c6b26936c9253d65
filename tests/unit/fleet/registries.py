"""Registries for tests: three nodes, and what is free on them."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

import pytest

from ppn.errors import Refusal
from ppn.fleet.model import MARGIN_MIB
from ppn.fleet.registry import Registry
from ppn.wire.heartbeat import Heartbeat

ADDRESSES = {
    "a": IPv4Address("10.8.0.1"),
    "b": IPv4Address("10.8.0.2"),
    "c": IPv4Address("10.8.0.3"),
}
OTHER_SESSION = "1" * 32


def registry_of(*heartbeats: Heartbeat, names: Iterable[str] = "abc") -> Registry:
    """A registry at time 0 that knows these nodes and has heard these heartbeats."""
    registry = Registry({name: ADDRESSES[name] for name in names}, 0.0)
    for one in heartbeats:
        hear(registry, one, 0.0)
    return registry


def hear(registry: Registry, one: Heartbeat, now: float) -> None:
    registry.hear(one, ADDRESSES[one.node], now)


def free(registry: Registry, name: str) -> tuple[int, int, int, int | None]:
    """vCPUs, memory, disk in GiB and addresses."""
    view = registry.view(registry.nodes[name])
    assert view is not None
    return view.free_vcpus, view.free_memory_mib, view.free_disk_mib // 1024, view.addresses


EMPTY = (16, 32768 - 512 - MARGIN_MIB, 1000, 253)
ONE_LESS = (14, EMPTY[1] - 1024, 990, 252)
TWO_LESS = (12, EMPTY[1] - 2048, 980, 251)


def holds(registry: Registry, now: float = 0.0, owner: str | None = None) -> list[tuple[str, str]]:
    return [(held.report.id, held.node) for held in registry.vms(now, owner)]


def code(refused: pytest.ExceptionInfo[Refusal]) -> str:
    return refused.value.code
