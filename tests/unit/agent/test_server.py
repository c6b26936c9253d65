"""The agent's socket: what is said of a VM whose spawn waits for its turn."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from ppn.errors import Refusal
from ppn.host.agent.policy import Role
from ppn.host.agent.server import Server
from ppn.host.agent.tickets import Tickets
from ppn.host.spec import VmSpec
from ppn.wire.agent import Operation, Request, Response, ShowVm, Spawn

SPEC = VmSpec(name="vm-1", image="tiny", vcpus=1, memory_mib=64, hostname="vm-1")


def test_a_vm_whose_spawn_waits_is_not_unknown() -> None:
    """FLEET-19: a controller that is told `vm_unknown` has the VM made elsewhere."""
    go_on = threading.Event()

    def do(body: Operation, _: str) -> dict[str, Any]:
        if isinstance(body, Spawn):
            go_on.wait(30)
            return {}
        raise Refusal("vm-1", code="vm_unknown", constraint="known VM")

    server = Server(do, Tickets("node"), proxy_uid=None)

    async def ask(body: Spawn | ShowVm) -> Response:
        request = Request(correlation_id="test-correlation", body=body)
        return await server._answer(Role.ROOT, request.model_dump_json().encode())

    async def story() -> tuple[Response, Response]:
        spawn = asyncio.create_task(ask(Spawn(vm=SPEC)))
        while not server._spawns:
            await asyncio.sleep(0.01)
        during = await ask(ShowVm(vm="vm-1"))
        go_on.set()
        await spawn
        return during, await ask(ShowVm(vm="vm-1"))

    codes = [one.problem.code for one in asyncio.run(story()) if one.problem is not None]
    assert codes == ["vm_busy", "vm_unknown"]
