"""What the tenant proxy is asked over HTTP and what it answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ppn.host.spec import Disk
from ppn.wire.agent import Step
from ppn.wire.fleet import WantedVm
from ppn.wire.heartbeat import MANY, VmState
from ppn.wire.model import Owner, VmId, Wire

TenantState = VmState | Literal["removing"]


class TenantOrder(WantedVm):
    """A VM as a tenant asks for it: whose it is, its token says, and nothing else (TEN-04)."""


class OpenPort(Wire):
    """A port of the guest that the pool's nodes reach; where they do is no tenant's concern."""

    guest: int = Field(ge=1, le=65535)
    protocol: Literal["tcp", "udp"] = "tcp"


class TenantVm(Wire):
    """A tenant's VM, with nothing in it that tells of the node it is on (INV-03).

    Args:
        id: its id in the pool.
        owner: the tenant.
        state: `creating` until it first ran; `removing` from the order to remove it on; `unknown`
            while its node is not heard.
        created: when it was first asked for, RFC 3339 in UTC.
        disks: data disks.
        stale: the pool has not heard of it lately; this is how it was.
    """

    id: VmId
    owner: Owner
    state: TenantState
    created: str = ""
    image: str = ""
    label: str = ""
    vcpus: int = Field(ge=0)
    memory_mib: int = Field(ge=0)
    disk_gib: int = Field(default=0, ge=0)
    disks: Annotated[tuple[Disk, ...], MANY] = ()
    ports: Annotated[tuple[OpenPort, ...], MANY] = ()
    stale: bool = False


class OwnVm(Wire):
    """One of a tenant's VMs; `changed` is false when a change found it as it shall be."""

    vm: TenantVm
    changed: bool = False


class Removed(Wire):
    """A VM of which nothing is left."""

    id: VmId


class TenantOperation(Wire):
    """An operation on a VM with the times of its steps.

    Args:
        began: RFC 3339 in UTC.
        code: of the error it failed with.
    """

    operation: str
    correlation_id: str
    began: str
    outcome: str
    code: str = ""
    steps: Annotated[tuple[Step, ...], MANY] = ()


class TenantTimeline(Wire):
    """A VM's last operations, the oldest first."""

    vm: VmId
    operations: Annotated[tuple[TenantOperation, ...], MANY] = ()


class TenantConsole(Wire):
    """The end of a guest's serial output, of `size_bytes` in all."""

    vm: VmId
    text: str
    size_bytes: int


class Figures(Wire):
    """What a quota counts."""

    memory_mib: int = Field(ge=0)
    vcpus: int = Field(ge=0)
    disk_gib: int = Field(ge=0)
    vms: int = Field(ge=0)


class QuotaReport(Wire):
    """A tenant's ceiling, and what of it is taken (TEN-07)."""

    tenant: Owner
    ceiling: Figures
    used: Figures


def _moment(text: str) -> str:
    """A text that is a moment, with its offset from UTC."""
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("the moment has no offset from UTC")
    return text


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
    since: Annotated[str, AfterValidator(_moment)]


class AllocationList(Wire):
    """The answer to `GET /v1/allocations`: all of them, by VM id."""

    allocations: Annotated[tuple[AllocationReport, ...], Field(strict=False, max_length=1 << 20)]
