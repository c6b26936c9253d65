"""What a move makes of a VM's sidecar on either node: pure, and the whole safety of a move.

A sidecar is replaced in one step, so each of these is one durable decision:

    source        ready -> moving -> moved -> (no sidecar)
                             |          `-> ready (reclaimed: an operator says so)
                             `-> ready (back)
    destination   (no sidecar) -> arriving -> arriving, verified -> ready (settled)
                                     `-> (no sidecar)

A node can run a VM in `creating` and `ready` alone. The source's step from `moving` is the one that
decides: `back` and `commit` exclude each other there. The destination settles only what it is told
to, and it is told so only by who has seen `moved`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ppn.errors import Refusal
from ppn.host.model import IN_TRANSIT, LedgerGrant, NodeState, VmView
from ppn.host.policy import in_transit, is_silent, refusals, silent
from ppn.host.sidecar import Move, Sidecar
from ppn.host.spec import Port, VmSpec, spec_from_data
from ppn.wire.moving import Offer, OfferedGrant, OfferedPort, Stage

# What the controllers name VMs; any other name was declared by the operator, for this very node.
POOL_ID = re.compile(r"vm-[a-z2-7]{16}")
NO_MOVE = "see GET /v1/vms/{id}/move of a controller"


def can_run(sidecar: Sidecar | None) -> bool:
    """Whether the node of a sidecar may ever start the VM, as things are."""
    return sidecar is not None and sidecar.phase not in IN_TRANSIT


def stage_of(sidecar: Sidecar | None) -> Stage:
    """How far a node is with the last move of a VM, by its sidecar alone."""
    if sidecar is None:
        return "gone"
    if sidecar.phase == "arriving":
        verified = sidecar.move is not None and sidecar.move.verified
        return "verified" if verified else "receiving"
    if sidecar.phase in ("moving", "moved"):
        return "stopping" if sidecar.phase == "moving" else "moved"
    if sidecar.move is None or sidecar.phase != "ready":
        return "here"
    return "back" if sidecar.move.side == "source" else "settled"


def departing(sidecar: Sidecar, move: str, node: str) -> Sidecar:
    """The source's sidecar from the moment a move begins.

    Args:
        sidecar: as it is.
        move: the move's id.
        node: where the VM goes.

    Raises:
        Refusal: another move is going on, or this one was called back already.
    """
    known = sidecar.move
    if known is not None and known.id == move:
        if sidecar.phase == "ready":
            raise ended(sidecar, move)
        return sidecar
    if sidecar.phase in IN_TRANSIT:
        raise in_transit(sidecar.spec.name, sidecar.phase)
    begun = Move(id=move, side="source", peer=node)
    return sidecar.model_copy(update={"phase": "moving", "move": begun})


def called_back(sidecar: Sidecar, move: str) -> Sidecar:
    """The source's sidecar once a move is given up: the VM stays, and that move cannot begin again.

    Args:
        sidecar: as it is.
        move: the move's id.

    Raises:
        Refusal: the VM is given up for good, or another move is going on.
    """
    known = sidecar.move
    if known is not None and known.id == move and known.side == "source":
        if sidecar.phase == "moved":
            raise _refusal(
                sidecar,
                "move_committed",
                f"move {move} cannot be taken back: the VM is {known.peer}'s",
                "let the move go on",
            )
        return sidecar.model_copy(update={"phase": "ready"})
    if sidecar.phase in IN_TRANSIT:
        raise in_transit(sidecar.spec.name, sidecar.phase)
    # A request that is late must not begin it after all.
    ended = Move(id=move, side="source", peer="")
    return sidecar.model_copy(update={"move": ended})


def committed(sidecar: Sidecar, move: str) -> Sidecar:
    """The source's sidecar once the VM is given up for good.

    Raises:
        Refusal: it is not in this move.
    """
    if _is_in(sidecar, move, "source", "moving", "moved"):
        return sidecar.model_copy(update={"phase": "moved"})
    raise not_in_move(sidecar.spec.name, move)


def reclaimed(sidecar: Sidecar, move: str) -> Sidecar:
    """The source's sidecar once an operator has said that its destination has nothing of the VM.

    That alone is no node's own knowledge: who asks for it has looked at the destination.

    Raises:
        Refusal: it was not given up in this move.
    """
    if _is_in(sidecar, move, "source", "moved", "ready"):
        return sidecar.model_copy(update={"phase": "ready"})
    raise not_in_move(sidecar.spec.name, move)


def check_sending(sidecar: Sidecar, move: str) -> None:
    """Refuse to stop and send a VM that is not leaving.

    Raises:
        Refusal: it is not in this move, or not any more.
    """
    if not _is_in(sidecar, move, "source", "moving"):
        raise not_in_move(sidecar.spec.name, move)


def check_release(sidecar: Sidecar, move: str) -> None:
    """Refuse to remove what is left of a VM that was not given up.

    Raises:
        Refusal: it is not in this move, or not given up.
    """
    if not _is_in(sidecar, move, "source", "moved"):
        raise not_in_move(sidecar.spec.name, move)


def check_drop(sidecar: Sidecar, move: str) -> None:
    """Refuse to remove a VM that did not come by this move, or is this node's own by now.

    Raises:
        Refusal: it is not on its way here by this move.
    """
    if not _is_in(sidecar, move, "destination", "arriving"):
        raise not_in_move(sidecar.spec.name, move)


def verified(sidecar: Sidecar, move: str) -> Sidecar:
    """The destination's sidecar once everything is there and is what was sent.

    Raises:
        Refusal: it is not on its way here by this move.
    """
    check_drop(sidecar, move)
    done = Move(id=move, side="destination", peer=_peer(sidecar), verified=True)
    return sidecar.model_copy(update={"move": done})


def settled(sidecar: Sidecar, move: str, sent: Sidecar) -> Sidecar:
    """The destination's sidecar once the VM is its own.

    Identity, order and description are those that were sent; address, ports and CPUs its own.

    Args:
        sidecar: as it is.
        move: the move's id.
        sent: the source's sidecar, as it was sealed and verified.

    Raises:
        Refusal: not on its way here by this move, not verified, or not the VM that was offered.
    """
    if _is_in(sidecar, move, "destination", "ready"):
        return sidecar
    check_drop(sidecar, move)
    if sidecar.move is None or not sidecar.move.verified:
        raise unverified(sidecar.spec.name)
    check_sent(sidecar, sent)
    ports = tuple(
        Port(guest=port.guest, protocol=port.protocol, host=None) for port in sent.spec.ports
    )
    return sent.model_copy(
        update={
            "phase": "ready",
            "spec": sent.spec.model_copy(update={"address": None, "ports": ports}),
            "pins": sidecar.pins,
            "lease": sidecar.lease,
            "drives": (),
            "move": sidecar.move,
        }
    )


def check_sent(kept: Sidecar, sent: Sidecar) -> None:
    """Refuse a VM that is not the one room was kept for.

    Args:
        kept: what the destination admitted.
        sent: the source's sidecar.

    Raises:
        Refusal: it differs in something room depends on.
    """
    for field in ("name", "owner", "image", "vcpus", "memory_mib", "disk_gib", "disks", "label"):
        if getattr(kept.spec, field) != getattr(sent.spec, field):
            raise _refusal(
                kept, "offer_differs", f"its {field} is not as it was offered", "begin again"
            )
    ports = {(port.protocol, port.guest) for port in kept.spec.ports}
    if kept.uuid != sent.uuid or ports != {(port.protocol, port.guest) for port in sent.spec.ports}:
        raise _refusal(kept, "offer_differs", "it is not the VM that was offered", "begin again")


def offer_of(vm: VmView, node: NodeState) -> Offer:
    """What a VM needs of another node.

    Args:
        vm: the VM as it is.
        node: the node it is on.

    Raises:
        Refusal: it is one that does not move.
    """
    for refusal in departure_refusals(vm, node):
        raise refusal
    spec, image = vm.spec, node.image(vm.spec.image) if vm.spec is not None else None
    if spec is None or image is None or vm.uuid is None:
        raise Refusal(
            f"vm {vm.name}: its image is not on this node any more",
            code="image_unknown",
            constraint="guest images",
            hint="put the image back on the node",
        )
    return Offer(
        uuid=vm.uuid,
        owner=spec.owner,
        image=spec.image,
        image_digest=image.digest,
        vcpus=spec.vcpus,
        memory_mib=spec.memory_mib,
        disk_gib=spec.disk_gib,
        disks=spec.disks,
        kept_mib=sum(disk.size_mib for disk in vm.disks if disk.detached),
        ports=tuple(OfferedPort(guest=port.guest, protocol=port.protocol) for port in spec.ports),
        label=spec.label,
        running=spec.state == "running",
        accelerator=vm.accelerator,
        grant=_offered(node.ledger.grant(vm.name)),
    )


def departure_refusals(vm: VmView, node: NodeState) -> Iterator[Refusal]:
    """Every reason why a VM cannot leave its node; nothing was changed."""
    if vm.sidecar != "ok" or vm.spec is None:
        yield _of(vm, f"sidecar_{vm.sidecar}", f"its sidecar is {vm.sidecar}", "put it back")
    if POOL_ID.fullmatch(vm.name) is None:
        yield _of(
            vm,
            "vm_declared",
            "it was declared for this node, not placed by a controller",
            "declare it on the other node, and absent here",
        )
    if vm.phase == "creating":
        yield _of(vm, "vm_creating", "it is only half made", "ask again once it is made")
    if vm.phase in ("moved", "arriving"):
        yield in_transit(vm.name, vm.phase)
    if vm.drives:
        yield _of(
            vm,
            "drives_attached",
            f"drive {', '.join(vm.drives)} of this node is its own",
            "take the drive from it first (DELETE /v1/vms/{id}/nvme/{address})",
        )
    if not node.libvirt.ok:
        yield _of(vm, "libvirt_unavailable", "libvirt does not answer", "start libvirt there")
    if is_silent(vm, node):
        yield silent(vm.name)


def arriving_spec(vm: str, offer: Offer) -> VmSpec:
    """A VM that is offered, as far as room for it depends on it."""
    fields = offer.model_dump(
        include={"owner", "image", "vcpus", "memory_mib", "disk_gib", "disks", "ports", "label"}
    )
    return spec_from_data({**fields, "name": vm, "state": _state(offer)})


def arrival_refusals(vm: str, offer: Offer, node: NodeState) -> Iterator[Refusal]:
    """Every constraint that keeps a node from taking a VM that is offered (MIG-02)."""
    if node.vm(vm) is not None:
        yield exists(vm)
    left = node.disk.model_copy(update={"free_mib": node.disk.free_mib - offer.kept_mib})
    yield from refusals(arriving_spec(vm, offer), node.model_copy(update={"disk": left}))
    image = node.image(offer.image)
    if image is not None and image.direct_boot and image.digest != offer.image_digest:
        yield _arrival(
            vm,
            "image_differs",
            "guest images",
            f"image {offer.image} of this node has another kernel than its disk was made for",
            "put the same image on both nodes",
        )
    if offer.accelerator == "kvm" and not node.kvm.usable:
        yield _arrival(
            vm,
            "kvm_missing",
            "KVM",
            f"it runs under KVM, which this node has not: {node.kvm.reason}",
            "choose a node with KVM",
        )
    if _offered(node.ledger.grant(vm)) != offer.grant:
        yield _arrival(
            vm,
            "ledger_differs",
            "capability ledger",
            "this node's ledger gives it another weight or minimum than its own node's",
            "install the operator's ledger on both nodes",
        )


def ended(sidecar: Sidecar, move: str) -> Refusal:
    """The refusal to begin a move again that has ended."""
    return _refusal(sidecar, "move_ended", f"move {move} has ended here", "begin another move")


def exists(vm: str) -> Refusal:
    """The refusal of a VM of whose name the node has one."""
    return _arrival(
        vm, "vm_exists", "VM name", "the destination has a VM of that name", "look at that one"
    )


def unverified(vm: str) -> Refusal:
    """The refusal to give up or take over a VM before its copy is known to be good."""
    return Refusal(
        f"vm {vm}: its copy is not verified yet",
        code="copy_unverified",
        constraint="verified copy",
        hint="ask again once it is",
    )


def not_in_move(vm: str, move: str) -> Refusal:
    """The refusal of a step of a move in which a VM is not, on this node."""
    return Refusal(
        f"vm {vm} is not in move {move} on this node",
        code="move_unknown",
        constraint="known move",
        hint=NO_MOVE,
    )


def _is_in(sidecar: Sidecar, move: str, side: str, *phases: str) -> bool:
    known = sidecar.move
    return known is not None and (known.id, known.side) == (move, side) and sidecar.phase in phases


def _peer(sidecar: Sidecar) -> str:
    return sidecar.move.peer if sidecar.move is not None else ""


def _state(offer: Offer) -> str:
    return "running" if offer.running else "stopped"


def _offered(grant: LedgerGrant | None) -> OfferedGrant | None:
    if grant is None:
        return None
    return OfferedGrant(weight=grant.weight, minimum_mib=grant.minimum_mib)


def _refusal(sidecar: Sidecar, code: str, message: str, hint: str) -> Refusal:
    return Refusal(
        f"vm {sidecar.spec.name}: {message}", code=code, constraint="move of a VM", hint=hint
    )


def _of(vm: VmView, code: str, message: str, hint: str) -> Refusal:
    return Refusal(f"vm {vm.name}: {message}", code=code, constraint="move of a VM", hint=hint)


def _arrival(vm: str, code: str, constraint: str, message: str, hint: str) -> Refusal:
    return Refusal(f"vm {vm}: {message}", code=code, constraint=constraint, hint=hint)
