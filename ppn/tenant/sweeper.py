"""Finds out what became of what no request is at any more, and says so to the store.

A proxy that dies, or a controller that does not answer in time, leaves a reservation, a change or a
removal open. It stays counted until every fleet controller has said how it ended: nothing that may
still run is ever freed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import IPv4Address
from typing import Any, Literal, cast

import httpx
import structlog
from pydantic import ValidationError

from ppn.errors import PpnError
from ppn.fleet.peers import Stage
from ppn.pool.tls import NO_TLS
from ppn.tenant.model import Allocation, Amount
from ppn.tenant.policy import amount_of
from ppn.tenant.store import Store
from ppn.wire.heartbeat import VmReport
from ppn.wire.model import CORRELATION_HEADER
from ppn.wire.problems import ProblemBody

LOOK_SECONDS = 5.0
REMOVE_SECONDS = 60.0
AT_ONCE = 8
# States in which a node does not say yet whether there is, or will be, such a VM.
UNDECIDED = frozenset({"creating", "unknown"})

log = structlog.get_logger("sweeper")


@dataclass(frozen=True)
class View:
    """What one controller says of a VM.

    Args:
        stage: how far it is with making it; None when it has nothing to do with it.
        vm: the VM as its node reported it; None when every node says that it has none.
        stale: that node has not been heard of lately.
    """

    stage: Stage | None = None
    vm: VmReport | None = None
    stale: bool = False

    @property
    def is_nothing(self) -> bool:
        """Whether it neither knows of such a VM, nor is about to have it made."""
        return self.vm is None and self.stage in (None, "told")


@dataclass(frozen=True)
class Verdict:
    """What is to be done about something open.

    Args:
        what: `wait` for another look; `settle` a VM that is there; `forget` one that was surely
            never made; `resize` to what it takes now; `remove` what is still there; `gone` when
            nothing of it is left.
        amount: what it takes, for `resize`.
        reason: why, for the log.
    """

    what: Literal["wait", "settle", "forget", "resize", "remove", "gone"]
    amount: Amount | None = None
    reason: str = ""


def decide(open_one: Allocation, views: Sequence[View | None]) -> Verdict:
    """What became of something open.

    Args:
        open_one: a reservation, change or removal at which no request is any more.
        views: what every controller of the pool says; None for one that does not say.
    """
    heard = [view for view in views if view is not None]
    nowhere = len(heard) == len(views) and all(view.is_nothing for view in heard)
    if any(view.vm is not None and view.vm.owner != open_one.tenant for view in heard):
        return Verdict("wait", reason="a VM of this id belongs to somebody else")
    there = [view for view in heard if view.vm is not None and view.vm.state not in UNDECIDED]
    if open_one.state == "removing":
        return Verdict("gone") if nowhere else Verdict("remove")
    if open_one.state == "settled":
        return _changed(open_one, there)
    if there:
        return Verdict("settle")
    if nowhere:
        return Verdict("forget")
    return Verdict("wait", reason="a controller is silent, not sure, or making it")


def _changed(open_one: Allocation, there: Sequence[View]) -> Verdict:
    """What a VM takes once its change is over, where all who see it agree."""
    amounts = {amount_of(view.vm) for view in there if view.vm is not None and not view.stale}
    if len(amounts) != 1 or any(view.stale for view in there):
        return Verdict("wait", reason="its node is silent, or not all controllers agree")
    amount = amounts.pop()
    if not amount.fits(open_one.held):
        return Verdict("wait", reason="it is larger than anybody asked for")
    return Verdict("resize", amount)


@dataclass
class Sweeper:
    """Brings everything open in the store to its end; any number may run at once.

    Args:
        store: where it is open.
        controllers: base URLs of every fleet controller of the pool.
        address: the mesh address to ask from; None for any.
        clock: the time, as the store's leases count it.
    """

    store: Store
    controllers: Sequence[str]
    address: IPv4Address | None
    clock: Callable[[], datetime]

    async def run(self, seconds: float) -> None:
        """Go on for ever.

        Args:
            seconds: between two looks.
        """
        while True:
            try:
                await self.sweep()
            except PpnError as error:
                log.warning("not swept", error=str(error))
            await asyncio.sleep(seconds)

    async def sweep(self) -> int:
        """Look once at everything open; returns how much still is.

        Raises:
            StoreUnavailable: the store cannot be used.
        """
        expired = await asyncio.to_thread(self.store.expired, self.clock())
        if not expired:
            return 0
        gate = asyncio.Semaphore(AT_ONCE)
        source = str(self.address) if self.address is not None else None
        transport = httpx.AsyncHTTPTransport(verify=NO_TLS, local_address=source)
        async with httpx.AsyncClient(transport=transport, timeout=LOOK_SECONDS) as client:

            async def end(one: Allocation) -> bool:
                async with gate:
                    return await self._end(client, one)

            ended = await asyncio.gather(*(end(one) for one in expired))
        return ended.count(False)

    async def _end(self, client: httpx.AsyncClient, one: Allocation) -> bool:
        """Whether something open came to its end."""
        ask = Asking(client, one)
        verdict = decide(one, await ask.views(self.controllers))
        log.info("swept", vm=one.vm, tenant=one.tenant, state=one.state, what=verdict.what,
                 reason=verdict.reason)  # fmt: skip
        if verdict.what == "remove" and await asyncio.to_thread(self._is_still_open, one):
            # What it did is seen at the next look.
            await ask.remove(self.controllers)
        if verdict.what in ("wait", "remove"):
            return False
        try:
            await asyncio.to_thread(self._say, one, verdict)
        except PpnError as error:
            log.warning("not swept", vm=one.vm, error=str(error))
            return False
        return True

    def _is_still_open(self, one: Allocation) -> bool:
        """Whether a removal is under way still, and nothing else of the same id since."""
        try:
            return self.store.allocation(one.tenant, one.vm).operation == one.operation
        except PpnError as error:
            log.info("not removed", vm=one.vm, error=str(error))
            return False

    def _say(self, one: Allocation, verdict: Verdict) -> None:
        now = self.clock()
        if verdict.what == "settle":
            self.store.settle(one.vm, now=now)
        elif verdict.what == "forget":
            self.store.forget(one, now=now)
        elif verdict.what == "gone":
            self.store.end_removal(one, gone=True, now=now)
        elif verdict.amount is not None:
            self.store.end_change(one, verdict.amount, now=now)


@dataclass(frozen=True)
class Answer:
    """A controller's answer: `said` when it is one, with a body unless it knows no such VM."""

    said: bool
    body: dict[str, Any] | None = None


@dataclass(frozen=True)
class Asking:
    """Questions to the fleet controllers about one VM.

    Args:
        client: speaks HTTP.
        about: the allocation of the VM.
    """

    client: httpx.AsyncClient
    about: Allocation

    async def views(self, controllers: Sequence[str]) -> list[View | None]:
        """What each controller says; None for one that does not.

        First what all of them are making: one that ends between the two questions is found by the
        second, and the other way round it would be missed.
        """
        vm = self.about.vm
        stages = await asyncio.gather(*(self._get(f"{url}/v1/intents/{vm}") for url in controllers))
        founds = await asyncio.gather(*(self._get(f"{url}/v1/vms/{vm}") for url in controllers))
        return [_view(stage, found) for stage, found in zip(stages, founds, strict=True)]

    async def remove(self, controllers: Sequence[str]) -> None:
        """Ask for the removal, one controller after the other, until one has done it."""
        for url in controllers:
            answer = await self._ask("DELETE", f"{url}/v1/vms/{self.about.vm}", REMOVE_SECONDS)
            if answer.said and answer.body is not None:
                return

    async def _get(self, url: str) -> Answer:
        return await self._ask("GET", url, LOOK_SECONDS)

    async def _ask(self, method: str, url: str, seconds: float) -> Answer:
        headers = {CORRELATION_HEADER: f"sweep-{self.about.operation}"}
        try:
            answer = await self.client.request(method, url, headers=headers, timeout=seconds)
            if answer.is_success:
                return Answer(said=True, body=answer.json())
            problem = ProblemBody.model_validate_json(answer.content)
        except (httpx.HTTPError, ValueError) as error:
            log.warning("controller not asked", url=url, error=str(error))
            return Answer(said=False)
        return Answer(said=problem.code == "vm_unknown")


def _view(stage: Answer, found: Answer) -> View | None:
    if not stage.said or not found.said:
        return None
    view = View(cast(Stage, stage.body.get("stage", "going")) if stage.body else None)
    if found.body is None:
        return view
    try:
        report = VmReport.model_validate(found.body.get("vm"), strict=False)
    except ValidationError as error:
        log.warning("answer not understood", error=str(error))
        return None
    return replace(view, vm=report, stale=found.body.get("stale", False))
