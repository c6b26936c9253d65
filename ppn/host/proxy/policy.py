"""What the node proxy lets through: decided from the caller's address, certificate and request."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import get_args

from ppn.errors import Refusal
from ppn.pool.tls import Identity
from ppn.wire import agent
from ppn.wire.agent import Operation, Ticket
from ppn.wire.moving import Deliver, Greet

CONTROLLER = "controller"
# An operator may look; what is done to a VM comes from a controller, after placement (HOST-02).
MAY_ASK = frozenset({CONTROLLER, "operator"})
# A node that a VM comes from may send it, and nothing else (MIG-01).
HYPERVISOR = "hypervisor"
DELIVERIES: tuple[type, ...] = get_args(agent.Delivery)
CHANGES: tuple[type, ...] = get_args(agent.Change)
ROOT_ONLY: tuple[type, ...] = get_args(agent.RootOnly)
CONTROLLERS_ONLY: tuple[type, ...] = get_args(agent.ControllersOnly)


class Forbidden(Refusal):
    """A caller that may not do what it asked for."""


def may_connect(source: IPv4Address, allowed: Iterable[IPv4Network]) -> bool:
    """Whether an address is inside the ringfence (NP-02)."""
    return any(source in network for network in allowed)


def check_caller(caller: Identity, source: str, now: float) -> None:
    """Refuse a certificate that is not good for this connection, now.

    Args:
        caller: whom the certificate names.
        source: the address the connection comes from.
        now: seconds since 1970; a connection can outlive the certificate it began with.

    Raises:
        Forbidden: it names no node, has ended, is another address's or lacks the role.
    """
    who = caller.node or "a certificate without a node"
    if now >= caller.ends:
        raise Forbidden(
            f"the certificate of {who} has ended",
            code="certificate_ended",
            constraint="certificate lifetime",
            hint="run the pool's deploy for that node: it signs another",
        )
    if caller.addresses and source not in caller.addresses:
        raise Forbidden(
            f"the certificate of {who} is not good for {source}",
            code="source_wrong",
            constraint="source address",
            hint="a certificate is used from the address it names, and nowhere else",
        )
    if not caller.node or not (MAY_ASK | {HYPERVISOR}) & caller.roles:
        raise _no_controller(who)


def check_operation(caller: Identity, operation: type, ticket: Ticket | None, node: str) -> None:
    """Refuse what this caller may not ask of this node.

    Args:
        caller: sound in itself.
        operation: a kind of `ppn.wire.agent.Operation`.
        ticket: the controller's decision; the agent judges whether it is fresh.
        node: this one.

    Raises:
        Forbidden: an operation for root, a controller or another node alone, or no ticket for this
            node.
    """
    if operation in DELIVERIES:
        if HYPERVISOR not in caller.roles:
            raise _operation_forbidden(caller, "the node a VM comes from sends it")
        return
    check_role(caller)
    if operation in ROOT_ONLY:
        raise _operation_forbidden(caller, "it is for root on the node alone")
    if operation in CONTROLLERS_ONLY and CONTROLLER not in caller.roles:
        raise _operation_forbidden(caller, "a controller asks that")
    if operation not in CHANGES:
        return
    if CONTROLLER not in caller.roles:
        raise _operation_forbidden(caller, "a controller decides that, after placement")
    if ticket is None or ticket.node != node:
        found = "no ticket" if ticket is None else f"a ticket for {ticket.node}"
        raise Forbidden(
            f"{found} came with the request, and {node} needs one of its own",
            code="ticket_refused",
            constraint="placement ticket",
            hint="ask the fleet controller; it sends a ticket with what it decided",
        )


def check_role(caller: Identity) -> None:
    """Refuse a caller that may only send VMs here.

    Raises:
        Forbidden: it is neither controller nor operator.
    """
    if not MAY_ASK & caller.roles:
        raise _no_controller(caller.node)


def check_sender(caller: Identity, asked: Operation) -> None:
    """Refuse a node that sends a VM in the name of another.

    Args:
        caller: sound in itself.
        asked: what it asks.

    Raises:
        Forbidden: it is not the node it says it is.
    """
    if isinstance(asked, Greet | Deliver) and asked.source != caller.node:
        raise _operation_forbidden(caller, f"it says that it is {asked.source}")


def _no_controller(who: str) -> Forbidden:
    return Forbidden(
        f"{who} is no controller of this pool",
        code="forbidden",
        constraint="role of the caller",
        hint="ask the fleet controller; it alone speaks to nodes",
    )


def _operation_forbidden(caller: Identity, reason: str) -> Forbidden:
    return Forbidden(
        f"{caller.node} may not ask for this: {reason}",
        code="forbidden",
        constraint="role of the caller",
        hint="ask the fleet controller",
    )
