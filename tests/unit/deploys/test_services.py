"""The files that put agent and controller on a node."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from deploys import fleet_controller, host_agent
from operations.files import File
from ppn.fleet.settings import FleetSettings
from ppn.host.agent.settings import AgentSettings
from ppn.inventory import Pool, pool_from_data

Files = Callable[[Pool, str], dict[str, File]]

NODES = {
    "relay": {
        "roles": ["relay", "controller"],
        "site": "cloud",
        "mesh_address": "10.8.0.1",
        "endpoint": "198.51.100.10:51820",
    },
    "server": {
        "roles": ["hypervisor", "controller"],
        "site": "a",
        "mesh_address": "10.8.0.2",
    },
    "laptop": {"roles": ["hypervisor"], "site": "b", "mesh_address": "10.8.0.3"},
}


@pytest.fixture
def pool() -> Pool:
    """A relay and two hypervisors; the relay and one of these are controllers."""
    made, problems = pool_from_data({}, NODES)
    assert not problems
    return made


def test_a_controller_knows_every_hypervisor_and_the_others(pool: Pool) -> None:
    """FLEET-08, FLEET-19."""
    files = fleet_controller.controller_files(pool, "server")
    settings = FleetSettings.model_validate_json(files["/etc/ppn/fleet.json"].content)
    assert (settings.name, settings.address) == ("server", IPv4Address("10.8.0.2"))
    assert [node.name for node in settings.nodes] == ["server", "laptop"]
    assert settings.controllers == (IPv4Address("10.8.0.1"),)
    assert not settings.development
    unit = files["/etc/systemd/system/ppn-fleet.service"].content
    assert "wg-quick@ppn0.service" in unit and "INTERFACE" not in unit


def test_an_agent_is_heard_by_every_controller(pool: Pool) -> None:
    """FLEET-19: replicas, none of which has to be told by another."""
    files = host_agent.agent_files(pool, "laptop")
    settings = AgentSettings.model_validate_json(files["/etc/ppn/agent.json"].content)
    assert settings.node == "laptop" and settings.proxy_user == "ppn-proxy"
    assert settings.controllers == ("http://10.8.0.1:9203", "http://10.8.0.2:9203")


@pytest.mark.parametrize(
    ("files", "unit", "most"),
    [
        (fleet_controller.controller_files, "ppn-fleet.service", 2.0),
        # Root, and in the node's own network: there is less that can be taken from it.
        (host_agent.agent_files, "ppn-agent.service", 4.9),
    ],
)
def test_systemd_rates_the_units(
    pool: Pool, tmp_path: Path, files: Files, unit: str, most: float
) -> None:
    path = tmp_path / unit
    path.write_text(files(pool, "server")[f"/etc/systemd/system/{unit}"].content)
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found and float(found[1]) <= most, done.stdout


def test_settings_are_text_that_a_person_can_read(pool: Pool) -> None:
    content = fleet_controller.controller_files(pool, "relay")["/etc/ppn/fleet.json"].content
    assert json.loads(content)["port"] == 9203 and content.count("\n") > 10
