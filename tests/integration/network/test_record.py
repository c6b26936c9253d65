"""Rules come and go with the record, whatever happens in between."""

from __future__ import annotations

import json
import sys

from tests.integration.mesh.namespaces import wait_for
from tests.integration.network.conftest import MESH, Site, fetch, is_silent

WEB = [{"guest": 80}]


def test_rules_come_back_after_a_boot_and_after_somebody_flushed_them(site: Site) -> None:
    one = site.guest("one", ports=WEB)
    first = site.server.sh("nft -s list ruleset")
    site.synchronise()
    assert site.server.sh("nft -s list ruleset") == first
    site.server.sh("nft delete table inet ppn_vm; nft delete table bridge ppn_vm")
    assert is_silent(site.peer, MESH, one.host_port())
    site.synchronise()
    assert fetch(site.peer, MESH, one.host_port()) == "one"
    assert site.server.sh("nft -s list ruleset") == first


def test_what_a_killed_run_opened_is_closed_by_the_next(site: Site) -> None:
    """Rules are loaded before the record is written: the record decides."""
    one = site.guest("one", ports=WEB)
    site.server.sh("nft add element inet ppn_vm ports '{ tcp . 31999 : 10.9.2.99 . 80 }'")
    assert "31999" in site.server.sh("nft list ruleset")
    assert list(json.loads(site.synchronise())["guests"]) == ["one"]
    assert "31999" not in site.server.sh("nft list ruleset")
    assert fetch(site.peer, MESH, one.host_port()) == "one"


def test_nothing_leads_to_a_vm_that_is_gone(site: Site) -> None:
    one = site.guest("one", ports=WEB)
    two = site.guest("two", ports=WEB)
    for path in (site.paths.vm("one").sidecar, site.paths.vm("one").folder):
        path.unlink() if path.is_file() else path.rmdir()
    site.synchronise()
    rules = site.server.sh("nft list ruleset")
    for text in (one.tap, one.mac, f" {one.lease.address} ", str(one.host_port())):
        assert text not in rules
    assert is_silent(site.peer, MESH, one.host_port())
    assert fetch(site.peer, MESH, two.host_port()) == "two"


def test_a_port_in_use_is_seen_whatever_address_it_is_on(site: Site) -> None:
    """A listener of the node on any address keeps its port."""
    for kind, port in (("SOCK_STREAM", 30001), ("SOCK_DGRAM", 30002)):
        line = f"s = socket.socket(type=socket.{kind}); s.bind(('', {port}))"
        if kind == "SOCK_STREAM":
            line += "; s.listen()"
        site.server.start("python3", "-c", f"import socket, time; {line}; time.sleep(600)")
    wait_for(lambda: site.server.sh("ss -Hltnu").count(":3000") == 2, 120, "both listen")
    network = json.loads(site.synchronise())["network"]
    assert network["busy"] == [["tcp", 30001], ["udp", 30002]]


def test_a_node_without_a_range_has_neither_bridge_nor_rules(site: Site) -> None:
    site.synchronise()
    assert "ppnvm0" in site.server.sh("ip link") and "ppn_vm" in site.server.sh("nft list tables")
    site.configure(vm_range=None)
    assert json.loads(site.synchronise()) == {"network": None, "guests": {}}
    assert "ppnvm0" not in site.server.sh("ip link")
    assert "ppn_vm" not in site.server.sh("nft list tables")
    site.synchronise()


def test_the_gateway_follows_the_range(site: Site) -> None:
    site.synchronise()
    site.configure(vm_range="10.7.0.0/29")
    site.synchronise()
    shown = site.server.sh("ip -4 -o address show dev ppnvm0")
    assert "10.7.0.1/29" in shown and "10.9.2.1" not in shown


def test_a_half_made_bridge_is_completed_by_the_next_change(site: Site) -> None:
    """A kill may leave it without its address; whoever opens a port looks."""
    lease, uuid = site.record("one", ports=WEB)
    site.server.sh("ip link add ppnvm0 type bridge")
    code = (
        "from ppn.host.bridge import network_change; from ppn.host.paths import Paths; import sys\n"
        "with network_change(Paths.from_environment()) as change: change.restore()"
    )
    site.server("env", f"PPN_ROOT={site.root}", sys.executable, "-c", code)
    assert "10.9.2.1/24" in site.server.sh("ip -4 -o address show dev ppnvm0")
    one = site.plug("one", lease, uuid)
    assert fetch(site.peer, MESH, one.host_port()) == "one"
