"""Removing VMs, and changing those that are there: forwarded to the node that has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from ppn.errors import PpnError, Refusal
from ppn.fleet.making import Asked
from ppn.fleet.node import Held
from ppn.fleet.nodes import Call, Nodes, NodeUnreachable, OutcomeUnknown
from ppn.fleet.registry import Registry

RETRY_SECONDS = 1.0

log = structlog.get_logger("fleet")


@dataclass
class Remover:
    """Has VMs removed or changed by the agent of their node.

    Args:
        registry: what is known of the pool.
        nodes: the way to the agents.
        clock: seconds that never jump.
    """

    registry: Registry
    nodes: Nodes
    clock: Callable[[], float]

    async def remove(self, vm: str, asked: Asked) -> tuple[str, ...]:
        """Have a VM removed; returns the nodes on which nothing of it is left now.

        Args:
            vm: its id.
            asked: who waits.

        Raises:
            Refusal: `vm_unknown`, `nodes_silent`.
            PpnError: a node could not be asked, or could not do it.
        """
        held = self.find(vm)
        for one in held:
            await self.remove_from(vm, one.node, asked)
        return tuple(one.node for one in held)

    async def remove_from(self, vm: str, node: str, asked: Asked) -> None:
        """Have one node remove a VM, if it has it.

        Raises:
            PpnError: the node could not be asked, could not do it, or does not say.
        """
        while True:
            try:
                await self.send(vm, node, asked, "DELETE", "")
                break
            except OutcomeUnknown:
                # Removing twice is the same as removing once.
                if asked.deadline - self.clock() <= 2 * RETRY_SECONDS:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            except PpnError as error:
                if error.code != "vm_unknown":
                    raise
                break
        self.registry.forget(vm, node, self.clock())
        log.info("removed", vm=vm, node=node)

    async def ask(
        self,
        vm: str,
        asked: Asked,
        method: str,
        what: str,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Send a question or a change about a VM to the node that has it.

        Args:
            vm: its id.
            asked: who waits.
            method: of HTTP; all but GET are changes.
            what: the rest of the path, for example `/stop`.
            body: JSON.

        Returns:
            What the node answered, with `node` beside it.

        Raises:
            Refusal: `vm_unknown`, `nodes_silent`, `vm_doubled`, or the node's own.
            PpnError: the node could not be asked, or could not do it.
        """
        held = self.find(vm)
        if len(held) > 1:
            raise doubled(vm, held)
        answer = await self.send(vm, held[0].node, asked, method, what, body)
        return {**answer, "node": held[0].node}

    def find(self, vm: str) -> tuple[Held, ...]:
        """Where a VM is.

        Raises:
            Refusal: `vm_unknown` when every node says it has none; `nodes_silent` when some node
                is not heard, and might have it.
        """
        now = self.clock()
        if held := self.registry.find(vm, now):
            return held
        self.registry.check_warm(now)
        nodes = self.registry.nodes
        silent = sorted(name for name in nodes if self.registry.is_stale(nodes[name], now))
        if silent:
            raise Refusal(
                f"no node that is heard has vm {vm}; not heard: {', '.join(silent)}",
                code="nodes_silent",
                constraint="nodes heard lately",
                wanted=len(nodes),
                free=len(nodes) - len(silent),
                unit="node",
                hint="ask again once they are heard",
            )
        raise Refusal(
            f"no node has vm {vm}",
            code="vm_unknown",
            constraint="known VM",
            hint="list the VMs",
        )

    async def send(
        self,
        vm: str,
        node: str,
        asked: Asked,
        method: str,
        what: str,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Send a request about a VM to a node.

        Raises:
            PpnError: see `Nodes.ask`.
        """
        known = self.registry.nodes.get(node)
        if known is None:
            raise PpnError(f"node {node} is not in the inventory any more", code="node_unknown")
        session = known.heartbeat.session if known.heartbeat is not None else None
        if session is None and method != "GET":
            raise NodeUnreachable(
                f"node {node} has not been heard yet", hint="ask again once it is heard"
            )
        return await self.nodes.ask(
            Call(
                node=node,
                address=known.address,
                method=method,
                path=f"/v1/vms/{vm}{what}",
                correlation_id=asked.correlation_id,
                session=session if method != "GET" else None,
                body=body,
                seconds=max(asked.deadline - self.clock(), RETRY_SECONDS),
            )
        )


def doubled(vm: str, held: tuple[Held, ...]) -> Refusal:
    """The refusal to choose between several VMs of one id.

    Args:
        vm: the id.
        held: where they are.
    """
    names = " and ".join(one.node for one in held)
    return Refusal(
        f"vm {vm} is on {names}; which is the right one is for the operator to say",
        code="vm_doubled",
        constraint="one VM of an id",
        hint="destroy one of them on its node",
    )
