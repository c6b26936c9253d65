"""Sources that hang take no more time than there is, and none from those that answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import httpx
import pytest

from ppn.fleet.reconciliation.model import ControllerLook, NodeLook
from ppn.fleet.reconciliation.reading import Sources
from ppn.fleet.reconciliation.settings import ReconcileSettings
from tests.unit.reconciliation.builders import node_report

HANGING = tuple(f"hangs-{number:03}" for number in range(300))
GOOD = tuple(f"node-{number:03}" for number in range(20))


class Mostly(Sources):
    """A pool whose controllers answer but for one, and whose nodes hang but for a few."""

    async def _controller(self, url: str) -> ControllerLook:
        if "hangs" in url:
            await asyncio.sleep(3600)
        lost = tuple(node_report(name, stale=True) for name in HANGING)
        return ControllerLook(url, nodes=(*lost, *map(node_report, GOOD)))

    _alerts = _controller

    async def _node(self, name: str, controllers: tuple[str, ...]) -> NodeLook:
        if name in HANGING:
            await asyncio.sleep(3600)
        return NodeLook(name)


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """That pool, and little time for it."""
    settings = ReconcileSettings.model_validate(
        {
            "name": "relay",
            "address": "127.0.0.1",
            "controllers": ["http://hangs:1", "http://answers:1"],
            "nodes": [*HANGING, *GOOD],
            "state": tmp_path,
        }
    )
    nobody = cast(httpx.AsyncClient, None)
    return Mostly(settings, nobody, nobody, 0.3)


@pytest.mark.fault(
    "hundreds of nodes and a controller hang while reconciliation asks them",
    "each is said to be not judged, and those that answer are compared in time",
)
def test_many_that_hang_are_gaps_and_keep_nobody_waiting(sources: Sources) -> None:
    """REC-02: a run ends within the time of its unit, with all that could be read."""
    views = asyncio.run(sources.views())
    assert [one.name for one in views.nodes] == list(GOOD)
    assert {gap.name for gap in views.gaps} == {"http://hangs:1", *HANGING}
    assert all("within 0.3 s" in gap.reason for gap in views.gaps)


def test_a_controller_that_hangs_is_silent(sources: Sources) -> None:
    """HLT-06: the watch has the others' word in time for its next cycle."""
    found, gaps = asyncio.run(sources.told())
    assert [one.name for one in found] == ["http://answers:1"]
    assert [gap.name for gap in gaps] == ["http://hangs:1"]
