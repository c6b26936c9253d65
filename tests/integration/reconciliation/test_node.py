"""A real agent with a real libvirt: what came another way is told with its class and its node."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab import guest
from ppn.run import run
from tests.integration.agent.agents import NODE, Agent
from tests.integration.fleet.edges import Door, free_port
from tests.integration.fleet.parts import Controller
from tests.integration.host.node import Node, end_process, wait_for
from tests.integration.proxy.parts import Authority
from tests.integration.reconciliation.parts import Reconciler
from tests.integration.reconciliation.receivers import Told, tenant_proxy, webhook

CONTROLLER, PROXY, TENANTS = "127.0.2.1", "127.0.0.1", "127.0.3.1"
VM = "vm-aaaaaaaaaaaaaaaa"


@dataclass
class House:
    """One node with all its services, and who reconciles it.

    Args:
        agent: of the node.
        controller: that hears it.
        allocations: what the tenant proxy has on record.
        told: what the webhook was sent.
        ours: the command under test.
    """

    agent: Agent
    controller: Controller
    allocations: list[dict[str, Any]]
    told: Told
    ours: Reconciler

    @property
    def node(self) -> Node:
        """The node."""
        return self.agent.node

    def alerts(self) -> set[str]:
        """What the controller has heard is wrong, by code; its agent has known that for longer."""
        with self.controller.client() as client:
            nodes = client.get("/v1/nodes").json()
        return {one["code"] for node in nodes for one in node["alerts"]}


def record(vm: str, **fields: Any) -> dict[str, Any]:
    """What a tenant proxy has on record of a VM of the tests' usual size."""
    since = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    usual = {"tenant": "acme", "memory_mib": 256, "vcpus": 2, "disk_gib": 1, "state": "settled"}
    return {"vm": vm, "since": since, **usual, **fields}


def settings_of(folder: Path, fleet_port: int, proxy_port: int, authority: Authority) -> Controller:
    """A controller that knows the node."""
    files = authority.issue("controller", "controller", address=CONTROLLER)
    settings = {
        "name": "controller",
        "address": CONTROLLER,
        "mesh_range": "10.8.0.0/24",
        "port": fleet_port,
        "nodes": [{"name": NODE, "address": PROXY}],
        "callers": ["127.0.0.1"],
        "node_proxy_port": proxy_port,
        "journal": str(folder / "intents.jsonl"),
        "certificate": str(files.certificate),
        "trust": str(files.trust),
        "development": True,
    }
    return Controller(folder, settings, files)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """libvirtd, agent, node proxy, controller, tenant proxy and webhook; nothing on the node."""
    folder = tmp_path_factory.mktemp("node")
    fleet_port, proxy_port = free_port(), free_port()
    authority = Authority(folder)
    with ExitStack() as stack:
        # Not pytest's folder: the path of a Unix socket has at most 107 characters.
        root = stack.enter_context(tempfile.TemporaryDirectory(prefix="ppn-recon-"))
        node = Node(Path(root))
        node.prepare(guest.cached())
        daemon = node.start()
        stack.callback(node.stop, daemon)
        node.virsh("domcapabilities")
        controller = settings_of(folder, fleet_port, proxy_port, authority)
        stack.callback(controller.end)
        agent = Agent(node)
        stack.callback(agent.end)
        agent.start(controllers=[controller.url])
        files = authority.issue(NODE, "hypervisor", address=PROXY)
        door = Door(folder, NODE, PROXY, proxy_port, node.paths.agent_socket, files)
        stack.callback(door.end)
        answers: dict[str, Any] = {"/v1/allocations": {"allocations": []}}
        files = authority.issue("tenants", "tenant-proxy", address=TENANTS)
        tenants = stack.enter_context(tenant_proxy(TENANTS, files, answers))
        url, told = stack.enter_context(webhook())
        settings = {
            "controllers": [controller.url],
            "tenant_proxies": [tenants],
            "nodes": [NODE],
            "trust": str(authority.certificate),
            "sinks": [{"kind": "webhook", "name": "hook", "url": url}],
        }
        ours = Reconciler(folder, settings)
        yield House(agent, controller, answers["/v1/allocations"]["allocations"], told, ours)
        for vm in node.state().vms:
            node.apply(name=vm.name, state="absent")


def start_qemu(node: Node) -> subprocess.Popen[bytes]:
    """A QEMU started by hand, with a disk of nobody's; the node's kernel shows it."""
    argv = ["qemu-system-x86_64", "-accel", "tcg", "-machine", "none", "-display", "none", "-S"]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    (node.paths.procfs / str(process.pid)).symlink_to(f"/proc/{process.pid}")
    return process


@pytest.mark.fault(
    "a QEMU started by hand, a disk of no VM, a record without a VM",
    "all three are reported with their class and node, and told once",
)
def test_what_came_another_way_is_reported(house: House) -> None:
    """REC-02, REC-03: the process, the disk and the record, beside a VM that is as it should be."""
    node = house.node
    house.agent.spawn(name=VM, owner="acme")
    house.allocations.append(record(VM))
    wait_for("the VM to be heard of", lambda: VM in house.controller.vms())
    report = house.ours.run()
    assert report["findings"] == [] and report["compared"]["vms"] == 1
    qemu = start_qemu(node)
    stray = node.paths.vms / "old.qcow2"
    try:
        run(["qemu-img", "create", "-q", "-f", "qcow2", stray, "16M"], timeout=60)
        house.allocations.append(record("vm-bbbbbbbbbbbbbbbb"))
        wanted = {
            ("qemu_unmanaged", f"pid {qemu.pid}", NODE),
            ("disk_orphaned", "old.qcow2", NODE),
            ("ghost_record", "vm-bbbbbbbbbbbbbbbb", ""),
        }
        # The agent tells of a process once it has seen it twice.
        wait_for("the agent's alerts", lambda: len(house.alerts()) == 2)
        assert house.ours.found() == wanted
        house.ours.watch()
        house.ours.watch()
        assert {one[1:] for one in house.told.notices()} == wanted
        assert len(house.told.notices()) == 3
    finally:
        qemu.kill()
        qemu.wait()
        (node.paths.procfs / str(qemu.pid)).unlink()
        stray.unlink(missing_ok=True)
        del house.allocations[1:]
    wait_for("the alerts to go", lambda: not house.alerts())
    assert house.ours.run()["findings"] == []
    house.ours.watch()
    assert [one[0] for one in house.told.notices()[3:]] == ["cleared"] * 3


@pytest.mark.fault(
    "kill -9 of a QEMU, a sidecar deleted, a foreign QEMU started",
    "one notice each within two cycles of the watch, and one each when they are put right",
)
def test_each_fault_is_one_alert_within_two_cycles(house: House) -> None:
    """HLT-06: through the agent's heartbeat, the controller and the watch, to the sink."""
    node = house.node
    if node.state().vm(VM) is None:
        house.agent.spawn(name=VM, owner="acme")
    house.agent.spawn(name="db", state="stopped")
    house.ours.watch()
    house.told.bodies.clear()
    end_process(int(node.paths.pid_file(VM).read_text()))
    sidecar = node.paths.vm("db").sidecar
    content = sidecar.read_bytes()
    sidecar.unlink()
    qemu = start_qemu(node)
    wanted = {
        ("qemu_gone", VM, NODE),
        ("sidecar_missing", "db", NODE),
        ("qemu_unmanaged", f"pid {qemu.pid}", NODE),
    }
    try:
        # Within a cycle of production, which is a minute: two heartbeats of this agent.
        wait_for("the agent's alerts", lambda: len(house.alerts()) == 3)
        for _ in range(2):
            house.ours.watch()
        assert {one[1:] for one in house.told.notices()} == wanted
        assert len(house.told.notices()) == 3
    finally:
        qemu.kill()
        qemu.wait()
        os.unlink(node.paths.procfs / str(qemu.pid))
        sidecar.write_bytes(content)
        sidecar.chmod(0o600)
    house.agent.do("start", vm=VM)
    wait_for("the alerts to go", lambda: not house.alerts())
    house.ours.watch()
    cleared = house.told.notices()[3:]
    assert {one[1:] for one in cleared} == wanted and {one[0] for one in cleared} == {"cleared"}
