"""The path keepers move traffic to a direct path and back, on real tunnels."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ppn.inventory import pool_from_data
from ppn.mesh.registry import Registry
from tests.integration.mesh.conftest import DATA, Mesh
from tests.integration.mesh.namespaces import Namespace, Program, connect, wait_for

STATE = "/run/ppn/mesh/paths.json"
PATIENCE = 180.0


def peers_of(node: Namespace) -> dict[str, str]:
    state = json.loads(node("cat", STATE).stdout)
    return {peer["name"]: peer["path"] for peer in state["peers"]}


def path_to(node: Namespace, peer: str) -> str:
    return peers_of(node)[peer]


def both_on(mesh: Mesh, path: str) -> bool:
    one, other = path_to(mesh.laptop, "server"), path_to(mesh.server, "laptop")
    return one == other == path


def pinging(node: Namespace, address: str) -> Program:
    return node.start("ping", "-n", "-i", "0.02", address)


def lost(program: Program) -> tuple[int, int]:
    """How many pings were sent and lost up to the last one that was answered; ends the ping.

    What is on its way when ping ends would count as lost in ping's own summary.
    """
    printed = program.signal(signal.SIGINT)
    answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", printed)}
    assert answered, printed
    return max(answered), max(answered) - len(answered)


@contextmanager
def cable(mesh: Mesh) -> Iterator[None]:
    """Between server and laptop, until the block ends."""
    name = connect(mesh.server, "192.0.2.65/30", mesh.laptop, "192.0.2.66/30")
    try:
        mesh.laptop.sh(f"ip route add 203.0.113.2 via 192.0.2.65 dev {name}")
        yield
    finally:
        mesh.laptop.sh(f"ip link del {name}")


def bound(node: Namespace) -> list[str]:
    """The addresses at which a path keeper listens."""
    lines = node("ss", "-Hlunp").stdout.splitlines()
    return [line.split()[3] for line in lines if "51821" in line]


@pytest.fixture(scope="module")
def kept(mesh: Mesh) -> Mesh:
    """The mesh with path keepers."""
    for node in mesh.members:
        node.keep_paths()
    # Their states they have told by then.
    wait_for(lambda: all(bound(node) for node in mesh.members), PATIENCE, "path keepers")
    return mesh


def test_keepers_listen_on_their_probe_address_alone(kept: Mesh) -> None:
    """MESH-02: the path keeper binds its mesh-only address and no other."""
    for number, node in enumerate(kept.members, start=1):
        assert bound(node) == [f"[fd70:706e::{number}]:51821"]


def test_the_direct_path_is_used_when_it_exists_and_left_when_it_does_not(
    kept: Mesh, capsys: pytest.CaptureFixture[str]
) -> None:
    """MESH-06: counters move from the relay's tunnel to the direct one, and back."""
    assert both_on(kept, "relay")
    assert kept.laptop.reaches("10.8.0.2")
    ping = pinging(kept.laptop, "10.8.0.2")
    with cable(kept):
        up = wait_for(lambda: both_on(kept, "direct"), PATIENCE, "direct path")
        sent, missing = lost(ping)
        relayed, own = counters(kept)
        assert kept.laptop.reaches("10.8.0.2", count=20)
        relayed_after, own_after = counters(kept)
        assert own_after - own > 20 * 84
        assert relayed_after - relayed < 1000
        ping = pinging(kept.laptop, "10.8.0.2")

    down = wait_for(lambda: both_on(kept, "relay"), PATIENCE, "relay")
    back = wait_for(lambda: kept.laptop.reaches("10.8.0.2", count=1), PATIENCE, "ping")
    relayed, own = counters(kept)
    assert kept.laptop.reaches("10.8.0.2", count=20)
    relayed_after, own_after = counters(kept)
    # Not before: of what was sent since the cut, one must have been answered by now.
    sent_down, missing_down = lost(ping)
    assert relayed_after - relayed > 20 * 84
    assert own_after - own < 20 * 84
    with capsys.disabled():
        print(
            f"\nto direct: {up:.1f} s, {missing} of {sent} pings lost"
            f"\nto relay:  {down + back:.1f} s, {missing_down} of {sent_down} pings lost"
        )


def counters(mesh: Mesh) -> tuple[int, int]:
    """Bytes through the laptop's tunnels to the relay and to the server."""
    relay = mesh.laptop.transfer(mesh.key(mesh.relay))
    return relay, mesh.laptop.transfer(mesh.key(mesh.server))


@pytest.fixture(scope="module")
def cabled(kept: Mesh) -> Iterator[Mesh]:
    """The mesh with path keepers, and the two sites connected."""
    with cable(kept):
        wait_for(lambda: both_on(kept, "direct"), PATIENCE, "direct path")
        yield kept


def test_a_changed_peer_drops_nothing_on_other_tunnels(cabled: Mesh) -> None:
    """MESH-04, MESH-06: pings on the relayed and on the direct path across `ppn mesh sync`."""
    pings = [pinging(cabled.laptop, address) for address in ("10.8.0.1", "10.8.0.2")]
    stranger = cabled.stranger.sh("wg pubkey < /etc/wireguard/ppn0.key").strip()
    data: dict[str, dict[str, Any]] = DATA | {
        "stranger": {"site": "c", "mesh_address": "10.8.0.4", "ranges": ["192.168.7.0/24"]}
    }
    wider = pool_from_data({}, data)[0]
    registry = Registry({**cabled.registry.keys, "stranger": stranger})
    for pool, known in ((wider, registry), (cabled.pool, cabled.registry)):
        for node in cabled.members:
            node.configure(pool, known)
            node.ppn("sync")
        time.sleep(1)
        routed = "192.168.7.0/24" in cabled.laptop("ip", "route").stdout
        assert routed is (pool is wider)
        peers = cabled.relay("wg", "show", "ppn0", "peers").stdout.split()
        assert (stranger in peers) is (pool is wider)
        assert both_on(cabled, "direct")
        assert "10.8.0.2/32" in cabled.laptop("wg", "show", "ppn0", "allowed-ips").stdout
    for ping in pings:
        sent, missing = lost(ping)
        assert sent > 100
        assert missing == 0


def test_a_stopped_keeper_leaves_everything_on_the_relay(cabled: Mesh) -> None:
    """MESH-06: the relay is what remains when no keeper runs."""
    assert cabled.laptop.reaches("10.8.0.2")
    printed = cabled.laptop.end_keeper(signal.SIGTERM)
    events = [json.loads(line)["event"] for line in printed.splitlines()]
    assert events[0] == "started" and events[-1] == "stopped"
    assert "10.8.0.2/32" not in cabled.laptop("wg", "show", "ppn0", "allowed-ips").stdout
    wait_for(lambda: path_to(cabled.server, "laptop") == "relay", PATIENCE, "the other end")
    assert cabled.laptop.reaches("10.8.0.2")


def test_a_killed_keeper_is_made_good_by_use_relay(cabled: Mesh) -> None:
    """MESH-06: what systemd runs after a crash puts the peers back on the relay."""
    cabled.laptop.keep_paths()
    wait_for(lambda: both_on(cabled, "direct"), PATIENCE, "direct path")
    cabled.laptop.end_keeper(signal.SIGKILL)
    assert "10.8.0.2/32" in cabled.laptop("wg", "show", "ppn0", "allowed-ips").stdout
    cabled.laptop.ppn("use-relay")
    assert "10.8.0.2/32" not in cabled.laptop("wg", "show", "ppn0", "allowed-ips").stdout
    wait_for(lambda: path_to(cabled.server, "laptop") == "relay", PATIENCE, "the other end")
    assert cabled.laptop.reaches("10.8.0.2")


def test_status_is_shown(kept: Mesh) -> None:
    wait_for(lambda: len(peers_of(kept.relay)) == 2, PATIENCE, "configuration taken over")
    shown = json.loads(kept.relay.ppn("status", "--json"))
    assert shown["node"] == "relay"
    assert [(peer["name"], peer["path"]) for peer in shown["peers"]] == [
        ("server", "direct"),
        ("laptop", "direct"),
    ]
    assert "10.8.0.2" in kept.relay.ppn("status")
    assert kept.relay.ppn("paths") == "server direct\nlaptop direct\n"
