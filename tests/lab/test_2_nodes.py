"""What the nodes are once the pool is made: judged from outside, over SSH."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable

import pytest

from tests.lab.pool import LabPool, eventually

NODES = {"relay": "10.8.0.1", "server": "10.8.0.2", "laptop": "10.8.0.3"}
PRIVATE_KEY = re.compile(r"PrivateKey\s*=\s*\S")


@pytest.mark.parametrize("node", NODES)
def test_units_run(pool: LabPool, node: str) -> None:
    host = pool.node(node)
    assert host.service("wg-quick@ppn0").is_running
    assert host.service("wg-quick@ppn0").is_enabled
    failed = host.check_output("systemctl list-units --failed --plain --no-legend")
    assert failed == ""


@pytest.mark.parametrize("node", ["server", "laptop"])
def test_hypervisor_units_run(pool: LabPool, node: str) -> None:
    host = pool.node(node)
    for unit in ("libvirtd", "ppn-kvm-probe", "ppn-path-keeper"):
        assert host.service(unit).is_running, unit
        assert host.service(unit).is_enabled, unit


@pytest.mark.parametrize("node", NODES)
def test_listeners_are_on_mesh_addresses(pool: LabPool, node: str) -> None:
    """MESH-02: apart from SSH and WireGuard itself, nothing listens anywhere but in the mesh."""
    lines = pool.run(node, "ss -Hltnu").splitlines()
    for line in lines:
        kind, *_, local = line.split()[:5]
        address, _, port = local.rpartition(":")
        if (kind, port) in {("tcp", "22"), ("udp", "51820")} or address.startswith("127."):
            continue
        assert address.strip("[]").split("%")[0].startswith(("10.8.0.", "fd70:706e:")), line


@pytest.mark.parametrize("node", NODES)
def test_file_modes(pool: LabPool, node: str) -> None:
    host = pool.node(node)
    key = host.file("/etc/wireguard/ppn0.key")
    assert (key.mode, key.user, key.group) == (0o600, "root", "root")
    assert not PRIVATE_KEY.search(host.file("/etc/wireguard/ppn0.conf").content_string)


def private_keys(pool: LabPool) -> dict[str, str]:
    """Each node's own."""
    keys = {node: pool.run(node, "cat /etc/wireguard/ppn0.key").strip() for node in NODES}
    assert len(set(keys.values())) == 3
    return keys


def test_no_private_key_leaves_its_node(pool: LabPool) -> None:
    """Not in the other nodes' files, nor in the operator's."""
    keys = private_keys(pool)
    argv = ["grep", "-rlF", "--exclude-dir=nodes", *named(keys.values())]
    found = subprocess.run(
        [*argv, str(pool.paths.state_dir), "."],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.stdout == ""
    for node in NODES:
        others = " ".join(named(key for other, key in keys.items() if other != node))
        assert pool.run(node, f"grep -rlF {others} /etc /run/ppn /var/lib/ppn || true") == ""


def named(keys: Iterable[str]) -> list[str]:
    """The keys as grep's patterns."""
    return [f"--regexp={key}" for key in keys]


def test_no_private_key_is_in_plans_and_logs(pool: LabPool) -> None:
    """However much the operator asks to be told."""
    plan = pool.pyinfra("--dry", "-vvv", "--debug-operations").log
    assert [node for node, key in private_keys(pool).items() if key in plan] == []


@pytest.mark.parametrize("node", NODES)
def test_every_pair_of_nodes_reaches_each_other(pool: LabPool, node: str) -> None:
    """MESH-01, MESH-05: also from one site behind NAT to another."""
    for address in NODES.values():
        pool.run(node, f"ping -c 1 -w 60 {address}")


def test_peers_and_ranges_equal_the_inventory(pool: LabPool) -> None:
    """MESH-04: static peers with keys that each made for itself; a customer's ends at its door."""
    public = {node: pool.run(node, "wg show ppn0 public-key").strip() for node in NODES}
    customer = pool.paths.customer_public_key.read_text().strip()
    for node in NODES:
        peers = set(pool.run(node, "wg show ppn0 peers").split())
        assert peers - {customer} <= {key for name, key in public.items() if name != node}
        assert public["relay"] in peers | {public[node]}
        assert (customer in peers) is (node == "relay")


def test_relay_runs_no_vms(pool: LabPool) -> None:
    """MESH-07: relaying needs no part in running VMs."""
    assert pool.run("relay", "virsh list --all --name 2>/dev/null || true").strip() == ""


def path_to(pool: LabPool, node: str, peer: str) -> str:
    """Which path a node's keeper has put a peer on; empty while no keeper has said so."""
    lines: list[str] = pool.node(node).run("ppn mesh paths").stdout.splitlines()
    return dict(line.split() for line in lines).get(peer, "")


@pytest.mark.fault(
    "the direct path between two sites is cut",
    "traffic goes on through the relay, and back when it is healed",
)
def test_direct_path_is_used_while_it_works(pool: LabPool) -> None:
    """MESH-05, MESH-06: cut between the sites, traffic goes on through the relay, and back."""
    eventually(lambda: path_to(pool, "laptop", "server") == "direct", "laptop goes direct")
    eventually(lambda: path_to(pool, "server", "laptop") == "direct", "server goes direct")
    pool.lab("cut", "site-a", "site-b")
    try:
        eventually(lambda: path_to(pool, "laptop", "server") == "relay", "laptop goes to the relay")
        eventually(lambda: path_to(pool, "server", "laptop") == "relay", "server goes to the relay")
        pool.run("laptop", "ping -c 3 -w 60 10.8.0.2")
    finally:
        pool.lab("heal", "site-a", "site-b")
    eventually(lambda: path_to(pool, "laptop", "server") == "direct", "laptop is direct again")
    pool.run("laptop", "ping -c 3 -w 60 10.8.0.2")


@pytest.mark.fault(
    "kill -9 of wireguard-go",
    "systemd starts it again with address, peers and paths as before",
)
@pytest.mark.parametrize("node", ["laptop", "relay"])
def test_wireguard_that_is_killed_comes_back_by_itself(pool: LabPool, node: str) -> None:
    """MESH-04, MESH-06: address, peers and paths as before, and no run is needed for it."""
    if pool.run(node, "ip link show type wireguard dev ppn0").strip():
        pytest.skip("the nodes' kernel has WireGuard: no program can be killed")
    before = pool.run(node, "pidof wireguard-go")
    pool.run(node, f"kill -9 {before}")

    def again() -> bool:
        return pool.node(node).run("pidof wireguard-go").stdout.strip() not in ("", before)

    eventually(again, "wireguard-go runs again")
    # Services of the pool start anew with it: a run would start what it finds between two starts.
    jobs = "systemctl list-jobs --no-legend 'ppn-*' 'wg-quick@*'"
    eventually(lambda: not pool.run(node, jobs), "all that stands on it has started anew")
    ping = "ping -c 1 -W 1 10.8.0.1"
    # Behind NAT a node notices by its unanswered packets that the relay has forgotten it: 15 s.
    eventually(lambda: pool.node("laptop").run(ping).rc == 0, "the laptop reaches the relay")
    eventually(lambda: path_to(pool, "laptop", "server") == "direct", "laptop is direct again")
    pool.run("laptop", "ping -c 3 -w 60 10.8.0.2")
    run = pool.pyinfra("-y", "--limit", node)
    assert run.changed == set(), run.log


@pytest.mark.parametrize("node", NODES)
def test_path_keeper_is_confined(pool: LabPool, node: str) -> None:
    """A service of its own user, in a unit that systemd rates as OK or better."""
    unit = "ppn-path-keeper.service"
    assert pool.run(node, f"systemctl show -p User --value {unit}").strip() == "ppn-mesh"
    rating = pool.run(node, f"systemd-analyze security --no-pager {unit} | tail -n 1")
    assert "OK" in rating or "SAFE" in rating, rating
