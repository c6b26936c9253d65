"""What a tenant may have: pure rules over its ceiling and what it uses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Protocol

from ppn.errors import Refusal
from ppn.host.spec import NAME_PATTERN, OWNER_PATTERN, Disk
from ppn.tenant.model import Amount

# Far above any pool, and far below what a column of 64 bits holds, even as a sum.
MOST = 2**40
# The pool's own VMs, and those whose owner no node can tell: a tenant called so would be given
# them, and reconciliation would pass over its own.
RESERVED_NAMES = frozenset({"operator", "unknown"})
TITLES = {
    "memory_mib": ("memory", "MiB"),
    "vcpus": ("vCPUs", "vCPU"),
    "disk_gib": ("disk", "GiB"),
    "vms": ("number of VMs", "VM"),
}


class Sized(Protocol):
    """What has the figures of a VM: an order for one, or a node's report of one."""

    @property
    def memory_mib(self) -> int: ...
    @property
    def vcpus(self) -> int: ...
    @property
    def disk_gib(self) -> int: ...
    @property
    def disks(self) -> Sequence[Disk]: ...


def amount_of(vm: Sized) -> Amount:
    """What a VM takes of its tenant's ceiling, all its disks counted at their full size."""
    disk_gib = vm.disk_gib + sum(disk.size_gib for disk in vm.disks)
    return Amount(vm.memory_mib, vm.vcpus, disk_gib, vms=1)


def admit(ceiling: Amount, used: Amount, wanted: Amount) -> None:
    """Refuse what would take a tenant above its ceiling; equal to it is allowed.

    Args:
        ceiling: the most the tenant may have.
        used: what it has.
        wanted: how much more; a figure that does not grow is not judged, so that a tenant above a
            lowered ceiling may still ask for less.

    Raises:
        Refusal: `quota_exceeded`, with the first figure that is too much.
    """
    free = ceiling - used
    for name, (title, unit) in TITLES.items():
        more, left = getattr(wanted, name), getattr(free, name)
        if more > 0 and more > left:
            raise Refusal(
                f"the tenant's ceiling for {title} is {getattr(ceiling, name)} {unit}, "
                f"and {getattr(used, name)} {unit} are taken",
                code="quota_exceeded",
                constraint=f"tenant ceiling: {title}",
                wanted=more,
                free=max(left, 0),
                unit=unit,
                hint="destroy VMs you do not need, ask for less, or ask the operator for more",
            )


def check_ceiling(ceiling: Amount) -> None:
    """Refuse a ceiling that is none.

    Raises:
        Refusal: `amount_invalid`: a figure that is no whole number, or not from 1 to `MOST`.
    """
    for field in fields(ceiling):
        _check_figure(field.name, getattr(ceiling, field.name))


def check_wanted(wanted: Amount) -> None:
    """Refuse an amount that one VM cannot have.

    Raises:
        Refusal: `amount_invalid`.
    """
    check_ceiling(wanted)
    if wanted.vms != 1:
        raise _invalid(f"vms is {wanted.vms}, and one VM is one VM", wanted.vms, 1, "VM")


def check_tenant_name(name: str) -> None:
    """Refuse a name that cannot be the owner of VMs.

    Raises:
        Refusal: `tenant_name_invalid`.
    """
    if name in RESERVED_NAMES or not re.fullmatch(OWNER_PATTERN, name):
        raise Refusal(
            f"{name[:80]!r} cannot be a tenant's name",
            code="tenant_name_invalid",
            constraint="1 to 64 letters, digits and ._@-, a letter or digit first",
            hint="choose another name; `operator` and `unknown` are the pool's own",
        )


def check_vm_id(vm: str) -> None:
    """Refuse what cannot be a VM's id.

    Raises:
        Refusal: `vm_id_invalid`.
    """
    if not re.fullmatch(NAME_PATTERN, vm):
        raise Refusal(
            f"{vm[:80]!r} is no id of a VM",
            code="vm_id_invalid",
            constraint="name of a VM",
            hint="list the VMs",
        )


def _check_figure(name: str, figure: object) -> None:
    unit = TITLES[name][1]
    # A bool is an int to Python, and no amount of anything.
    if not isinstance(figure, int) or isinstance(figure, bool):
        raise _invalid(f"{name} is no whole number", 0, MOST, unit)
    if not 1 <= figure <= MOST:
        raise _invalid(f"{name} is {figure}, which is not from 1 to {MOST}", figure, MOST, unit)


def _invalid(message: str, wanted: int, free: int, unit: str) -> Refusal:
    return Refusal(
        message,
        code="amount_invalid",
        constraint="sensible amount",
        wanted=wanted,
        free=free,
        unit=unit,
        hint="give whole numbers of at least 1",
    )
