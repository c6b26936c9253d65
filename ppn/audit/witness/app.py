"""A witness over HTTP; what systemd starts is `python -m ppn.audit.witness`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from ppn.audit.note import WITNESS, Signer
from ppn.audit.witness.policy import KEY_HEADER, SizeConflict, WitnessRefusal
from ppn.audit.witness.service import Witness
from ppn.audit.witness.settings import WitnessSettings
from ppn.audit.witness.store import Store
from ppn.lock import folder_lock
from ppn.log import get_logger
from ppn.notify import notify
from ppn.pool import keys
from ppn.wire.listen import check_mesh_address
from ppn.wire.web import Edge, add_problem_handlers

SIZE_TYPE = "text/x.tlog.size"
MAX_BODY = 128 * 1024
LOCK_SECONDS = 5.0
CONNECTIONS = 256

log = get_logger("witness")


def create_app(witness: Witness) -> FastAPI:
    """The HTTP service of a witness.

    Args:
        witness: what answers.
    """

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        notify("READY=1", f"STATUS=witnesses {len(witness.logs)} logs")
        log.info("started", witness=witness.signer.name, logs=sorted(witness.logs))
        yield
        notify("STOPPING=1")

    app = FastAPI(title="ppn witness", docs_url=None, redoc_url=None, lifespan=life)
    add_problem_handlers(app)

    @app.exception_handler(SizeConflict)
    async def conflict(_: Request, error: SizeConflict) -> Response:
        return Response(f"{error.size}\n", status_code=409, media_type=SIZE_TYPE)

    @app.post("/add-checkpoint", response_class=PlainTextResponse)
    async def add_checkpoint(request: Request) -> str:
        body = await request.body()
        source = request.client.host if request.client else ""
        key = request.headers.get(KEY_HEADER, "")
        return await asyncio.to_thread(witness.add_checkpoint, body, source, key)

    @app.get("/vkey", response_class=PlainTextResponse)
    async def vkey() -> str:
        return witness.signer.verifier(WITNESS).text() + "\n"

    @app.get("/v1/logs")
    async def logs() -> list[dict[str, object]]:
        return await asyncio.to_thread(witness.known)

    return app


def guarded(app: FastAPI, settings: WitnessSettings) -> Edge:
    """A witness's HTTP service behind its ring of addresses."""
    allowed = {str(one) for one in settings.callers} | {str(one.address) for one in settings.logs}

    def gate(source: str, path: str) -> None:
        if source not in allowed:
            raise WitnessRefusal(
                f"{source or 'an unknown address'} may not use {path} of this witness",
                code="source_wrong",
                constraint="mesh address of the caller",
                hint="ask from a node of the pool",
            )

    return Edge(app, gate, MAX_BODY)


def witness_of(settings: WitnessSettings) -> Witness:
    """A witness from its settings; its key is born here, the first time.

    Raises:
        KeyUnusable: the key cannot be made or used.
        MemoryLost: it has a key, and nothing says any more what it signed.
        MemoryDamaged: its memory cannot be made or read.
    """
    key, memory = settings.folder / "witness.key", Store(settings.folder)
    memory.begin(new=not key.exists())
    if not key.exists():
        keys.generate(key, keys.public_path(key))
    signer = Signer(settings.name, keys.load_private(key))
    logs = {one.origin: one.address for one in settings.logs}
    return Witness(signer, logs, memory, time.time)


def serve(settings: WitnessSettings) -> None:
    """Run a witness until it is told to stop.

    Raises:
        PpnError: an address that is not the mesh's, a key that cannot be used, or another process
            that has the same memory.
    """
    check_mesh_address(settings.address, settings.mesh_range, development=settings.development)
    folder: Path = settings.folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with folder_lock(folder, timeout=LOCK_SECONDS):
        uvicorn.run(
            guarded(create_app(witness_of(settings)), settings),
            host=str(settings.address),
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=10,
        )
    log.info("stopped")
