"""`ppn mesh status` and `paths`: what the path keeper wrote, and what is said when it did not."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ppn.cli import mesh as cli
from ppn.errors import PpnError
from ppn.mesh import status
from ppn.mesh.app import Keeper
from ppn.mesh.paths import MeshPaths
from ppn.mesh.peers import interface_of
from ppn.mesh.policy import Phase
from ppn.mesh.render import keeper_config
from ppn.mesh.status import MeshState, PeerPath, StateUnavailable
from ppn.notify import notify
from tests.unit.mesh.pools import (
    LAPTOP,
    PHONE,
    RELAY,
    SERVER,
    SMALL,
    customer,
    pool,
    registry_of,
)

STATE = MeshState(
    "laptop",
    "ppn0",
    "10.8.0.3",
    1000.0,
    (
        PeerPath("relay", "10.8.0.1", "static", "direct"),
        PeerPath("server", "10.8.0.2", "switched", "relay", "relay", 990.0, 995.0, 2),
    ),
)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MeshPaths:
    """A node's files in a folder of their own."""
    node = MeshPaths.from_environment({"PPN_ROOT": str(tmp_path)})
    node.state.parent.mkdir(parents=True)
    node.config.parent.mkdir(parents=True)
    monkeypatch.setattr(cli, "NODE", node)
    return node


def test_table(paths: MeshPaths) -> None:
    status.write(paths.state, replace(STATE, written=time.time()))
    result = CliRunner().invoke(cli.mesh_app, ["status"])
    assert result.exit_code == 0
    assert "relay (relay)" in result.output
    assert "laptop 10.8.0.3 on ppn0, 2 peers" in result.output


def test_json_says_when_the_keeper_has_stopped(paths: MeshPaths) -> None:
    status.write(paths.state, STATE)
    result = CliRunner().invoke(cli.mesh_app, ["status", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.output)["stale"] is True


def test_table_of_a_stopped_keeper_ends_with_an_error(paths: MeshPaths) -> None:
    status.write(paths.state, STATE)
    result = CliRunner().invoke(cli.mesh_app, ["status"])
    assert isinstance(result.exception, StateUnavailable)
    assert result.exception.code == "mesh_state_stale"


def test_lines(paths: MeshPaths) -> None:
    status.write(paths.state, STATE)
    assert CliRunner().invoke(cli.mesh_app, ["paths"]).output == "relay direct\nserver relay\n"


@pytest.mark.parametrize("text", [None, "", "{}", '{"schema": 2}', '{"schema": 1, "peers": [{}]}'])
def test_missing_or_damaged_state(paths: MeshPaths, text: str | None) -> None:
    if text is not None:
        paths.state.write_text(text)
    with pytest.raises(StateUnavailable, match="systemctl status"):
        status.read(paths.state)


def test_state_reads_back(paths: MeshPaths) -> None:
    status.write(paths.state, STATE)
    assert status.read(paths.state) == STATE
    assert not STATE.is_stale(1000.0 + status.STALE_SECONDS)
    assert STATE.is_stale(1001.0 + status.STALE_SECONDS)


def test_use_relay_on_a_node_without_a_mesh_does_nothing(paths: MeshPaths) -> None:
    assert CliRunner().invoke(cli.mesh_app, ["use-relay"]).exit_code == 0


def test_paths_of_all_kinds_of_peers(paths: MeshPaths) -> None:
    """MESH-06: static, switched, relayed and unreachable peers each say how they are reached."""
    paths.config.write_text(keeper_config(interface_of(SMALL, registry_of(SMALL), "laptop")))
    keeper = Keeper(paths, interface_of(SMALL, registry_of(SMALL), "laptop"), session=1)
    assert [(one.name, one.path, one.via) for one in keeper.state().peers] == [
        ("relay", "direct", None),
        ("server", "relay", "relay"),
        ("phone", "relay", "relay"),
    ]
    keeper.links["server"] = replace(keeper.links["server"], phase=Phase.DIRECT)
    assert keeper.state().peers[1].path == "direct"
    assert keeper.direct == {"server"}
    alone = pool(LAPTOP, PHONE, SERVER)
    keeper = Keeper(paths, interface_of(alone, registry_of(alone), "laptop"), session=1)
    assert [one.path for one in keeper.state().peers] == ["none", "direct"]


def test_the_lower_probe_address_leads_and_only_one_does(paths: MeshPaths) -> None:
    paths.config.write_text("{}")
    registry = registry_of(SMALL)
    laptop = Keeper(paths, interface_of(SMALL, registry, "laptop"), session=1)
    server = Keeper(paths, interface_of(SMALL, registry, "server"), session=1)
    assert server.links["laptop"].leads
    assert not laptop.links["server"].leads


def test_systemd_is_told_through_its_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notify("READY=1", "STATUS=up", environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(100) == b"READY=1\nSTATUS=up"
    notify("READY=1", environment={})


def test_a_door_hands_out_a_customers_configuration(paths: MeshPaths) -> None:
    """MESH-03."""
    proxy = replace(RELAY, roles=RELAY.roles | {"tenant-proxy"})
    nodes = pool(proxy, LAPTOP, customers=(customer("acme-desk", 201),))
    paths.config.write_text(keeper_config(interface_of(nodes, registry_of(nodes), "relay")))
    result = CliRunner().invoke(cli.mesh_app, ["customer", "acme-desk"])
    assert result.exit_code == 0 and "Address = 10.8.0.201/32" in result.output
    with pytest.raises(PpnError, match="no tunnel of a customer 'acme' ends at relay"):
        CliRunner().invoke(cli.mesh_app, ["customer", "acme"], catch_exceptions=False)
    paths.config.write_text(keeper_config(interface_of(nodes, registry_of(nodes), "laptop")))
    with pytest.raises(PpnError, match="acme-desk"):
        CliRunner().invoke(cli.mesh_app, ["customer", "acme-desk"], catch_exceptions=False)
