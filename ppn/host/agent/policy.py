"""Whom the agent serves, and what a change makes of a VM: pure."""

from __future__ import annotations

from collections.abc import Container
from enum import StrEnum

from ppn.errors import Refusal
from ppn.host.model import NodeState, VmView
from ppn.host.spec import Disk, VmSpec, spec_from_data
from ppn.wire.agent import (
    Attach,
    Change,
    Destroy,
    Operation,
    Resize,
    RootOnly,
    Spawn,
    Start,
    Stop,
    Ticket,
)

# Changes that a spec can say; detaching and what is done with drives none can.
Making = Spawn | Destroy | Stop | Start | Resize | Attach


class Role(StrEnum):
    """Who speaks on a connection, by the user id the kernel vouches for."""

    ROOT = "root"
    PROXY = "proxy"


def role_of(uid: int, proxy_uid: int | None) -> Role | None:
    """The role of a user; None for one who is not to be served (NP-08)."""
    if uid == 0:
        return Role.ROOT
    return Role.PROXY if uid == proxy_uid else None


def check_operation(role: Role, body: Operation) -> None:
    """Refuse what a role may never ask for (FLEET-21).

    Raises:
        Refusal: `forbidden`.
    """
    if role is not Role.ROOT and isinstance(body, RootOnly):
        raise Refusal(
            f"operation {body.operation} is for root on the node alone",
            code="forbidden",
            constraint="node-local operation",
            hint="run ppn host on the node, as root",
        )


def needs_ticket(role: Role, body: Operation) -> bool:
    """Whether a controller's decision must be shown (HOST-02); root decides for itself."""
    return role is not Role.ROOT and isinstance(body, Change)


def check_ticket(ticket: Ticket | None, *, node: str, session: str, used: Container[str]) -> Ticket:
    """The ticket, if it is for this node and session and was never seen before (HOST-02).

    Args:
        ticket: what came with the request.
        node: this node's name.
        session: the agent's present session.
        used: the nonces this session has seen.

    Raises:
        Refusal: `ticket_refused`, with the reason.
    """
    if ticket is None:
        reason = "a change needs the ticket of a fleet controller"
    elif ticket.node != node:
        reason = f"the ticket is for node {ticket.node}, this is {node}"
    elif ticket.session != session:
        reason = "the ticket is for another session of the agent"
    elif ticket.nonce in used:
        reason = "the ticket was used before"
    else:
        return ticket
    raise Refusal(
        reason,
        code="ticket_refused",
        constraint="placement ticket",
        hint="ask the fleet controller, which places the VM and writes a new ticket",
    )


def wanted(change: Making, node: NodeState) -> VmSpec:
    """What a change makes of its VM; the VM's present spec when there is nothing to do.

    Args:
        change: what is asked.
        node: the node as it is now.

    Raises:
        Refusal: the VM is not known, is another's or another one, or has no readable sidecar.
        SpecInvalid: the VM would break the rules of its description.
    """
    if isinstance(change, Spawn):
        return _spawned(change.vm, node.vm(change.vm.name))
    if isinstance(change, Destroy):
        actual = node.vm(change.vm)
        if actual is not None and change.uuid not in (None, actual.uuid):
            raise replaced(actual)
        return removal(change.vm, actual)
    spec = _spec(known(change.vm, node))
    match change:
        case Stop():
            return spec.model_copy(update={"state": "stopped"})
        case Start():
            return spec.model_copy(update={"state": "running"})
        case Resize():
            return _resized(change, spec)
        case Attach():
            return _attached(change.disk, spec)


def removal(name: str, actual: VmView | None) -> VmSpec:
    """The spec of a VM that shall not be; its figures matter to nobody.

    Args:
        name: the VM.
        actual: the VM as it is; None when there is none.
    """
    if actual is not None and actual.spec is not None:
        return actual.spec.model_copy(update={"state": "absent"})
    return VmSpec(name=name, state="absent", image="none", vcpus=1, memory_mib=64, hostname=name)


def _spawned(spec: VmSpec, actual: VmView | None) -> VmSpec:
    if spec.state == "absent":
        raise Refusal(
            f"vm {spec.name}: a spawn cannot ask for state absent",
            code="request_invalid",
            constraint="wire contract",
            hint="destroy the VM instead",
        )
    if actual is None or actual.spec is None or actual.phase != "ready":
        return spec
    if actual.order == spec.digest() and actual.owner == spec.owner:
        return actual.spec
    raise Refusal(
        f"vm {spec.name} exists and was ordered otherwise",
        code="vm_exists",
        constraint="VM name",
        hint="repeat the order as it was, or choose another name",
    )


def known(name: str, node: NodeState) -> VmView:
    """A VM of which all is known.

    Raises:
        Refusal: it is not here, or has no readable sidecar.
    """
    actual = node.vm(name)
    if actual is None:
        raise unknown(name)
    _spec(actual)
    return actual


def _spec(actual: VmView) -> VmSpec:
    if actual.spec is None:
        raise Refusal(
            f"vm {actual.name}: its sidecar is {actual.sidecar}, so what it was cannot be known",
            code=f"sidecar_{actual.sidecar}",
            constraint="VM sidecar",
            hint="put the sidecar back, or destroy the vm, which removes its disks",
        )
    return actual.spec


def unknown(name: str, why: str = "") -> Refusal:
    """The refusal of a VM that is not here.

    Args:
        name: the VM.
        why: what became of it, in words.
    """
    return Refusal(
        f"vm {name} is not on this node" + (f"; {why}" if why else ""),
        code="vm_unknown",
        constraint="known VM",
        hint="list the node's VMs",
    )


def replaced(actual: VmView) -> Refusal:
    """The refusal to remove a VM that is not the one that was meant, but has its id."""
    return Refusal(
        f"vm {actual.name} is another one than was to be removed: its UUID is {actual.uuid}",
        code="vm_replaced",
        constraint="UUID of the VM",
        hint="the one that was meant is gone already; look at this one before it is removed too",
    )


def _resized(change: Resize, spec: VmSpec) -> VmSpec:
    given = {"memory_mib": change.memory_mib, "vcpus": change.vcpus}
    new = {field: value for field, value in given.items() if value is not None}
    return spec.model_copy(update=new)


def _attached(disk: Disk, spec: VmSpec) -> VmSpec:
    present = next((other for other in spec.disks if other.name == disk.name), None)
    if present == disk:
        return spec
    if present is not None:
        raise Refusal(
            f"vm {spec.name} has a disk {disk.name} of another size",
            code="disk_exists",
            constraint=f"disk {disk.name}",
            wanted=disk.size_gib,
            free=present.size_gib,
            unit="GiB",
            hint="choose another name",
        )
    fields = spec.model_dump()
    # Read anew, for a copy would not check how many disks there may be.
    return spec_from_data(fields | {"disks": [*fields["disks"], disk.model_dump()]})
