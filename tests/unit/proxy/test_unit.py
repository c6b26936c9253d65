"""The node proxy's unit and settings: unprivileged, hardened, and open to controllers alone."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

from deploys.node_proxy import UNIT, proxy_files
from ppn.host.proxy.settings import PATH, ProxySettings
from ppn.wire.listen import check_mesh_address
from tests.unit.mesh.pools import SMALL, node, pool

CONTROLLER = replace(node("boss", 8, "d"), roles=frozenset({"controller"}))
OTHER = node("server9", 9, "d", ("hypervisor",))
POOL = pool(*SMALL.nodes, CONTROLLER, OTHER)


def test_systemd_rates_the_unit_ok(tmp_path: Path) -> None:
    unit = tmp_path / UNIT
    unit.write_text(proxy_files(POOL, "server9")[f"/etc/systemd/system/{UNIT}"].content)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = re.search(r"exposure level for \S+: ([0-9.]+) (\w+)", done.stdout)
    assert found and found[2] == "OK", done.stdout


def test_controllers_and_other_hypervisors_of_the_inventory_may_connect() -> None:
    """NP-02: and what a hypervisor may do there is to send a VM that moves (MIG-01)."""
    settings = ProxySettings.model_validate_json(proxy_files(POOL, "server")[PATH].content)
    assert settings.allowed == (IPv4Network(CONTROLLER.address), IPv4Network(OTHER.address))
    assert settings.listen == POOL.node("server").address
    check_mesh_address(settings.listen, settings.mesh_range)


def test_without_another_node_of_either_role_nobody_may() -> None:
    files = proxy_files(pool(*SMALL.nodes), "server")
    assert ProxySettings.model_validate_json(files[PATH].content).allowed == ()
