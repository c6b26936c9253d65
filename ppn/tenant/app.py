"""Puts a tenant proxy together; what systemd starts is `python -m ppn.tenant`."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime
from pathlib import Path

from starlette.types import ASGIApp

from ppn.audit.checkpoint import origin_of
from ppn.audit.entry import EntryInvalid
from ppn.audit.log import Log
from ppn.audit.metrics import LogCollector
from ppn.audit.read import LogMissing
from ppn.log import get_logger
from ppn.notify import notify
from ppn.pool.tls import TlsFiles
from ppn.tenant.api import check_source
from ppn.tenant.door import Door
from ppn.tenant.openapi import bare_app
from ppn.tenant.records import interrupted
from ppn.tenant.service import Service, assemble
from ppn.tenant.settings import TenantSettings
from ppn.tenant.store import Store
from ppn.tenant.sweeper import Sweeper
from ppn.wire.listen import check_mesh_address
from ppn.wire.web import Edge

# How soon a changed certificate is taken over, owed outcomes are written, and systemd hears of us.
WATCH_SECONDS = 1.0
# Requests under way end within this; what is open after it, the sweeper of the next process ends.
GRACE_SECONDS = 20.0

log = get_logger("tenant-proxy")


def create_app(service: Service) -> ASGIApp:
    """The HTTP service of a tenant proxy.

    Args:
        service: what answers.
    """
    app = bare_app()
    app.state.service = service
    app.state.guard = service.guard
    settings = service.settings
    own = frozenset(str(one) for one in (*settings.controllers, settings.address))
    return Edge(app, lambda source, path: check_source(own, source, path), max_body=None)


async def serve(settings: TenantSettings, key: Path) -> None:
    """Run a tenant proxy until it is told to stop.

    Args:
        settings: from the inventory.
        key: the private key of its certificate.

    Raises:
        PpnError: an address that is not the mesh's, or a file, store or log that cannot be used.
    """
    check_mesh_address(settings.address, settings.mesh_range, development=settings.development)
    store = Store.open(settings.store, upgrade=True)
    try:
        origin = origin_of(settings.name)
        with Log.open(settings.audit, origin, settings.audit_key, settings.witnesses) as audit:
            service = assemble(settings, store, audit)
            end_interrupted(service)
            service.collectors.register(LogCollector(audit.status))
            files = TlsFiles(key, settings.certificate, settings.trust)
            door = Door(create_app(service), files, service.guard.known.peers)
            await run(service, door)
    finally:
        store.close()


def end_interrupted(service: Service) -> None:
    """Have the audit log told of what an earlier process began and did not see the end of."""
    settings = service.settings
    try:
        service.records.owed.extend(interrupted(settings.audit, settings.lease_seconds))
    except (LogMissing, EntryInvalid) as error:
        # Questions can be answered still; what else is wrong, the log itself says.
        log.error("intents of an earlier process not ended", error=str(error))


async def run(service: Service, door: Door) -> None:
    """Answer customers until SIGTERM or SIGINT.

    Args:
        service: what answers.
        door: not open yet.

    Raises:
        PpnError: the door cannot be opened, or something that should go on for ever has ended.
    """
    settings = service.settings
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    port = await door.open(settings.address, settings.port)
    log.info("started", node=settings.name, address=str(settings.address), port=port)
    notify("READY=1", f"STATUS=listens on {settings.address}:{port}")
    sweeper = Sweeper(service.store, settings.fleet, settings.address, _now, service.records)
    tasks = [
        loop.create_task(watch(service, door)),
        loop.create_task(sweeper.run(settings.sweep_seconds)),
        loop.create_task(stopping.wait()),
    ]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    notify("STOPPING=1")
    for task in tasks:
        task.cancel()
    # What the watcher had in hand is owed again before the last look.
    await asyncio.wait(tasks)
    await door.close(GRACE_SECONDS)
    await service.records.settle(last=True)
    await service.close()
    for task in done:
        task.result()
    log.info("stopped")


async def watch(service: Service, door: Door) -> None:
    """Take over changed certificates and write what the audit log is owed, for ever."""
    while True:
        door.reload()
        await service.records.settle()
        notify("WATCHDOG=1")
        await asyncio.sleep(WATCH_SECONDS)


def _now() -> datetime:
    return datetime.now(UTC)
