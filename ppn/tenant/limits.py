"""How much one caller may ask for: a rate, and so many requests at once; never at another's cost.

What is counted here is counted in one process; the quota, which must hold for all proxies of the
pool together, is the store's.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ppn.errors import Refusal

# Callers whose rate is remembered; one that was forgotten begins with a full bucket.
CALLERS_KEPT = 4096


@dataclass
class Bucket:
    """A token bucket: a rate in the long run, and so much at once.

    Args:
        rate: tokens that come back each second.
        burst: tokens it holds at most.
        tokens: it holds at `at`.
        at: seconds of the caller's clock.
    """

    rate: float
    burst: float
    tokens: float
    at: float

    def take(self, now: float) -> float:
        """Take one token; returns 0, or after how many seconds there is one.

        Args:
            now: seconds of the same clock, never less than before.
        """
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / self.rate


@dataclass
class Rates:
    """A bucket for each caller, as many as are remembered.

    Args:
        rate: requests a second in the long run.
        burst: requests at once.
        clock: seconds that never go back.
    """

    rate: float
    burst: int
    clock: Callable[[], float]
    buckets: OrderedDict[str, Bucket] = field(default_factory=OrderedDict)

    def check(self, caller: str) -> None:
        """Count a request.

        Raises:
            Refusal: `rate_limited`.
        """
        if wait := self._take(caller):
            raise Refusal(
                f"more than {self.rate:g} requests a second",
                code="rate_limited",
                constraint="requests a second",
                hint=f"ask again in {wait:.1f} s",
            )

    def _take(self, caller: str) -> float:
        now = self.clock()
        bucket = self.buckets.get(caller)
        if bucket is None:
            bucket = self.buckets[caller] = Bucket(self.rate, self.burst, self.burst, now)
            if len(self.buckets) > CALLERS_KEPT:
                self.buckets.popitem(last=False)
        self.buckets.move_to_end(caller)
        return bucket.take(now)


@dataclass
class _Lane:
    free: asyncio.Semaphore
    waiting: int = 0
    users: int = 0


@dataclass
class Lanes:
    """So many requests of one tenant at once, a few more waiting, and no tenant in another's way.

    Args:
        at_once: under way at the same time.
        waiting: that may wait for their turn.
        seconds: the longest one waits; None for as long as it takes.
    """

    at_once: int
    waiting: float = math.inf
    seconds: float | None = None
    lanes: dict[str, _Lane] = field(default_factory=dict)

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[bool]:
        """Wait for a tenant's turn, and hold it to the end of the block: had it to wait?

        Raises:
            Refusal: `too_many_at_once`.
        """
        lane = self.lanes.setdefault(tenant, _Lane(asyncio.Semaphore(self.at_once)))
        lane.users += 1
        try:
            waited = lane.free.locked()
            await self._enter(lane)
            try:
                yield waited
            finally:
                lane.free.release()
        finally:
            lane.users -= 1
            if lane.users == 0:
                self.lanes.pop(tenant, None)

    async def _enter(self, lane: _Lane) -> None:
        if lane.free.locked() and lane.waiting >= self.waiting:
            raise self._crowded()
        lane.waiting += 1
        try:
            async with asyncio.timeout(self.seconds):
                await lane.free.acquire()
        except TimeoutError as error:
            raise self._crowded() from error
        finally:
            lane.waiting -= 1

    def _crowded(self) -> Refusal:
        return Refusal(
            "too many requests of this tenant are under way",
            code="too_many_at_once",
            constraint="requests at once",
            hint="ask again once some of them are answered",
        )
