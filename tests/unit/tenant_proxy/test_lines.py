"""How many connections a caller has at once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from uvicorn.server import ServerState

from ppn.tenant import door
from ppn.tenant.door import Line
from ppn.tenant.openapi import bare_app
from ppn.wire.connection import http_config
from ppn.wire.web import Edge


def test_a_tenants_machines_together_take_not_all_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TEN-09: nor one machine; those of others find room, and what ends is counted out."""
    monkeypatch.setattr(door, "CONNECTIONS_OF", {"address": 2, "tenant": 3})
    app = Edge(bare_app(), lambda *_: None)
    config, callers = http_config(app, idle_seconds=60), Counter[tuple[str, str]]()
    tenants = {"127.0.0.2": "acme", "127.0.0.3": "acme", "127.0.0.4": "other"}

    async def answered(port: int, source: str) -> tuple[bool, asyncio.StreamWriter]:
        """Whether a new connection is there to stay."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        writer.write(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            return bool(await reader.read(1)), writer
        except ConnectionResetError:
            return False, writer

    async def story() -> None:
        loop, state = asyncio.get_running_loop(), ServerState()
        server = await loop.create_server(
            lambda: Line(config, state, callers, tenants), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        order = ["127.0.0.2"] * 3 + ["127.0.0.3"] * 2 + ["127.0.0.4"] * 2 + ["127.0.0.5"] * 3
        found = [await answered(port, source) for source in order]
        assert [good for good, _ in found] == [
            *(True, True, False), *(True, False), *(True, True), *(True, True, False)
        ]  # fmt: skip
        assert callers["tenant", "acme"] == 3 and callers["address", "127.0.0.3"] == 1
        for _, writer in found:
            writer.close()
        while callers:
            await asyncio.sleep(0.01)
        server.close()

    asyncio.run(asyncio.wait_for(story(), 60))
