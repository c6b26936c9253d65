"""The tenant proxy over HTTP: what a customer may ask for, each route behind the guard."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ppn.errors import PpnError, Refusal
from ppn.host.spec import Disk
from ppn.tenant.guard import OPERATOR, TenantRoute, Visit, visit_of
from ppn.tenant.service import Service
from ppn.tenant.view import (
    allocation_report,
    figures,
    listing,
    own_vm,
    tenant_console,
    tenant_timeline,
    unheard,
)
from ppn.wire.description import PROBLEMS, DiskName, Key, VmName
from ppn.wire.fleet import MoveOrder, MoveReport, ResizeOrder
from ppn.wire.tenant import (
    AllocationList,
    OwnVm,
    QuotaReport,
    Removed,
    TenantConsole,
    TenantOrder,
    TenantTimeline,
)

ALLOCATIONS, METRICS = "/v1/allocations", "/metrics"
# For the pool's own services, which have no token but an address.
OWN_PATHS = frozenset({ALLOCATIONS, METRICS})

router = APIRouter(prefix="/v1", route_class=TenantRoute, responses=PROBLEMS)
own_router = APIRouter(responses=PROBLEMS)

FOUND: dict[int | str, dict[str, Any]] = {
    200: {"model": OwnVm, "description": "It was there already."}
}
Discard = Annotated[bool, Query(description="Must be true: a tenant's disk goes with its data.")]


def service_of(request: Request) -> Service:
    """The service that answers a request."""
    service: Service = request.app.state.service
    return service


def speaking(visit: Visit) -> str:
    """The tenant that a request speaks for.

    Raises:
        Refusal: `scope_refused`: an operator's token speaks for none.
    """
    if not visit.tenant:
        raise Refusal(
            "this token speaks for no tenant",
            code="scope_refused",
            constraint="scope of the token",
            hint="use a tenant's token, or ask a fleet controller",
        )
    return visit.tenant


@router.post("/vms", status_code=201, responses=FOUND, summary="Have a VM made.")
async def create(
    request: Request, response: Response, order: TenantOrder, key: Key = None
) -> OwnVm:
    """Answer once it runs.

    With the same `Idempotency-Key` the same order is one VM; 200 says that it was there already.
    """
    visit = visit_of(request)
    speaking(visit)
    answer, fresh = await service_of(request).changes.create(visit, order, key)
    response.status_code = 201 if fresh else 200
    response.headers["Location"] = f"/v1/vms/{visit.vm}"
    return own_vm({**answer, "changed": fresh})


@router.get("/vms", summary="The VMs of the tenant.")
async def list_vms(request: Request) -> list[OwnVm]:
    """Every VM that takes a part of the ceiling, also those that are being made or removed."""
    service, visit = service_of(request), visit_of(request)
    tenant = visit.tenant or None
    allocated = await service.threads.call(service.store.allocations, tenant)
    query = f"?owner={tenant}" if tenant else ""
    placed = await service.changes.ask(visit, "GET", f"/v1/vms{query}") if allocated else ()
    return listing(allocated, placed)


@router.get("/vms/{vm}", summary="One VM.")
async def show(request: Request, vm: VmName) -> OwnVm:
    """A VM as the pool last heard of it."""
    visit = visit_of(request)
    try:
        answer = await service_of(request).changes.ask(visit, "GET", f"/v1/vms/{vm}")
    except PpnError as error:
        if error.code != "vm_unknown":
            raise
        return unheard(visit.own)
    return own_vm(answer, visit.own)


@router.delete("/vms/{vm}", summary="Have a VM removed.")
async def destroy(request: Request, vm: VmName) -> Removed:
    """Answer once nothing of it is left."""
    await service_of(request).changes.destroy(visit_of(request))
    return Removed(id=vm)


@router.post("/vms/{vm}/stop", summary="Stop a VM.")
async def stop(request: Request, vm: VmName) -> OwnVm:
    """By its power button, and by force when it has not obeyed in time."""
    return own_vm(await service_of(request).changes.plain(visit_of(request), "/stop"))


@router.post("/vms/{vm}/start", summary="Start a VM that was stopped.")
async def start(request: Request, vm: VmName) -> OwnVm:
    """Start it where it is."""
    return own_vm(await service_of(request).changes.plain(visit_of(request), "/start"))


@router.patch("/vms/{vm}", summary="Other figures for a stopped VM.")
async def resize(request: Request, vm: VmName, order: ResizeOrder) -> OwnVm:
    """Memory and vCPUs; a figure that is left out stays."""
    return own_vm(await service_of(request).changes.resize(visit_of(request), order))


@router.post("/vms/{vm}/disks", status_code=201, summary="Give a VM one more disk.")
async def attach(request: Request, vm: VmName, disk: Disk) -> OwnVm:
    """Also while it runs."""
    return own_vm(await service_of(request).changes.attach(visit_of(request), disk))


@router.delete("/vms/{vm}/disks/{disk}", summary="Take a disk from a VM, with its data.")
async def detach(request: Request, vm: VmName, disk: DiskName, discard: Discard = False) -> OwnVm:
    """Also while it runs.

    A disk that was kept would go on to take a part of the ceiling, and nobody could see it.
    """
    if not discard:
        raise Refusal(
            "a tenant's disk is not kept when it is taken from its VM",
            code="disk_kept",
            constraint="a disk goes with its data",
            hint="ask with discard=true",
        )
    return own_vm(await service_of(request).changes.detach(visit_of(request), disk))


@router.get("/vms/{vm}/timeline", summary="The steps of a VM's last operations.")
async def timeline(request: Request, vm: VmName) -> TenantTimeline:
    """With the time each step took."""
    visit = visit_of(request)
    answer = await service_of(request).changes.ask(visit, "GET", f"/v1/vms/{vm}/timeline")
    return tenant_timeline(answer)


@router.get("/vms/{vm}/console", summary="What a guest wrote to its serial console.")
async def console(
    request: Request, vm: VmName, bytes: Annotated[int, Query(ge=1, le=1024 * 1024)] = 65536
) -> TenantConsole:
    """The end of it, at most so many bytes."""
    visit = visit_of(request)
    path = f"/v1/vms/{vm}/console?bytes={bytes}"
    return tenant_console(await service_of(request).changes.ask(visit, "GET", path))


@router.post(
    "/vms/{vm}/move", tags=[OPERATOR], status_code=202, summary="Move a VM to another node."
)
async def move(request: Request, vm: VmName, order: MoveOrder) -> MoveReport:
    """For operators' tokens alone: where a VM is, is no tenant's concern."""
    body = order.model_dump()
    answer = await service_of(request).changes.plain(visit_of(request), "/move", body)
    return MoveReport.model_validate(answer, strict=False)


@router.get("/vms/{vm}/move", tags=[OPERATOR], summary="How far a VM's move is.")
async def show_move(request: Request, vm: VmName) -> MoveReport:
    """For operators' tokens alone."""
    visit = visit_of(request)
    answer = await service_of(request).changes.ask(visit, "GET", f"/v1/vms/{vm}/move")
    return MoveReport.model_validate(answer, strict=False)


@router.get("/quota", summary="The tenant's ceiling, and what of it is taken.")
async def quota(request: Request) -> QuotaReport:
    """VMs that are being made or removed are counted (TEN-07)."""
    service, tenant = service_of(request), speaking(visit_of(request))
    known = await service.threads.call(service.store.tenant, tenant)
    return QuotaReport(tenant=tenant, ceiling=figures(known.ceiling), used=figures(known.used))


@own_router.get(ALLOCATIONS, summary="What every VM takes, for the pool's controllers alone.")
async def list_allocations(request: Request) -> AllocationList:
    """For reconciliation: all tenants' (REC-02)."""
    service = service_of(request)
    found = await service.threads.call(service.store.allocations)
    return AllocationList(allocations=tuple(allocation_report(one) for one in found))


@own_router.get(METRICS, include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Figures as Prometheus reads them, for the pool's controllers alone."""
    content = generate_latest(service_of(request).collectors)
    return Response(content, media_type=CONTENT_TYPE_LATEST)


def check_source(own: frozenset[str], source: str, path: str) -> None:
    """Refuse what is for the pool's own services to everybody else.

    Args:
        own: addresses of the controllers, and this proxy's.
        source: the address a request comes from.
        path: what it asks for.

    Raises:
        Refusal: `source_wrong`.
    """
    if path in OWN_PATHS and source not in own:
        raise Refusal(
            f"{source or 'an unknown address'} may not use {path}",
            code="source_wrong",
            constraint="mesh address of the caller",
            hint="this is for the pool's controllers",
        )
