"""What the agent tells of its node: pure functions from the state to the wire."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from ppn.host.apply import Outcome
from ppn.host.forecast import with_in_flight
from ppn.host.lease import Lease
from ppn.host.model import IN_TRANSIT, NodeNetwork, NodeState, Topology, VmView
from ppn.host.spec import VmSpec
from ppn.wire.agent import Changed
from ppn.wire.heartbeat import Alert, Heartbeat, Port, VmNetwork, VmReport, VmState

# What a VM is called whose owner neither its sidecar nor its domain can tell.
NOBODY = "unknown"


def heartbeat(
    node: NodeState,
    *,
    name: str,
    session: str,
    sequence: int,
    in_flight: Iterable[VmSpec] = (),
    alerts: tuple[Alert, ...] = (),
    settling: Container[str] = frozenset(),
) -> Heartbeat:
    """The node as the controllers shall see it (HOST-06, HOST-08).

    Args:
        node: the node as it is.
        name: its name in the inventory.
        session: drawn when the agent started.
        sequence: counts up within the session.
        in_flight: VMs that operations are changing, as they shall be.
        alerts: what is not as it should be.
        settling: VMs whose memory still moves.
    """
    going = {spec.name: spec for spec in in_flight}
    counted = with_in_flight(node, going.values())
    return Heartbeat(
        node=name,
        session=session,
        sequence=sequence,
        reserved=node.settings.reserved,
        allow_odd_vcpus=node.settings.allow_odd_vcpus,
        kvm=node.kvm,
        topology=_brief(node.topology),
        pool=counted.pool,
        disk=counted.disk,
        cpu_usage=node.cpu_usage,
        blocks=node.blocks,
        network=_network(node.network) if node.network is not None else None,
        images=node.images,
        vms=(*(vm_report(vm, settling) for vm in node.vms), *_in_the_making(node, going)),
        alerts=alerts,
    )


def vm_report(vm: VmView, settling: Container[str] = frozenset()) -> VmReport:
    """A VM as its node reports it.

    Args:
        vm: the VM as it is.
        settling: VMs whose memory still moves.
    """
    spec = vm.spec
    return VmReport(
        id=vm.name,
        owner=vm.owner or NOBODY,
        state=_state(vm, settling),
        uuid=vm.uuid,
        created=vm.created,
        image=spec.image if spec is not None else "",
        label=spec.label if spec is not None else "",
        vcpus=spec.vcpus if spec is not None else 0,
        memory_mib=vm.memory.maximum_mib,
        current_mib=vm.memory.current_mib,
        minimum_mib=vm.memory.minimum_mib,
        cpu_seconds=vm.cpu_seconds,
        disk_gib=spec.disk_gib if spec is not None else 0,
        disks=spec.disks if spec is not None else (),
        drives=vm.drives,
        address=vm.lease.address if vm.lease is not None else None,
        ports=_ports(vm.lease) if vm.lease is not None else (),
        accelerator=vm.accelerator,
        weight=vm.weight.actual,
        problems=tuple(problem.code for problem in vm.problems),
    )


def _state(vm: VmView, settling: Container[str]) -> VmState:
    if vm.phase == "creating":
        return "creating"
    if vm.phase in IN_TRANSIT:
        return "arriving" if vm.phase == "arriving" else "moving"
    return "stabilising" if vm.state == "running" and vm.name in settling else vm.state


def _network(network: NodeNetwork) -> VmNetwork:
    return VmNetwork(
        range=network.range, first_port=network.first_port, last_port=network.last_port
    )


def _ports(lease: Lease) -> tuple[Port, ...]:
    return tuple(
        Port(guest=port.guest, protocol=port.protocol, host=port.host) for port in lease.ports
    )


def changed(outcome: Outcome, settling: Container[str] = frozenset()) -> dict[str, Any]:
    """What a change did, as its caller reads it.

    Args:
        outcome: of the change.
        settling: VMs whose memory still moves.
    """
    return told(tuple(map(str, outcome.actions)), outcome.vm, settling, outcome.warnings)


def told(
    actions: tuple[str, ...],
    vm: VmView | None,
    settling: Container[str] = frozenset(),
    warnings: tuple[str, ...] = (),
) -> dict[str, Any]:
    """What was done to a VM, as its caller reads it.

    Args:
        actions: the steps taken, in words.
        vm: the VM as it is now; None when it is gone.
        settling: VMs whose memory still moves.
        warnings: what went another way than wanted, in words.
    """
    return Changed(
        changed=bool(actions),
        actions=actions,
        vm=vm_report(vm, settling) if vm is not None else None,
        warnings=warnings,
    ).model_dump(mode="json")


def _brief(topology: Topology) -> Topology:
    """Without what only the plan of CPUs reads: on a large node it is most of a heartbeat."""
    sockets = tuple(socket.model_copy(update={"threads": ()}) for socket in topology.sockets)
    return topology.model_copy(update={"sockets": sockets})


def _in_the_making(node: NodeState, going: Mapping[str, VmSpec]) -> Iterable[VmReport]:
    """VMs that are admitted and of which nothing is on the node yet."""
    for spec in going.values():
        if node.vm(spec.name) is None and spec.state != "absent":
            yield VmReport(
                id=spec.name,
                owner=spec.owner,
                state="creating",
                image=spec.image,
                label=spec.label,
                vcpus=spec.vcpus,
                memory_mib=spec.memory_mib,
                minimum_mib=spec.memory_mib,
                disk_gib=spec.disk_gib,
                disks=spec.disks,
                address=spec.address,
            )
