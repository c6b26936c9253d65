"""Puts the node proxy together; what systemd starts is `python -m ppn.host.proxy`."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from pathlib import Path

from ppn.host.proxy.agent import AgentClient
from ppn.host.proxy.api import Api
from ppn.host.proxy.audit import Audit
from ppn.host.proxy.server import Door
from ppn.host.proxy.settings import ProxySettings
from ppn.log import get_logger
from ppn.notify import notify
from ppn.wire.listen import check_mesh_address

# How soon a changed certificate is taken over, and how often systemd hears that we are alive.
WATCH_SECONDS = 1.0
# In-flight questions end within this; the agent finishes changes by itself.
GRACE_SECONDS = 10.0

log = get_logger("node-proxy")


async def serve(settings: ProxySettings, key: Path, stopping: asyncio.Event | None = None) -> None:
    """Run the node proxy until it is told to stop.

    Args:
        settings: of this proxy.
        key: its private key.
        stopping: set from outside to stop it; SIGTERM and SIGINT do too.

    Raises:
        PpnError: an address that is not the mesh's, or files that TLS cannot be spoken with.
    """
    # uvicorn warns of every damaged request; the audit log has those already.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    check_mesh_address(settings.listen, settings.mesh_range, development=settings.development)
    stopping = stopping or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    audit = Audit(get_logger("audit"), time.monotonic())
    client = AgentClient(settings.agent_socket, settings.limits)
    door = Door(settings, settings.tls(key), Api(settings, client, audit))
    port = door.open()
    log.info("started", node=settings.node, address=str(settings.listen), port=port)
    notify("READY=1", f"STATUS=listens on {settings.listen}:{port}")
    tasks = [loop.create_task(door.accept()), loop.create_task(watch(door, audit))]
    signalled = loop.create_task(stopping.wait())
    done, _ = await asyncio.wait([*tasks, signalled], return_when=asyncio.FIRST_COMPLETED)
    notify("STOPPING=1")
    for task in (*tasks, signalled):
        task.cancel()
    await door.close(GRACE_SECONDS)
    client.close()
    audit.flush(time.monotonic(), ending=True)
    for task in done:
        task.result()
    log.info("stopped")


async def watch(door: Door, audit: Audit) -> None:
    """Take over changed certificates and write what the audit log owes, for ever."""
    while True:
        door.reload()
        audit.flush(time.monotonic())
        notify("WATCHDOG=1")
        await asyncio.sleep(WATCH_SECONDS)
