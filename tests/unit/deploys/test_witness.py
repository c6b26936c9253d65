"""The files that put a witness on a node, and the witnesses a log is sent to."""

from __future__ import annotations

import re
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from deploys.services import SERVICES
from deploys.witness import witness_files, witnesses_of
from ppn.audit.witness.settings import KnownLog, WitnessAt, WitnessSettings
from ppn.inventory import Pool, pool_from_data
from ppn.mesh.firewall import ruleset

NODES = {
    "relay": {
        "roles": ["relay", "controller", "tenant-proxy"],
        "site": "cloud",
        "mesh_address": "10.8.0.1",
        "endpoint": "198.51.100.10:51820",
    },
    "server": {
        "roles": ["hypervisor", "witness", "tenant-proxy"],
        "site": "a",
        "mesh_address": "10.8.0.2",
    },
    "laptop": {"roles": ["witness"], "site": "b", "mesh_address": "10.8.0.3"},
}


@pytest.fixture
def pool() -> Pool:
    """Two nodes that keep logs and two that witness; one does both."""
    made, problems = pool_from_data({}, NODES)
    assert not problems
    return made


def test_a_witness_knows_the_logs_of_other_nodes(pool: Pool) -> None:
    """TEN-12: nobody witnesses itself."""
    content = witness_files(pool, "server")["/etc/ppn/witness.json"].content
    settings = WitnessSettings.model_validate_json(content)
    assert (settings.name, settings.address) == ("ppn/witness/server", IPv4Address("10.8.0.2"))
    assert settings.logs == (KnownLog(origin="ppn/audit/relay", address=IPv4Address("10.8.0.1")),)
    assert len(settings.callers) == 3 and not settings.development


def test_a_log_is_sent_to_the_witnesses_on_other_nodes(pool: Pool) -> None:
    """TEN-12: under the name and at the address where they are."""
    server = WitnessAt("ppn/witness/server", "http://10.8.0.2:9222")
    laptop = WitnessAt("ppn/witness/laptop", "http://10.8.0.3:9222")
    assert witnesses_of(pool, "relay") == (server, laptop)
    assert witnesses_of(pool, "server") == (laptop,)


def test_only_witnesses_open_their_port(pool: Pool) -> None:
    """MESH-01."""
    for name, opened in (("relay", False), ("server", True), ("laptop", True)):
        rules = ruleset(pool, pool.node(name), SERVICES)
        assert ("tcp dport 9222 accept" in rules) == opened


def test_systemd_rates_the_unit(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "ppn-witness.service"
    path.write_text(witness_files(pool, "server")[f"/etc/systemd/system/{path.name}"].content)
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found and float(found[1]) <= 2.0, done.stdout
