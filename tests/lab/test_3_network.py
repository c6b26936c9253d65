"""VMs are reached at their node's mesh address, and reach nothing by themselves."""

from __future__ import annotations

import pytest

from tests.lab.pool import LabPool, eventually

MESH = {"server": "10.8.0.2", "laptop": "10.8.0.3"}
# Two lines of HTTP need no program that a node does not have.
FETCH = (
    'bash -c \'exec 3<>/dev/tcp/{address}/{port} && printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3'
    " && cat <&3'"
)
# A guest is emulated, and may be slow; where nothing is to answer there is less to wait for.
ANSWER_SECONDS, SILENCE_SECONDS = 60, 10


def fetch(pool: LabPool, node: str, address: str, port: int, seconds: int = ANSWER_SECONDS) -> str:
    """What answers a node at an address; empty when nothing does."""
    done = pool.node(node).run(f"timeout {seconds} " + FETCH.format(address=address, port=port))
    return str(done.stdout)


@pytest.mark.parametrize("node", MESH)
def test_every_vm_has_an_address_of_its_nodes_range(pool: LabPool, node: str) -> None:
    """IP-01."""
    prefix = {"server": "10.9.2.", "laptop": "10.9.3."}[node]
    addresses = [vm["lease"]["address"] for vm in pool.vms(node).values()]
    assert len(set(addresses)) == len(addresses) > 0
    assert all(address.startswith(prefix) for address in addresses)
    host = pool.node(node)
    assert host.service("ppn-vm-network").is_enabled and host.service("ppn-vm-network").is_running
    assert host.interface("ppnvm0").addresses == [f"{prefix}1"]


def test_a_vm_answers_at_its_nodes_mesh_address(pool: LabPool) -> None:
    """IP-02: from the relay, with no operator command between its declaration and now."""
    vm = pool.vms("server")["web"]
    (port,) = vm["lease"]["ports"]
    said = eventually(lambda: fetch(pool, "relay", MESH["server"], port["host"]), "web answers")
    # It answers a little before it says so: `boot_id=` and an id are the last word of the answer.
    ready = f"ppn-guest ready {said.split()[-1]} "
    eventually(lambda: ready in "\n".join(pool.serial("server", "web")), "web says its boot")
    for node in ("laptop", "server"):
        assert "ppn-guest" in fetch(pool, node, MESH["server"], port["host"])


def test_a_vm_is_reached_in_no_other_way(pool: LabPool) -> None:
    address = pool.vms("server")["web"]["lease"]["address"]
    pool.run("relay", f"ip route add {address} dev ppn0")
    try:
        assert fetch(pool, "relay", address, 80, SILENCE_SECONDS) == ""
    finally:
        pool.run("relay", f"ip route del {address} dev ppn0")
    assert "ppn-guest" in fetch(pool, "server", address, 80)


def test_a_vm_opens_nothing_to_the_mesh_or_its_node(pool: LabPool) -> None:
    """The relay's SSH answers the node, not the node's VM; then nothing is left of it."""
    spec = (
        '{{"name": "probe", "image": "tiny", "vcpus": 1, "memory_mib": 128, "state": "{state}",'
        ' "cmdline_extra": "ppn.reach=10.8.0.1:22 ppn.reach=10.8.0.2:22 ppn.reach=10.9.3.1:22"}}'
    )
    declared, removed = (spec.format(state=state) for state in ("running", "absent"))
    tries = [f"ppn-guest reach target={one}:22" for one in ("10.8.0.1", "10.8.0.2", "10.9.3.1")]

    def tried() -> bool:
        lines = "\n".join(pool.serial("laptop", "probe"))
        return all(one in lines for one in tries)

    try:
        pool.run("laptop", f"echo '{declared}' | ppn host apply")
        vm = pool.vms("laptop")["probe"]
        assert pool.run("laptop", "bash -c 'exec 3<>/dev/tcp/10.8.0.1/22 && head -n 1 <&3'")
        eventually(tried, "the guest has tried all three")
        assert "answer=yes" not in "\n".join(pool.serial("laptop", "probe"))
    finally:
        pool.run("laptop", f"echo '{removed}' | ppn host apply")
    left = pool.run("laptop", "ip -o link; nft list ruleset; ip neigh show dev ppnvm0")
    for text in (f"ppn-{vm['uuid'].replace('-', '')[:11]}", f" {vm['lease']['address']} "):
        assert text not in left


def test_rules_survive_a_flush_of_all_tables(pool: LabPool) -> None:
    """The distribution's own firewall service empties all tables when it starts; ours come back."""
    (port,) = pool.vms("server")["web"]["lease"]["ports"]
    pool.run("server", "nft flush ruleset")
    try:
        assert fetch(pool, "relay", MESH["server"], port["host"], SILENCE_SECONDS) == ""
    finally:
        pool.run("server", "systemctl restart ppn-nftables ppn-vm-network")
    assert "ppn-guest" in fetch(pool, "relay", MESH["server"], port["host"])
