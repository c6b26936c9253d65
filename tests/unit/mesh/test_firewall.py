"""The ruleset: only what the inventory allows, in a table of its own."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, ip_network

from ppn.mesh.firewall import SSH, Service, ruleset
from ppn.mesh.peers import interface_of
from tests.unit.mesh.pools import RELAY, SERVER, SMALL, customer, pool, registry_of

LAPTOP_RULES = """\
# Written by ppn from the inventory; changes made here are undone by the next run.
table inet ppn
delete table inet ppn
table inet ppn {
\tchain input {
\t\ttype filter hook input priority filter; policy accept;
\t\tiifname != { "lo", "ppn0" } ip daddr 10.8.0.0/24 counter drop
\t\tiifname != { "lo", "ppn0" } ip6 daddr fd70:706e::/64 counter drop
\t\tiifname != "ppn0" accept
\t\tip6 saddr { PROBES } ip6 daddr fd70:706e::3 udp dport 51821 accept
\t\tip6 saddr { PROBES } meta l4proto ipv6-icmp accept
\t\tip saddr != { NODES, 192.168.10.0/24 } counter drop
\t\tct state established,related accept
\t\tip saddr { NODES } meta l4proto icmp accept
\t\tip saddr { NODES } tcp dport 22 accept
\t\tcounter drop
\t}
\tchain forward {
\t\ttype filter hook forward priority filter; policy accept;
\t\tiifname "ppn0" counter drop
\t\toifname "ppn0" counter drop
\t}
}
"""


def test_whole_file_of_a_plain_node() -> None:
    """MESH-01, MESH-02: known sources, SSH and path keepers; nothing is forwarded."""
    expected = LAPTOP_RULES.replace("PROBES", ", ".join(f"fd70:706e::{n}" for n in range(1, 5)))
    expected = expected.replace("NODES", ", ".join(f"10.8.0.{n}" for n in range(1, 5)))
    assert ruleset(SMALL, SMALL.node("laptop")) == expected


def test_only_the_relay_forwards_within_the_mesh() -> None:
    """MESH-05, MESH-07."""
    within = 'iifname "ppn0" oifname "ppn0" ip saddr'
    assert within in ruleset(SMALL, RELAY)
    assert within not in ruleset(SMALL, SERVER)


def test_a_node_with_ranges_forwards_to_them_alone() -> None:
    text = ruleset(SMALL, SERVER)
    assert "ip daddr { 192.168.10.0/24 } accept" in text
    assert "ip saddr { 192.168.10.0/24 } ip daddr" in text


def test_only_open_ports_lead_to_guests() -> None:
    """IP-02: from known nodes, for what the node's own table translated; and the answers."""
    hosts_guests = replace(SERVER, ranges=(), vm_range=IPv4Network("10.9.2.0/24"))
    text = ruleset(pool(RELAY, hosts_guests), hosts_guests)
    both = "ip saddr { 10.8.0.1, 10.8.0.2 } ip daddr 10.9.2.0/24 ct status dnat accept"
    assert f'iifname "ppn0" oifname "ppnvm0" {both}' in text
    answers = "ip daddr { 10.8.0.1, 10.8.0.2 } ct state established,related ct status dnat accept"
    assert f'iifname "ppnvm0" oifname "ppn0" ip saddr 10.9.2.0/24 {answers}' in text
    assert "ppnvm0" not in ruleset(pool(RELAY, hosts_guests), RELAY)
    interface = interface_of(pool(RELAY, hosts_guests), registry_of(SMALL), "server")
    assert interface.forwards and not replace(interface, guests=False).forwards


def test_services_are_for_roles_and_on_roles() -> None:
    agent = Service(9204, from_role="relay", on_role="hypervisor")
    rule = "ip saddr { 10.8.0.1 } tcp dport 9204 accept"
    assert rule in ruleset(SMALL, SERVER, (SSH, agent))
    assert "9204" not in ruleset(SMALL, RELAY, (SSH, agent))
    nobody = Service(1, from_role="nobody")
    assert "dport 1 " not in ruleset(SMALL, SERVER, (nobody,))


DOOR = Service(9221, from_role="controller", on_role="tenant-proxy", for_tenants=True)
CUSTOMERS = (customer("one", 201), customer("two", 202, "beta"))


def about_customers(text: str) -> list[str]:
    """The rules that name a customer, in their order."""
    return [line.strip() for line in text.splitlines() if "10.8.0.201" in line]


def test_a_customer_is_let_in_at_the_tenant_proxys_port_alone() -> None:
    """MESH-03: at a tenant proxy's own address; on other nodes all their packets are dropped."""
    proxy = replace(RELAY, roles=frozenset({"relay", "tenant-proxy"}))
    nodes = pool(proxy, SERVER, customers=CUSTOMERS)
    who = "ip saddr { 10.8.0.201, 10.8.0.202 }"
    early = [
        f'iifname "ppn0" {who} ip daddr {{ 10.8.0.1 }} tcp dport 9221 accept',
        f'iifname "ppn0" {who} counter drop',
    ]
    door = f"{who} ip daddr 10.8.0.1 tcp dport 9221"
    over = "add @customer_connections { ip saddr ct count over 256 }"
    late = [f"{door} ct state new {over} counter drop", f"{door} accept"]
    assert about_customers(ruleset(nodes, proxy, (SSH, DOOR))) == [*early, *late]
    assert about_customers(ruleset(nodes, SERVER, (SSH, DOOR))) == early
    assert about_customers(ruleset(nodes, proxy, (SSH,))) == early[1:]


def test_a_relay_lets_customers_through_to_tenant_proxies_and_only_answers_back() -> None:
    """MESH-03: not to another customer, not to another port, and no node may call a customer."""
    proxy = replace(SERVER, roles=frozenset({"tenant-proxy"}))
    nodes = pool(RELAY, proxy, customers=CUSTOMERS)
    within = 'iifname "ppn0" oifname "ppn0" ip'
    who = "{ 10.8.0.201, 10.8.0.202 }"
    assert about_customers(ruleset(nodes, RELAY, (SSH, DOOR)))[2:] == [
        f"{within} saddr {who} ip daddr {{ 10.8.0.2 }} tcp dport 9221 accept",
        f"{within} saddr {{ 10.8.0.2 }} ip daddr {who} tcp sport 9221 ct state established accept",
    ]
    assert f"saddr {who} ip daddr 10.8.0.2 tcp dport 9221" in ruleset(nodes, proxy, (SSH, DOOR))


def test_a_door_for_customers_is_still_for_its_own_role() -> None:
    proxy = replace(RELAY, roles=frozenset({"relay", "tenant-proxy"}))
    controller = replace(SERVER, roles=frozenset({"controller"}))
    text = ruleset(pool(proxy, controller), proxy, (DOOR,))
    assert [line for line in text.splitlines() if "9221" in line] == [
        "\t\tip saddr { 10.8.0.2 } tcp dport 9221 accept"
    ]


def test_ssh_from_outside_is_for_operators_where_the_inventory_says_who_they_are() -> None:
    """MESH-03: the one port beside WireGuard's that a node has on the underlay."""
    assert "dport 22 ct state new" not in ruleset(SMALL, SERVER)
    some = replace(SMALL, ssh_from=(ip_network("203.0.113.0/28"), ip_network("203.0.113.64/32")))
    outside = 'iifname != { "lo", "ppn0" } tcp dport 22 ct state new'
    lines = [line.strip() for line in ruleset(some, SERVER).splitlines()]
    rules = [
        f"{outside} ip saddr != {{ 203.0.113.0/28, 203.0.113.64/32 }} counter drop",
        f"{outside} meta nfproto ipv6 counter drop",
    ]
    assert [line for line in lines if line.startswith(outside)] == rules
    assert lines.index(rules[1]) < lines.index('iifname != "ppn0" accept')
    nobody = ruleset(replace(SMALL, ssh_from=()), SERVER)
    assert f"{outside} meta nfproto ipv4 counter drop" in nobody
