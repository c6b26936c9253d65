"""What makes the pool's first controller reconcile it and pass on its alerts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pyinfra import host
from pyinfra.api import deploy

from deploys.units import unit_text
from operations import files, systemd, users
from operations.files import File
from operations.systemd import Unit
from ppn.fleet.reconciliation.settings import PATH, ReconcileSettings, Sink, Sinks
from ppn.fleet.settings import DEFAULT_PORT
from ppn.host.proxy.policy import CONTROLLER
from ppn.inventory import TENANT_PROXY, TENANT_PROXY_PORT, Pool

USER = "ppn-reconcile"
SERVICES = ("ppn-reconcile.service", "ppn-alerts.service")
TIMERS = ("ppn-reconcile.timer", "ppn-alerts.timer")
KEEP_DAYS = 400
SINKS: TypeAdapter[tuple[Sink, ...]] = TypeAdapter(Sinks)


def sink_problems(data: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the sinks and figures that the inventory gives.

    Args:
        data: of the group `all`: `alert_sinks`, `report_days`.
    """
    try:
        SINKS.validate_python(data.get("alert_sinks", ()))
    except ValidationError as error:
        for item in error.errors(include_input=False)[:5]:
            where = ".".join(str(part) for part in item["loc"]) or "all of it"
            yield (
                f"alert_sinks: {where}: {item['msg']}: see docs/reconciliation.md"
                " (alert_sinks_invalid)"
            )
    days = data.get("report_days", KEEP_DAYS)
    if type(days) is not int or not 1 <= days <= 36500:
        yield f"report_days {days!r}: give a whole number of days (report_days_invalid)"


def reconciler(pool: Pool) -> str:
    """The node that reconciles: the first controller of the inventory; empty when there is none."""
    return next((node.name for node in pool.nodes if CONTROLLER in node.roles), "")


def reconciliation_files(pool: Pool, name: str, data: Mapping[str, Any]) -> dict[str, File]:
    """The settings and units of the node that reconciles.

    Args:
        pool: the sound nodes of the inventory.
        name: of that node, a controller.
        data: of the group `all`: `alert_sinks`, `report_days`.
    """
    node = pool.node(name)
    controllers = [one.address for one in pool.nodes if CONTROLLER in one.roles]
    controllers.sort(key=lambda address: address != node.address)
    settings = ReconcileSettings(
        name=node.name,
        address=node.address,
        controllers=tuple(f"http://{address}:{DEFAULT_PORT}" for address in controllers),
        tenant_proxies=tuple(
            f"https://{one.address}:{TENANT_PROXY_PORT}"
            for one in pool.nodes
            if TENANT_PROXY in one.roles
        ),
        nodes=tuple(one.name for one in pool.nodes if "hypervisor" in one.roles),
        keep_days=data.get("report_days", KEEP_DAYS),
        sinks=SINKS.validate_python(data.get("alert_sinks", ())),
    )
    # A webhook's URL can be a secret of its own.
    text = settings.model_dump_json(indent=2) + "\n"
    found = {PATH: File(text, mode="0640", group=USER, secret=True)}
    sandbox = unit_text("ppn-reconcile.sandbox").rstrip("\n")
    for unit in (*SERVICES, *TIMERS):
        text = unit_text(unit).replace("SANDBOX", sandbox).replace("INTERFACE", pool.interface)
        found[f"/etc/systemd/system/{unit}"] = File(text)
    return found


@deploy("Reconciliation")
def reconciliation(pool: Pool) -> None:
    """Reconcile and watch on the first controller; leave it to that one on the others.

    Args:
        pool: the sound nodes of the inventory.
    """
    if host.name != reconciler(pool):
        off = tuple(Unit(timer, enabled=False, running=False) for timer in TIMERS)
        systemd.units(name="No reconciliation here", units=off)
        return
    users.system(name="User of reconciliation", users=[USER])
    data = {key: host.data.get(key) for key in ("alert_sinks", "report_days")}
    wanted = reconciliation_files(pool, host.name, {k: v for k, v in data.items() if v is not None})
    files.rendered(name="Settings of reconciliation", files=wanted)
    # What the timers start is started by nobody else, and is not stopped in its midst.
    started = tuple(Unit(service, enabled=None, running=None) for service in SERVICES)
    timers = tuple(Unit(timer) for timer in TIMERS)
    systemd.units(name="Reconciliation and alerts", units=(*started, *timers), files=wanted)
