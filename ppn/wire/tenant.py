"""What a tenant proxy tells the fleet controllers of its allocations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ppn.wire.model import Owner, VmId, Wire


class AllocationReport(Wire):
    """What a tenant's VM takes of the tenant's ceiling, for reconciliation (REC-02).

    Args:
        vm: its id.
        tenant: whose it is.
        memory_mib: memory in MiB.
        vcpus: virtual CPUs.
        disk_gib: root disk and data disks together, in GiB.
        state: `reserved` until it is known to exist, `removing` until nothing is left of it.
        changing: other figures are being given to it just now.
        since: when it came into this state, RFC 3339 in UTC.
    """

    vm: VmId
    tenant: Owner
    memory_mib: int = Field(ge=0)
    vcpus: int = Field(ge=0)
    disk_gib: int = Field(ge=0)
    state: Literal["reserved", "settled", "removing"]
    changing: bool = False
    since: str


class AllocationList(Wire):
    """The answer to `GET /v1/allocations`: all of them, by VM id."""

    allocations: Annotated[tuple[AllocationReport, ...], Field(strict=False, max_length=1 << 20)]
