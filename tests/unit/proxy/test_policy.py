"""Who may ask what of a node: decided from address, certificate, role and ticket."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.host.proxy import policy
from ppn.host.proxy.policy import Forbidden
from ppn.pool.tls import Identity, identity_of
from ppn.wire import agent
from ppn.wire.agent import Ticket
from ppn.wire.moving import Greet
from ppn.wire.problems import status_of

NOW = 1_800_000_000.0
RELAY = Identity("relay", frozenset({"relay", "controller"}), frozenset({"10.8.0.1"}), NOW + 1)
OPERATOR = Identity("me", frozenset({"operator"}), frozenset(), NOW + 1)
HYPERVISOR = replace(RELAY, roles=frozenset({"hypervisor"}))
TICKET = Ticket(node="server", session="5" * 32, nonce="a" * 32)
NETWORKS = st.lists(st.builds(lambda a: IPv4Network((a, 28), strict=False), st.ip_addresses(v=4)))


@given(source=st.ip_addresses(v=4), allowed=NETWORKS)
def test_only_listed_addresses_connect(source: IPv4Address, allowed: list[IPv4Network]) -> None:
    """NP-02: what is in no listed network stays outside; an empty list lets nobody in."""
    assert policy.may_connect(source, allowed) == bool([one for one in allowed if source in one])
    for network in allowed:
        assert policy.may_connect(network[3], allowed)


def refused(caller: Identity, source: str = "10.8.0.1", now: float = NOW) -> str:
    with pytest.raises(Forbidden) as caught:
        policy.check_caller(caller, source, now)
    assert status_of(caught.value) == 403
    return caught.value.code


def test_a_controller_and_an_operator_are_heard() -> None:
    policy.check_caller(RELAY, "10.8.0.1", NOW)
    policy.check_caller(OPERATOR, "10.8.0.99", NOW)


def test_another_node_of_the_pool_is_not() -> None:
    """HOST-02: another mesh peer calls a node directly: 403."""
    policy.check_caller(HYPERVISOR, "10.8.0.1", NOW)
    for operation in (*get_args(agent.Change), *get_args(agent.Question)):
        with pytest.raises(Forbidden):
            policy.check_operation(HYPERVISOR, operation, TICKET, "server")
    with pytest.raises(Forbidden):
        policy.check_role(HYPERVISOR)
    assert refused(replace(RELAY, roles=frozenset())) == "forbidden"
    assert refused(replace(RELAY, node="")) == "forbidden"


def test_a_certificate_is_good_from_its_own_address_alone() -> None:
    assert refused(RELAY, source="10.8.0.2") == "source_wrong"


def test_a_connection_does_not_outlive_its_certificate() -> None:
    """NP-01: also when the certificate ends after the handshake."""
    assert refused(RELAY, now=NOW + 1) == "certificate_ended"


@pytest.mark.parametrize("operation", get_args(agent.Change))
def test_changes_need_a_controller_and_a_ticket_for_this_node(operation: type) -> None:
    """HOST-02: a request without a ticket, or with another node's, is refused."""
    policy.check_operation(RELAY, operation, TICKET, "server")
    for ticket in (None, TICKET.model_copy(update={"node": "laptop"})):
        with pytest.raises(Forbidden) as caught:
            policy.check_operation(RELAY, operation, ticket, "server")
        assert caught.value.code == "ticket_refused"
    with pytest.raises(Forbidden) as caught:
        policy.check_operation(OPERATOR, operation, TICKET, "server")
    assert caught.value.code == "forbidden"


@pytest.mark.parametrize("operation", get_args(agent.Delivery))
def test_a_vm_is_sent_by_the_node_it_comes_from_alone(operation: type) -> None:
    """MIG-01, HOST-02: a hypervisor may send a VM in its own name; a controller may not."""
    policy.check_operation(HYPERVISOR, operation, None, "server")
    for caller in (RELAY, OPERATOR):
        with pytest.raises(Forbidden):
            policy.check_operation(caller, operation, TICKET, "server")
    order = {"vm": "vm-odh2cxdxox2xydov", "move": "a" * 32, "secret": "s" * 43}
    policy.check_sender(HYPERVISOR, Greet.model_validate({**order, "source": "relay"}))
    with pytest.raises(Forbidden):
        policy.check_sender(HYPERVISOR, Greet.model_validate({**order, "source": "server"}))


@pytest.mark.parametrize("operation", get_args(agent.Question))
def test_questions_need_no_ticket(operation: type) -> None:
    policy.check_operation(RELAY, operation, None, "server")
    if operation not in policy.CONTROLLERS_ONLY:
        policy.check_operation(OPERATOR, operation, None, "server")


@pytest.mark.parametrize("operation", get_args(agent.ControllersOnly))
def test_what_a_node_is_made_of_is_for_controllers_alone(operation: type) -> None:
    """CLI-03: an operator's certificate may look at VMs, not into them."""
    with pytest.raises(Forbidden) as caught:
        policy.check_operation(OPERATOR, operation, None, "server")
    assert caught.value.code == "forbidden"


@pytest.mark.parametrize("operation", get_args(agent.RootOnly))
def test_what_is_for_root_is_for_no_controller(operation: type) -> None:
    """FLEET-21."""
    with pytest.raises(Forbidden) as caught:
        policy.check_operation(RELAY, operation, TICKET, "server")
    assert caught.value.code == "forbidden"


def test_identity_is_what_the_certificate_names() -> None:
    names = (
        ("URI", "ppn:node:relay"),
        ("URI", "ppn:role:controller"),
        ("URI", "https://example.net/ppn:role:operator"),
        ("DNS", "ppn:role:operator"),
        ("IP Address", "10.8.0.1"),
    )
    peer = {"subjectAltName": names, "notAfter": "Jan 15 08:00:00 2027 GMT"}
    wanted = Identity("relay", frozenset({"controller"}), frozenset({"10.8.0.1"}), NOW)
    assert identity_of(peer) == wanted
    twice = peer | {"subjectAltName": (*names, ("URI", "ppn:node:other"))}
    assert identity_of(twice).node == ""
    assert identity_of({"notAfter": peer["notAfter"]}).roles == frozenset()
