"""Puts a fleet controller together; what systemd starts is `python -m ppn.fleet`."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from ppn.fleet.access import Access, check_access
from ppn.fleet.journal import Journal
from ppn.fleet.nodes import Nodes
from ppn.fleet.openapi import bare_app
from ppn.fleet.service import Service, assemble
from ppn.fleet.settings import FleetSettings
from ppn.log import get_logger
from ppn.notify import notify
from ppn.pool.tls import TlsFiles, TlsUnusable, Version, client_context, version_of
from ppn.wire.listen import check_mesh_address
from ppn.wire.web import Edge

# An idle connection of a caller ends after this.
IDLE_SECONDS = 75
# Requests under way end within this when the controller stops; what they began goes on.
GRACE_SECONDS = 10
BACKLOG = 2048
CONNECTIONS = 4096

log = get_logger("fleet")


def create_app(service: Service) -> FastAPI:
    """The HTTP service of a controller.

    Args:
        service: what answers.
    """

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(service.recovery.run()),
            asyncio.create_task(service.mover.run()),
        ]
        # What is there from the start is never garbage; looking at it again would cost heartbeats.
        gc.freeze()
        notify("READY=1", f"STATUS=listens on {service.settings.address}")
        log.info("started", controller=service.settings.name, nodes=len(service.settings.nodes))
        yield
        notify("STOPPING=1")
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    app = bare_app()
    app.router.lifespan_context = life
    app.state.service = service
    return app


def guarded(app: FastAPI, settings: FleetSettings) -> Edge:
    """A controller's HTTP service behind its ring of addresses."""
    access = Access(
        nodes=frozenset(node.address for node in settings.nodes),
        callers=frozenset({*settings.callers, *settings.controllers, settings.address}),
    )
    return Edge(app, lambda source, path: check_access(access, source, path))


def serve(settings: FleetSettings, key: Path) -> None:
    """Run a controller until it is told to stop.

    Args:
        settings: from the inventory.
        key: the private key of its client certificate.

    Raises:
        PpnError: an address that is not the mesh's, or a file that cannot be used.
    """
    check_mesh_address(settings.address, settings.mesh_range, development=settings.development)
    files = TlsFiles(key, settings.certificate, settings.trust)
    nodes = Nodes(settings.address, settings.node_proxy_port, renewed(files))
    with Journal(settings.journal) as journal:
        service = assemble(settings, journal, nodes)
        uvicorn.run(
            guarded(create_app(service), settings),
            host=str(settings.address),
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            backlog=BACKLOG,
            # Every agent keeps a connection of its own.
            limit_concurrency=CONNECTIONS + 2 * len(settings.nodes),
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    log.info("stopped")


def renewed(files: TlsFiles) -> Callable[[], ssl.SSLContext]:
    """Gives the TLS settings in force: read anew when certificate or trust have changed.

    A change that cannot be used is logged, once, and what was in force stays so.

    Args:
        files: what to speak TLS with.

    Returns:
        A function that raises `TlsUnusable` as long as nothing was ever in force.
    """
    known: list[tuple[Version, ssl.SSLContext]] = []
    said: list[str] = []

    def current() -> ssl.SSLContext:
        try:
            version = version_of(files)
            if not known or known[0][0] != version:
                known[:] = [(version, client_context(files))]
                said.clear()
        except TlsUnusable as error:
            if not known:
                raise
            if said != [str(error)]:
                said[:] = [str(error)]
                log.error("certificate not taken over", code=error.code, error=str(error))
        return known[0][1]

    return current
