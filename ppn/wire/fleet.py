"""What the fleet controller is asked over HTTP and what it answers."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator

from ppn.host.spec import IMAGE_PATTERN, Disk
from ppn.wire.heartbeat import MANY, Alert, VmReport
from ppn.wire.model import NodeName, Owner, PciAddress, VmId, Wire
from ppn.wire.problems import NodeRefusal, ProblemBody

PolicyName = Literal["spread", "pack", "kvm-first"]
LABEL_KEY = r"^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?$"
MAX_BATCH = 64


class WantedPort(Wire):
    """A guest port that the mesh shall reach; the node chooses its own when `host` is None."""

    guest: int = Field(ge=1, le=65535)
    protocol: Literal["tcp", "udp"] = "tcp"
    host: int | None = Field(default=None, ge=1, le=65535)


class WantedVm(Wire):
    """A VM as it is asked for; where it goes is for the controller to decide.

    Args:
        image: name of a guest image; a node that has it not is no candidate.
        vcpus: virtual CPUs.
        memory_mib: memory in MiB.
        disk_gib: root disk in GiB.
        disks: data disks.
        ports: guest ports the mesh shall reach.
        label: an opaque word of the owner's; VMs with the same one are near (or far from) it.
        affinity: only nodes that hold a VM of this owner with this label.
        anti_affinity: only nodes that hold no VM of this owner with this label.
        kvm: prefer nodes with usable KVM; a node without is taken when no other fits.
        policy: how to choose between nodes that fit.
        name: what the guest calls itself; its id when not given.
    """

    image: str = Field(pattern=IMAGE_PATTERN)
    vcpus: int = Field(ge=1, le=512)
    memory_mib: int = Field(ge=64, le=64 * 1024 * 1024)
    disk_gib: int = Field(default=1, ge=1, le=65536)
    disks: Annotated[tuple[Disk, ...], Field(strict=False, max_length=16)] = ()
    ports: Annotated[tuple[WantedPort, ...], Field(strict=False, max_length=32)] = ()
    label: str = Field(default="", max_length=256)
    affinity: str = Field(default="", max_length=256)
    anti_affinity: str = Field(default="", max_length=256)
    kvm: bool = True
    policy: PolicyName = "spread"
    name: str | None = Field(default=None, max_length=253)
    ssh_keys: Annotated[tuple[str, ...], Field(strict=False, max_length=64)] = ()
    user_data: dict[str, JsonValue] | None = None

    @field_validator("user_data")
    @classmethod
    def _check_sendable(cls, data: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        try:
            json.dumps(data, allow_nan=False, ensure_ascii=False).encode()
        except ValueError as error:
            raise ValueError("holds what JSON cannot say: a number or a character") from error
        return data


class VmOrder(WantedVm):
    """A VM as it is asked for, and the tenant it is for."""

    owner: Owner


class BatchOrder(Wire):
    """Several VMs at once: all of them or none, unless `per_item` (FLEET-12)."""

    vms: Annotated[tuple[VmOrder, ...], Field(strict=False, min_length=1, max_length=MAX_BATCH)]
    per_item: bool = False


class ResizeOrder(Wire):
    """Other figures for a stopped VM; None leaves one as it is."""

    memory_mib: int | None = Field(default=None, ge=64, le=64 * 1024 * 1024)
    vcpus: int | None = Field(default=None, ge=1, le=512)


class NvmeOrder(Wire):
    """A whole NVMe drive of the node a VM is on, by its PCI address there."""

    address: PciAddress


class MoveOrder(Wire):
    """The node a VM shall move to."""

    node: NodeName


class MoveReport(Wire):
    """How far a VM's move is.

    Args:
        id: the VM.
        move: the move's own id.
        source: the node it comes from.
        node: the node it goes to.
        stage: what is done now, in a word.
        bytes_done: of the present stage.
        bytes_total: of the present stage; 0 while that is not known.
        outcome: `done` once it is the new node's own; `failed` once it is the old one's again.
        problem: why it failed, or why the VM does not run where it is now.
        vm: the VM where it is now; None while it is between the two.
    """

    id: VmId
    move: str
    source: str
    node: str
    stage: str
    bytes_done: int = 0
    bytes_total: int = 0
    outcome: Literal["going", "done", "failed"] = "going"
    problem: ProblemBody | None = None
    vm: VmReport | None = None


class EndOrder(Wire):
    """What an operator says of a move that is lost; names each of its two nodes once.

    Args:
        keep: the node that has the VM from now on; None for none.
        gone: nodes that do not have it any more; what is left of it there is removed.
    """

    keep: NodeName | None = None
    gone: Annotated[tuple[NodeName, ...], Field(strict=False, min_length=1, max_length=2)]


class PartFound(Wire):
    """What one node of a move has of its VM.

    Args:
        node: its name.
        stage: how far it is, see `MoveView`; `silent` when it does not say, `left` when it is not
            in the inventory any more.
        vm: a VM of this id that is its own.
    """

    node: str
    stage: str
    vm: VmReport | None = None


class LostMove(Wire):
    """What the two nodes of a move have of its VM, and how an operator may end it.

    Args:
        id: the VM.
        move: the move's own id.
        source: the node it comes from.
        destination: the node it goes to.
        ends: what may be said; none where the move is not lost.
    """

    id: VmId
    move: str
    source: PartFound
    destination: PartFound
    ends: Annotated[tuple[EndOrder, ...], MANY] = ()


class PlacedVm(Wire):
    """A VM and the node it is on; `stale` when that node has not been heard of lately."""

    node: NodeName
    stale: bool = False
    vm: VmReport


class BatchItem(Wire):
    """What became of one VM of a batch: the VM, or the problem."""

    id: VmId
    placed: PlacedVm | None = None
    problem: ProblemBody | None = None


class BatchAnswer(Wire):
    """What became of a batch, item by item, in the order asked."""

    id: str
    items: Annotated[tuple[BatchItem, ...], MANY]


class NodeReport(Wire):
    """A node as the controller sees it: what it reported, less what was placed there since.

    Args:
        name: the node.
        age_seconds: since its last heartbeat, by the controller's own clock; None before the first.
        stale: no candidate until it is heard of again.
        reserved: candidate only when no other node fits.
        kvm: guests run under KVM here.
        vms: how many it holds.
        free_vcpus: what may still be placed there.
        free_memory_mib: what may still be placed there, the placement margin taken off.
        free_disk_mib: what may still be placed there.
    """

    name: NodeName
    age_seconds: float | None
    stale: bool
    reserved: bool
    kvm: bool
    kvm_reason: str
    vms: int
    vcpus: int
    free_vcpus: int
    memory_mib: int
    free_memory_mib: int
    free_disk_mib: int
    alerts: Annotated[tuple[Alert, ...], MANY] = ()


class FleetReport(Wire):
    """The whole pool at a glance."""

    controller: NodeName
    nodes: int
    live: int
    vms: int
    vcpus: int
    free_vcpus: int
    memory_mib: int
    free_memory_mib: int
    alerts: int


class OpenIntent(Wire):
    """A VM that a controller is having made, and the node it was placed on."""

    id: VmId
    node: NodeName


class Decision(Wire):
    """A controller's last decision on a VM: where it went, or why nowhere, and why not elsewhere.

    Args:
        id: the VM.
        at: when, RFC 3339 in UTC.
        node: where it went; None when no node was found.
        policy: how to choose between nodes that fit.
        passed: the pass of placement that found the node.
        candidates: nodes that were heard lately.
        tried: nodes that were asked to make it, in that order.
        refused: of each other node why not, the first of them by name.
        left_out: how many more there are.
        problem: what the order ended with; None when it was carried out or still is.
    """

    id: VmId
    at: str
    node: NodeName | None
    policy: PolicyName
    passed: Literal["non-reserved", "reserved", "none"]
    candidates: int
    tried: Annotated[tuple[NodeName, ...], MANY] = ()
    refused: Annotated[tuple[NodeRefusal, ...], MANY] = ()
    left_out: int = 0
    problem: ProblemBody | None = None
