"""What became of something open, from what the fleet controllers say: pure rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from ppn.fleet.peers import Stage
from ppn.tenant.model import Allocation, Amount
from ppn.tenant.policy import amount_of
from ppn.wire.heartbeat import VmReport

# States in which a node does not say yet whether there is, or will be, such a VM.
UNDECIDED = frozenset({"creating", "unknown"})


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
        uuid: of the very VM that is to be removed: one that is made anew meanwhile is another.
        reason: why, for the log.
    """

    what: Literal["wait", "settle", "forget", "resize", "remove", "gone"]
    amount: Amount | None = None
    uuid: str = ""
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
        return Verdict("gone") if nowhere else _removed(heard)
    if open_one.state == "settled":
        return _changed(open_one, there)
    if there:
        return Verdict("settle")
    if nowhere:
        return Verdict("forget")
    return Verdict("wait", reason="a controller is silent, not sure, or making it")


def _removed(heard: Sequence[View]) -> Verdict:
    """What is removed next: one that is seen somewhere, by the name that no other one has."""
    seen = sorted({view.vm.uuid for view in heard if view.vm is not None and view.vm.uuid})
    if not seen:
        return Verdict("wait", reason="no controller that is heard says which VM it is")
    return Verdict("remove", uuid=seen[0])


def _changed(open_one: Allocation, there: Sequence[View]) -> Verdict:
    """What a VM takes once its change is over, where all who see it agree."""
    amounts = {amount_of(view.vm) for view in there if view.vm is not None and not view.stale}
    if len(amounts) != 1 or any(view.stale for view in there):
        return Verdict("wait", reason="its node is silent, or not all controllers agree")
    amount = amounts.pop()
    if not amount.fits(open_one.held):
        return Verdict("wait", reason="it is larger than anybody asked for")
    return Verdict("resize", amount)


def concluded(open_one: Allocation, verdict: Verdict, now: datetime) -> Allocation | None:
    """What is left of something open once its end is known; None for nothing.

    Args:
        open_one: as it was when it was looked at.
        verdict: `settle`, `resize`, `forget` or `gone`.
        now: the time.
    """
    if verdict.what == "settle":
        return replace(open_one, state="settled", since=now, holders=0)
    if verdict.what == "resize" and verdict.amount is not None:
        return replace(open_one, amount=verdict.amount, pending=None, since=now)
    return None
