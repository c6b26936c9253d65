"""Tells every controller how the node is: at intervals, and at once after each change.

Each controller has a task of its own, so that a dead one never delays another. Only the newest
state is ever sent: what a controller missed, it does not need.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import httpx

from ppn.log import get_logger
from ppn.wire.heartbeat import Heartbeat

PATH = "/v1/heartbeats"
SEND_SECONDS = 5.0
FIRST_BACKOFF_SECONDS = 0.5
# Changes that come together are told together.
GATHER_SECONDS = 0.1

log = get_logger("host-agent")

LookUp = Callable[[], Awaitable[Heartbeat | None]]


def backoff(failures: int, interval: float, chance: float) -> float:
    """Seconds to wait after so many failures in a row; pure.

    Args:
        failures: 1 or more.
        interval: seconds between heartbeats; no wait is longer.
        chance: 0 to 1; spreads the nodes of a pool whose controller comes back.
    """
    longest: float = min(FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 16), interval)
    return longest * (0.5 + chance / 2)


class Heart:
    """Looks at the node and tells the controllers.

    Args:
        look: what to tell now; None when it cannot be known.
        controllers: their base URLs.
        interval: seconds between heartbeats when nothing changes.
    """

    def __init__(self, look: LookUp, controllers: tuple[str, ...], interval: float) -> None:
        self._look = look
        self._controllers = controllers
        self._interval = interval
        self._changed = asyncio.Event()
        self._news = asyncio.Condition()
        self._newest: tuple[int, bytes] = (0, b"")

    def poke(self) -> None:
        """Look again now; from the event loop's thread."""
        self._changed.set()

    async def run(self) -> None:
        """Beat for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            for controller in self._controllers:
                group.create_task(self._tell(controller))

    async def _watch(self) -> None:
        while True:
            self._changed.clear()
            if (found := await self._look()) is not None:
                async with self._news:
                    self._newest = (self._newest[0] + 1, found.model_dump_json().encode())
                    self._news.notify_all()
            try:
                await asyncio.wait_for(self._changed.wait(), self._interval)
                await asyncio.sleep(GATHER_SECONDS)
            except TimeoutError:
                continue

    async def _newer_than(self, told: int) -> tuple[int, bytes]:
        async with self._news:
            await self._news.wait_for(lambda: self._newest[0] > told)
            return self._newest

    async def _tell(self, controller: str) -> None:
        told = failures = 0
        limits = httpx.Limits(max_connections=1)
        # Straight to the mesh address: no proxy of the environment knows it.
        async with httpx.AsyncClient(
            timeout=SEND_SECONDS, limits=limits, trust_env=False
        ) as client:
            while True:
                number, body = await self._newer_than(told)
                problem = await _send(client, controller + PATH, body)
                if problem is None:
                    if failures:
                        log.info("controller hears again", controller=controller)
                    told, failures = number, 0
                    continue
                failures += 1
                if failures == 1:
                    log.warning("controller does not hear", controller=controller, error=problem)
                await asyncio.sleep(backoff(failures, self._interval, random.random()))


async def _send(client: httpx.AsyncClient, url: str, body: bytes) -> str | None:
    """What kept a heartbeat from being heard; None when it was."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            answer = await client.post(
                url, content=body, headers={"Content-Type": "application/json"}
            )
    except (httpx.HTTPError, TimeoutError) as error:
        return repr(error)
    return None if answer.is_success else f"status {answer.status_code}: {answer.text[:200]}"
