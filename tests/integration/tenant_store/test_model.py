"""The store against what truly happens: requests that overlap, end, or vanish, in any order."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import ClassVar, Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ppn.errors import Refusal
from ppn.tenant.model import NOTHING, Allocation, Amount
from ppn.tenant.store import Store
from ppn.tenant.verdict import View, concluded, decide
from tests.unit.tenant.samples import NOW
from tests.unit.tenant.test_sweeper import report

CEILING = Amount(memory_mib=100, vcpus=6, disk_gib=60, vms=3)
LEASE_SECONDS = 10
EXAMPLES = int(os.environ.get("PPN_EXAMPLES", "60"))
# Few, so that an order is often repeated as it was.
amounts = st.sampled_from([Amount(20, 1, 10, 1), Amount(45, 2, 25, 1), Amount(30, 3, 5, 1)])
numbers = st.integers(0, 2)
names = count()


@dataclass
class Request:
    """A request of a proxy that may not have reached the fleet yet.

    Args:
        kind: what it asks for.
        begun: what the store said when it began.
        amount: what its VM shall take.
        until: when it has ended in any case.
        done: whether the fleet did it.
        lost: whether its proxy died.
    """

    kind: Literal["make", "change", "remove"]
    begun: Allocation
    amount: Amount
    until: int
    done: bool = False
    lost: bool = False


class Truth(RuleBasedStateMachine):
    """One tenant's VMs as they are, beside what the store says of them."""

    store: ClassVar[Store]

    def __init__(self) -> None:
        super().__init__()
        self.tenant = f"t{next(names)}"
        self.seconds = 0
        self.vms: dict[str, Amount] = {}
        self.ordered: dict[int, Amount] = {}
        self.requests: list[Request] = []
        self.store.create_tenant(self.tenant, CEILING, now=self.now)

    @property
    def now(self) -> datetime:
        """The time."""
        return NOW + timedelta(seconds=self.seconds)

    @rule(number=numbers, amount=amounts)
    def order(self, number: int, amount: Amount) -> None:
        """A customer asks for a VM."""
        vm = f"vm-{self.tenant}-{number}"
        self.ordered[number] = amount
        used = self.store.tenant(self.tenant).used
        known = {one.vm for one in self.store.allocations(self.tenant)}
        try:
            begun = self.store.reserve(
                self.tenant, vm, amount, lease_seconds=LEASE_SECONDS, now=self.now
            )
        except Refusal as refusal:
            if refusal.code == "quota_exceeded":
                assert vm not in known
                assert not (used + amount).fits(CEILING)
            else:
                assert vm in known
            return
        assert vm in known or (used + amount).fits(CEILING)
        self._begin("make", begun, amount)

    @precondition(lambda self: self.ordered)
    @rule(number=numbers)
    def repeat(self, number: int) -> None:
        """A customer asks again, as before."""
        again = sorted(self.ordered)[number % len(self.ordered)]
        self.order(again, self.ordered[again])

    @rule(number=numbers, amount=amounts)
    def order_and_have(self, number: int, amount: Amount) -> None:
        """A customer asks for a VM, and nothing goes wrong."""
        before = len(self.requests)
        self.order(number, amount)
        if len(self.requests) > before:
            self.reach_the_fleet(before)
            self.answer(before)

    @precondition(lambda self: self.vms)
    @rule(number=numbers, amount=amounts)
    def change(self, number: int, amount: Amount) -> None:
        """A customer asks for other figures."""
        vm = self._any_vm(number)
        try:
            begun = self.store.begin_change(vm, amount, lease_seconds=LEASE_SECONDS, now=self.now)
        except Refusal:
            return
        self._begin("change", begun, amount)

    @precondition(lambda self: self.vms)
    @rule(number=numbers)
    def remove(self, number: int) -> None:
        """A customer asks for the end of a VM."""
        vm = self._any_vm(number)
        try:
            begun = self.store.begin_removal(vm, lease_seconds=LEASE_SECONDS, now=self.now)
        except Refusal:
            return
        self._begin("remove", begun, begun.amount)

    @precondition(lambda self: self.requests)
    @rule(number=numbers)
    def reach_the_fleet(self, number: int) -> None:
        """The fleet does what it is asked, whether anyone still waits or not."""
        request = self._pick(number)
        vm = request.begun.vm
        if request.kind == "make":
            self.vms.setdefault(vm, request.amount)
        elif request.kind == "change" and vm in self.vms:
            self.vms[vm] = request.amount
        elif request.kind == "remove":
            there = self._known(vm)
            # One that its customer sent twice and forgot would take a VM that is made anew.
            if there is None or there.operation == request.begun.operation:
                self.vms.pop(vm, None)
        request.done = True

    @precondition(lambda self: self.requests)
    @rule(number=numbers)
    def answer(self, number: int) -> None:
        """A proxy learns what became of its request: done, or surely never."""
        request = self._pick(number)
        if request.lost:
            return
        self.requests.remove(request)
        begun, vm = request.begun, request.begun.vm
        if request.kind == "change":
            now_takes = request.amount if request.done else begun.amount
            self.store.end_change(begun, now_takes, now=self.now)
        elif request.kind == "remove":
            self.store.end_removal(begun, gone=request.done, now=self.now)
        elif request.done:
            self.store.settle(vm, now=self.now)
        else:
            self.store.release(vm)

    @precondition(lambda self: self.requests)
    @rule(number=numbers)
    def kill_the_proxy(self, number: int) -> None:
        """Nobody waits for a request any more."""
        self._pick(number).lost = True

    @rule(seconds=st.integers(1, LEASE_SECONDS))
    def wait(self, seconds: int) -> None:
        """Time goes by; no request goes on for longer than its lease."""
        self.seconds += seconds
        self.requests = [one for one in self.requests if self.seconds < one.until]

    @rule()
    def sweep(self) -> None:
        """The sweeper looks."""
        for one in self.store.expired(self.now):
            if one.tenant == self.tenant:
                self._end(one)

    @invariant()
    def nothing_runs_uncounted(self) -> None:
        """TEN-08: what runs is never more than what is counted, nor that above the ceiling."""
        held = {one.vm: one.held for one in self.store.allocations(self.tenant)}
        for vm, amount in self.vms.items():
            assert vm in held
            assert amount.fits(held[vm])
        used = self.store.tenant(self.tenant).used
        assert used == sum(held.values(), NOTHING)
        assert used.fits(CEILING)

    def teardown(self) -> None:
        """Once everything has ended and is swept, used is what runs."""
        self.wait(LEASE_SECONDS)
        for _ in range(2):
            self.sweep()
        assert self.requests == []
        assert self.store.tenant(self.tenant).used == sum(self.vms.values(), NOTHING)

    def _begin(
        self, kind: Literal["make", "change", "remove"], begun: Allocation, amount: Amount
    ) -> None:
        until = self.seconds + LEASE_SECONDS
        self.requests.append(Request(kind, begun, amount, until))

    def _pick(self, number: int) -> Request:
        return self.requests[number % len(self.requests)]

    def _any_vm(self, number: int) -> str:
        return sorted(self.vms)[number % len(self.vms)]

    def _known(self, vm: str) -> Allocation | None:
        try:
            return self.store.allocation(self.tenant, vm)
        except Refusal:
            return None

    def _end(self, one: Allocation) -> None:
        amount = self.vms.get(one.vm)
        vm = None if amount is None else report(amount, owner=self.tenant)
        verdict = decide(one, [View(vm=vm)])
        if verdict.what == "remove":
            self.vms.pop(one.vm)
        elif verdict.what != "wait":
            assert self.store.replace(one, concluded(one, verdict, self.now))


def test_what_runs_is_always_counted(store: Store) -> None:
    """TEN-08, TEN-09: whatever overlaps, fails or vanishes, in any order."""
    Truth.store = store
    run_state_machine_as_test(
        Truth, settings=settings(max_examples=EXAMPLES, stateful_step_count=50)
    )
