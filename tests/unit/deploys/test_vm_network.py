"""The network of VMs as an inventory declares it, and the unit that makes it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploys.declared import admission_problems, declare
from deploys.vm_network import UNIT, network_unit
from ppn.host.lease import Lease
from ppn.host.model import NodeState
from tests.unit.host.builders import make_node, make_spec, make_view
from tests.unit.host.test_network import make_network

HYPERVISOR: dict[str, Any] = {"mesh_address": "10.8.0.2", "vm_range": "10.9.2.0/28"}
WEB = {"name": "web", "image": "tiny", "vcpus": 2, "memory_mib": 512}


def node_with_web() -> NodeState:
    """A node whose VM `web` has an address."""
    view = make_view(make_spec(), lease=Lease(address="10.9.2.5"))
    return make_node(view, network=make_network())


def codes(data: dict[str, Any], node: NodeState) -> list[str]:
    """The codes of what keeps a node from becoming what is declared."""
    problems = admission_problems(declare("n", data), node)
    return [found for problem in problems for found in re.findall(r"\(([a-z_]+)\)", problem)]


def test_settings_of_the_network_come_from_the_inventory() -> None:
    """IP-02: all that the node needs to know of it is in its settings."""
    settings = declare("n", HYPERVISOR | {"vm_internet": True, "port_first": 31000}).settings
    assert (settings.vm_range, settings.mesh_address) == ("10.9.2.0/28", "10.8.0.2")
    assert settings.vm_internet and (settings.port_first, settings.port_last) == (31000, 32767)
    assert declare("n", HYPERVISOR | {"port_first": 32768}).problems


# The last one holds the address, and has another gateway.
@pytest.mark.parametrize("vm_range", [None, "10.9.3.0/24", "10.9.0.0/16"])
def test_a_range_in_use_stays(vm_range: str | None) -> None:
    """A VM that runs would lose its network; one that is removed in this run would not."""
    data = {**HYPERVISOR, "vm_range": vm_range, "vms": [WEB]}
    assert codes(data, node_with_web()) == ["vm_range_in_use"]
    gone = {**data, "vms": [{**WEB, "state": "absent"}]}
    assert codes(gone, node_with_web()) == []
    larger = {**HYPERVISOR, "vm_range": "10.9.2.0/24", "vms": [WEB]}
    assert codes(larger, node_with_web()) == []


def test_two_declared_vms_cannot_have_one_port() -> None:
    """IP-01: seen beside the inventory, before anything is changed."""
    port = {"ports": [{"guest": 80, "host": 30001}]}
    vms = [{**WEB, **port, "name": "one"}, {**WEB, **port, "name": "two"}]
    assert codes({**HYPERVISOR, "vms": vms}, make_node()) == ["port_taken"]


def test_systemd_rates_the_unit_ok(tmp_path: Path) -> None:
    files, unit = network_unit("/etc/ppn/node.json", {})
    assert unit.restart_after == ("/etc/ppn/node.json",) and unit.enabled
    (file,) = files.values()
    (tmp_path / UNIT).write_text(file.content)
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(tmp_path / UNIT)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r"exposure level for \S+: ([0-9.]+) (\w+)", done.stdout)
    assert found and found[2] == "OK", done.stdout
