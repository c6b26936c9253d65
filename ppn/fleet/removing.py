"""Removing VMs, and changing those that are there: forwarded to the node that has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ppn.errors import PpnError, Refusal
from ppn.fleet.making import Asked
from ppn.fleet.node import Held, Node
from ppn.fleet.nodes import Call, Nodes, NodeUnreachable, OutcomeUnknown, vm_in
from ppn.fleet.registry import Registry
from ppn.log import get_logger

RETRY_SECONDS = 1.0
POLL_SECONDS = 0.1
# An agent that starts tells of it at once; its heartbeat is on its way for no longer than this.
SESSION_SECONDS = 10.0
# No VM's: who names it means that there is none.
NOBODY = "00000000-0000-0000-0000-000000000000"

log = get_logger("fleet")


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

    async def remove(self, vm: str, asked: Asked, uuid: str | None = None) -> tuple[str, ...]:
        """Have a VM removed; returns the nodes on which nothing of it is left now.

        Args:
            vm: its id.
            asked: who waits.
            uuid: the one that is meant; None for whatever has this id now.

        Raises:
            Refusal: `vm_unknown`, `nodes_silent`; `vm_replaced`: a node has another one of this id,
                which stays.
            PpnError: a node could not be asked, or could not do it.
        """
        held = self.find(vm)
        other: PpnError | None = None
        for one in held:
            try:
                await self.remove_from(vm, one.node, asked, uuid)
            except PpnError as error:
                if error.code != "vm_replaced":
                    raise
                other = error
        if other is not None:
            raise other
        return tuple(one.node for one in held)

    async def remove_from(self, vm: str, node: str, asked: Asked, uuid: str | None = None) -> None:
        """Have one node remove a VM, if it has it.

        Args:
            vm: its id.
            node: which has it.
            asked: who waits.
            uuid: the one that is meant; None for the one that is there when this begins.

        Raises:
            Refusal: `vm_replaced`: the node has another one of this id.
            PpnError: the node could not be asked, could not do it, or does not say.
        """
        while True:
            try:
                # What is sent twice or comes late must not meet one that was made anew since.
                uuid = uuid or await self._uuid_at(vm, node, asked)
                await self.send(vm, node, asked, "DELETE", f"?uuid={uuid}" if uuid else "")
                break
            except OutcomeUnknown:
                # Removing the same one twice is the same as removing it once.
                if asked.deadline - self.clock() <= 2 * RETRY_SECONDS:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            except PpnError as error:
                if error.code != "vm_unknown":
                    raise
                break
        self.registry.forget(vm, node, self.clock())
        log.info("removed", vm=vm, node=node)

    async def _uuid_at(self, vm: str, node: str, asked: Asked) -> str:
        """Which VM of an id a node has now; empty where its record does not say.

        Raises:
            PpnError: the node could not be asked, or does not say.
        """
        try:
            answer = await self.send(vm, node, asked, "GET", "")
        except PpnError as error:
            if error.code != "vm_unknown":
                raise
            # It may be about to make one: only its agent knows, and then says so.
            return NOBODY
        return vm_in(answer, node).uuid or ""

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

        A refused ticket says that the agent has started again and nothing was done: it is written
        anew as soon as the new session is heard.

        Raises:
            PpnError: see `Nodes.ask`.
        """
        known = self._node(node)
        session = session_of(known)
        if not session and method != "GET":
            raise NodeUnreachable(
                f"node {node} has not been heard yet", hint="ask again once it is heard"
            )
        while True:
            call = Call(
                node=node,
                address=known.address,
                method=method,
                path=f"/v1/vms/{vm}{what}",
                correlation_id=asked.correlation_id,
                session=session if method != "GET" else None,
                body=body,
                seconds=max(asked.deadline - self.clock(), RETRY_SECONDS),
            )
            try:
                return await self.nodes.ask(call)
            except PpnError as error:
                if error.code != "ticket_refused" or not await self._followed(
                    known, session, asked
                ):
                    raise
            session = session_of(known)

    async def _followed(self, node: Node, session: str, asked: Asked) -> bool:
        """Whether another session of an agent follows soon: then it has started again."""
        end = min(asked.deadline, self.clock() + SESSION_SECONDS)
        while session_of(node) == session:
            if self.clock() >= end:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def question(
        self, vm: str, asked: Asked, what: str, node: str | None = None
    ) -> dict[str, Any]:
        """Ask about a VM: the node that has it, or the one that is named.

        Args:
            vm: its id.
            asked: who waits.
            what: the rest of the path, for example `/timeline`.
            node: asked although the VM may be known nowhere, as one that could not be made.

        Raises:
            PpnError: see `ask`.
        """
        if node is None:
            return await self.ask(vm, asked, "GET", what)
        return {**await self.send(vm, node, asked, "GET", what), "node": node}

    async def look(self, node: str, path: str, asked: Asked) -> dict[str, Any]:
        """What a node's agent says of the node now, whatever its last heartbeat said.

        Args:
            node: its name in the inventory.
            path: what is asked, with the version in front.
            asked: who waits.

        Raises:
            PpnError: `node_unknown`, or see `Nodes.ask`.
        """
        return await self.nodes.ask(
            Call(
                node=node,
                address=self._node(node).address,
                method="GET",
                path=path,
                correlation_id=asked.correlation_id,
                seconds=max(asked.deadline - self.clock(), RETRY_SECONDS),
            )
        )

    def _node(self, name: str) -> Node:
        known = self.registry.nodes.get(name)
        if known is None:
            raise PpnError(f"node {name} is not in the inventory any more", code="node_unknown")
        return known


def session_of(node: Node) -> str:
    """The agent's session as its newest heartbeat names it; empty before the first."""
    return node.heartbeat.session if node.heartbeat is not None else ""


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
