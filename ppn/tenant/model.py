"""What the tenant store holds, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Literal

Scope = Literal["tenant", "operator"]
State = Literal["reserved", "settled", "removing"]


@dataclass(frozen=True)
class Amount:
    """How much of the pool: a ceiling, what is used, or what one VM takes.

    Args:
        memory_mib: memory in MiB.
        vcpus: virtual CPUs.
        disk_gib: all disks in GiB.
        vms: how many VMs; 1 for what one VM takes.
    """

    memory_mib: int
    vcpus: int
    disk_gib: int
    vms: int

    def __add__(self, other: Amount) -> Amount:
        return Amount(*(mine + its for mine, its in self.pairs(other)))

    def __sub__(self, other: Amount) -> Amount:
        return Amount(*(mine - its for mine, its in self.pairs(other)))

    def fits(self, other: Amount) -> bool:
        """Whether no figure is above the other's."""
        return all(mine <= its for mine, its in self.pairs(other))

    def most(self, other: Amount) -> Amount:
        """The larger of each two figures."""
        return Amount(*(max(mine, its) for mine, its in self.pairs(other)))

    def pairs(self, other: Amount) -> tuple[tuple[int, int], ...]:
        """Each figure beside the other's."""
        return tuple(
            (getattr(self, field.name), getattr(other, field.name)) for field in fields(self)
        )


# A request ends within an hour, whatever the settings say; two proxies' clocks may differ.
LONGEST_LEASE = timedelta(hours=2)
NOTHING = Amount(0, 0, 0, 0)
# What the design gives a tenant for whom nothing else was decided; only ever given when asked for.
DEFAULT_CEILING = Amount(memory_mib=8192, vcpus=8, disk_gib=100, vms=5)


@dataclass(frozen=True)
class Tenant:
    """A customer of the pool.

    Args:
        name: the owner of its VMs.
        ceiling: the most it may have.
        used: what its VMs take now, those that are being made and removed counted in.
        created: when it was provisioned.
    """

    name: str
    ceiling: Amount
    used: Amount
    created: datetime

    @property
    def free(self) -> Amount:
        """What it may still ask for; negative where its ceiling was lowered below what it has."""
        return self.ceiling - self.used


@dataclass(frozen=True)
class Token:
    """A bearer token as the store knows it: all but the secret.

    Args:
        id: its public part, which stands in logs.
        tenant: for whom it speaks; None for an operator's.
        scope: `tenant`, or `operator`, which may act on every tenant's VMs.
        created: when it was issued.
        expires: when it ends; None for never.
        revoked: when it was revoked; None if it was not.
    """

    id: str
    tenant: str | None
    scope: Scope
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Whether it is in force."""
        return self.revoked is None and (self.expires is None or now < self.expires)


@dataclass(frozen=True)
class Allocation:
    """What one VM takes of its tenant's ceiling, and what is going on with it.

    Args:
        vm: its id in the pool.
        tenant: whose.
        amount: what it takes.
        state: `reserved` until it is known to be made, `removing` until nothing of it is left.
        pending: what a change under way will make of it; None without one.
        since: since when it has been in this state, or the change is under way.
        until: when the requests that are at it have ended, whatever became of them; from then on it
            is for the sweeper to find out, and also if it lies beyond every lease: the clock that
            gave it was ahead. None when nothing is under way.
        holders: requests that are at it, and those that ended without saying what became of it.
        operation: a random name of what is under way; another one whenever something begins.
    """

    vm: str
    tenant: str
    amount: Amount
    state: State
    since: datetime
    pending: Amount | None = None
    until: datetime | None = None
    holders: int = 0
    operation: str = ""

    @property
    def held(self) -> Amount:
        """What is counted: the larger of what it takes and what it is about to take."""
        return self.amount if self.pending is None else self.amount.most(self.pending)

    def has_lease(self, now: datetime) -> bool:
        """Whether the time of a request that was at it is not over."""
        return self.until is not None and now < self.until <= now + LONGEST_LEASE

    def is_busy(self, now: datetime) -> bool:
        """Whether a request may be at it just now."""
        return self.holders > 0 and self.has_lease(now)
