"""The fleet controller over HTTP."""

from __future__ import annotations

import secrets
from ipaddress import IPv4Address
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError

from ppn.errors import Refusal
from ppn.fleet.making import Asked
from ppn.fleet.reports import fleet_report, node_report, node_reports, placed_vm, pool_alerts
from ppn.fleet.service import Service
from ppn.host.spec import OWNER_PATTERN, PCI_PATTERN, Disk
from ppn.wire.description import PROBLEMS, DiskName, Key, VmName
from ppn.wire.fleet import (
    BatchAnswer,
    BatchOrder,
    Decision,
    EndOrder,
    FleetReport,
    LostMove,
    MoveOrder,
    MoveReport,
    NodeReport,
    NvmeOrder,
    OpenIntent,
    PlacedVm,
    ResizeOrder,
    VmOrder,
)
from ppn.wire.heartbeat import Alert, Heartbeat
from ppn.wire.model import NODE_PATTERN, UUID_PATTERN, malformed
from ppn.wire.web import correlation_of

router = APIRouter(prefix="/v1", responses=PROBLEMS)

DriveAddress = Annotated[str, Path(pattern=PCI_PATTERN)]
OfNode = Annotated[
    str | None,
    Query(pattern=NODE_PATTERN, description="Ask this node, also when the VM is known nowhere."),
]
OneUuid = Annotated[
    str | None, Query(pattern=UUID_PATTERN, description="Only the very VM that has this UUID.")
]
Owner = Annotated[str | None, Query(pattern=OWNER_PATTERN, description="Only this owner's VMs.")]


def service_of(request: Request) -> Service:
    """The service that answers a request."""
    service: Service = request.app.state.service
    return service


def asked_by(request: Request) -> Asked:
    """Who waits for the answer to a request."""
    service = service_of(request)
    return Asked(correlation_of(request), service.clock() + service.settings.request_seconds)


@router.post("/heartbeats", status_code=204, summary="A node says how it is.")
async def hear(request: Request) -> Response:
    """Take in a heartbeat, from the mesh address of the node it names alone (FLEET-08)."""
    service = service_of(request)
    try:
        heartbeat = Heartbeat.model_validate_json(await request.body())
    except ValidationError as error:
        service.counts.heartbeats.labels("invalid").inc()
        raise malformed(error) from error
    source = request.client.host if request.client is not None else ""
    try:
        service.registry.hear(heartbeat, IPv4Address(source), service.clock())
    except Refusal as refusal:
        service.counts.heartbeats.labels(refusal.code).inc()
        raise
    service.counts.heartbeats.labels("taken").inc()
    return Response(status_code=204)


@router.post("/vms", status_code=201, summary="Have a VM made.")
async def create(request: Request, response: Response, order: VmOrder, key: Key = None) -> PlacedVm:
    """Place a VM, have it made, and answer once it runs.

    With the same `Idempotency-Key` the same order is one VM, on every controller; 200 says that it
    was there already.
    """
    service = service_of(request)
    with service.counts.order_seconds.time():
        made = await service.create(order, key, asked_by(request))
    response.status_code = 201 if made.fresh else 200
    response.headers["Location"] = f"/v1/vms/{made.placed.vm.id}"
    return made.placed


@router.post("/batches", status_code=201, summary="Have several VMs made.")
async def create_batch(request: Request, order: BatchOrder, key: Key = None) -> BatchAnswer:
    """Make all VMs of a batch or none; with `per_item` each for itself (FLEET-12)."""
    key = key or secrets.token_hex(16)
    return await service_of(request).batches.make(order, key, asked_by(request))


@router.get("/vms", summary="The VMs of the pool.")
async def list_vms(request: Request, owner: Owner = None) -> list[PlacedVm]:
    """Every VM, or every VM of one owner (FLEET-07)."""
    service = service_of(request)
    return [placed_vm(held) for held in service.registry.vms(service.clock(), owner)]


@router.get("/vms/{vm}", summary="One VM.")
async def show_vm(request: Request, vm: VmName) -> PlacedVm:
    """A VM as its node last reported it."""
    return placed_vm(service_of(request).remover.find(vm)[0])


@router.delete("/vms/{vm}", summary="Have a VM removed.")
async def destroy(request: Request, vm: VmName, uuid: OneUuid = None) -> dict[str, Any]:
    """Answer once nothing of a VM is left on its node.

    With `uuid` another one of that id stays, and the answer is `vm_replaced` (412).
    """
    nodes = await service_of(request).destroy(vm, asked_by(request), uuid)
    return {"id": vm, "nodes": list(nodes)}


@router.post("/vms/{vm}/stop", summary="Stop a VM.")
async def stop(request: Request, vm: VmName) -> dict[str, Any]:
    """By its power button, and by force when it has not obeyed in time."""
    return await service_of(request).remover.ask(vm, asked_by(request), "POST", "/stop")


@router.post("/vms/{vm}/start", summary="Start a VM that was stopped.")
async def start(request: Request, vm: VmName) -> dict[str, Any]:
    """Start it on the node that has it."""
    return await service_of(request).remover.ask(vm, asked_by(request), "POST", "/start")


@router.patch("/vms/{vm}", summary="Other figures for a stopped VM.")
async def resize(request: Request, vm: VmName, order: ResizeOrder) -> dict[str, Any]:
    """Memory and vCPUs; a figure that is left out stays."""
    body = order.model_dump(exclude_none=True)
    return await service_of(request).remover.ask(vm, asked_by(request), "PATCH", "", body)


@router.post("/vms/{vm}/disks", status_code=201, summary="Give a VM one more disk.")
async def attach(request: Request, vm: VmName, disk: Disk) -> dict[str, Any]:
    """Also while it runs (DISK-01)."""
    asked, body = asked_by(request), disk.model_dump()
    return await service_of(request).remover.ask(vm, asked, "POST", "/disks", body)


@router.delete("/vms/{vm}/disks/{disk}", summary="Take a disk from a VM.")
async def detach(
    request: Request, vm: VmName, disk: DiskName, discard: bool = False
) -> dict[str, Any]:
    """Also while it runs (DISK-01); with `discard` its data goes too."""
    what = f"/disks/{disk}?discard={'true' if discard else 'false'}"
    return await service_of(request).remover.ask(vm, asked_by(request), "DELETE", what)


@router.post("/vms/{vm}/nvme", status_code=201, summary="Give a VM a whole NVMe drive.")
async def attach_nvme(request: Request, vm: VmName, order: NvmeOrder) -> dict[str, Any]:
    """A drive of its node, while it runs; answers once its memory is steady (DISK-02, DISK-03)."""
    asked, body = asked_by(request), order.model_dump()
    return await service_of(request).remover.ask(vm, asked, "POST", "/nvme", body)


@router.delete("/vms/{vm}/nvme/{address}", summary="Take an NVMe drive from a VM.")
async def detach_nvme(request: Request, vm: VmName, address: DriveAddress) -> dict[str, Any]:
    """Also while it runs; its node has the drive again, with all that is on it (DISK-02)."""
    return await service_of(request).remover.ask(
        vm, asked_by(request), "DELETE", f"/nvme/{address}"
    )


@router.get("/vms/{vm}/decision", summary="Why a VM went where it went, or nowhere.")
async def decision(request: Request, vm: VmName) -> Decision:
    """The last decision of this controller, with each node's reason (CLI-03)."""
    found = service_of(request).maker.decisions.last(vm)
    if found is None:
        raise Refusal(
            f"this controller has decided nothing about vm {vm} lately",
            code="decision_unknown",
            constraint="decisions since the controller started",
            hint="ask the controller that took the order",
        )
    return found


@router.post("/vms/{vm}/move", status_code=202, summary="Move a VM to another node.")
async def move(request: Request, vm: VmName, order: MoveOrder) -> MoveReport:
    """Answer once the other node has kept room for it; it is stopped, copied and started there.

    Asked again, the same move is found. What cannot be done is refused before the VM is stopped,
    and what fails before its copy is verified leaves it where it was (MIG-01, MIG-02).
    """
    return await service_of(request).mover.begin(vm, order.node, asked_by(request))


@router.get("/vms/{vm}/move", summary="How far a VM's move is.")
async def show_move(request: Request, vm: VmName) -> MoveReport:
    """Or how its last one ended."""
    return await service_of(request).mover.report(vm, asked_by(request))


@router.delete("/vms/{vm}/move", status_code=202, summary="Call a VM's move back.")
async def cancel_move(request: Request, vm: VmName) -> MoveReport:
    """It stays where it was, and runs if it ran; refused once it has been given up there.

    Its source may be giving it up at this moment: how the move ends, its report says.
    """
    return await service_of(request).mover.cancel(vm, asked_by(request))


@router.get("/vms/{vm}/move/end", summary="How a move that is lost may be ended.")
async def show_lost_move(request: Request, vm: VmName) -> LostMove:
    """What each of its two nodes has of the VM, looked at now; nothing is changed."""
    return await service_of(request).lost_moves.show(vm, asked_by(request))


@router.post("/vms/{vm}/move/end", status_code=202, summary="End a move that is lost.")
async def end_move(request: Request, vm: VmName, order: EndOrder) -> MoveReport:
    """As an operator says, by the name of each node; refused where the nodes contradict."""
    return await service_of(request).lost_moves.end(vm, order, asked_by(request))


@router.get("/vms/{vm}/timeline", summary="The steps of a VM's last operations.")
async def timeline(request: Request, vm: VmName, node: OfNode = None) -> dict[str, Any]:
    """With the time each step took, from the node that has it."""
    service, asked = service_of(request), asked_by(request)
    return await service.remover.question(vm, asked, "/timeline", node)


@router.get("/vms/{vm}/inspect", summary="What a VM is made of on its node.")
async def inspect(request: Request, vm: VmName, node: OfNode = None) -> dict[str, Any]:
    """Record, domain, QEMU's arguments and log: no guest memory, disk or seed content (CLI-03)."""
    return await service_of(request).remover.question(vm, asked_by(request), "/inspect", node)


@router.get("/vms/{vm}/console", summary="What a guest wrote to its serial console.")
async def console(
    request: Request,
    vm: VmName,
    bytes: Annotated[int, Query(ge=1, le=1024 * 1024)] = 65536,
    node: OfNode = None,
) -> dict[str, Any]:
    """The end of it, at most so many bytes."""
    what = f"/console?bytes={bytes}"
    return await service_of(request).remover.question(vm, asked_by(request), what, node)


@router.get("/nodes", summary="The nodes of the pool.")
async def list_nodes(request: Request) -> list[NodeReport]:
    """Every node that was heard since the controller started (FLEET-06)."""
    service = service_of(request)
    return list(node_reports(service.registry, service.clock()))


@router.get("/nodes/{name:path}/report", summary="What a node's agent says of it now.")
async def show_report(request: Request, name: str) -> dict[str, Any]:
    """A look of its own, made for this question: an `AgentReport`, past the last heartbeat."""
    return await service_of(request).remover.look(name, "/v1/node", asked_by(request))


@router.get("/nodes/{name:path}/examination", summary="A node beyond its VMs.")
async def examine(request: Request, name: str) -> dict[str, Any]:
    """Its services, certificates, mesh, versions and clock, looked at now (CLI-03)."""
    return await service_of(request).remover.look(name, "/v1/examination", asked_by(request))


@router.get("/nodes/{name:path}", summary="One node.")
async def show_node(request: Request, name: str) -> NodeReport:
    """A node as the controller sees it."""
    service = service_of(request)
    node = service.registry.nodes.get(name)
    report = node_report(service.registry, node, service.clock()) if node is not None else None
    if report is None:
        raise Refusal(
            f"node {name} is {'not heard yet' if node is not None else 'not in the inventory'}",
            code="node_unknown",
            constraint="known node",
            hint="list the nodes",
        )
    return report


@router.get("/fleet", summary="The pool at a glance.")
async def show_fleet(request: Request) -> FleetReport:
    """Sums over all nodes (FLEET-06)."""
    service = service_of(request)
    return fleet_report(service.registry, service.settings.name, service.clock())


@router.get("/alerts", summary="What is not as it should be.")
async def list_alerts(request: Request) -> list[Alert]:
    """What no single node can see; each node's own alerts stand in its report."""
    service = service_of(request)
    return list(pool_alerts(service.registry, service.clock()))


@router.get("/intents", summary="The VMs this controller is making.")
async def list_intents(request: Request) -> list[OpenIntent]:
    """Every intent that has not ended, also those of an earlier process, by VM id."""
    intents = service_of(request).maker.journal.intents
    return [OpenIntent(id=vm, node=intents[vm].node) for vm in sorted(intents)]


@router.get("/intents/{vm}", summary="Whether this controller is making a VM.")
async def show_intent(request: Request, vm: VmName) -> dict[str, str]:
    """For the other controllers: two of them never make the same VM."""
    maker = service_of(request).maker
    stage, intent = maker.stage(vm), maker.journal.intents.get(vm)
    if stage is None:
        raise Refusal(
            f"vm {vm} is not being made here",
            code="vm_unknown",
            constraint="open intent",
            hint="look at the VM itself",
        )
    node = intent.node if intent is not None else maker.told.get(vm, "")
    return {"id": vm, "node": node, "stage": stage}


metrics_router = APIRouter()


@metrics_router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Figures as Prometheus reads them."""
    content = generate_latest(service_of(request).collectors)
    return Response(content, media_type=CONTENT_TYPE_LATEST)
