"""A pool's controllers, nodes and tenant proxy, compared by the real command."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ppn.errors import Refusal
from ppn.fleet.reconciliation.store import NAME_FORMAT
from tests.integration.fleet.parts import Pool, pool
from tests.integration.proxy.parts import Authority, wait_for
from tests.integration.reconciliation.parts import Reconciler, Reporting
from tests.integration.reconciliation.receivers import Told, tenant_proxy, webhook

PATH = "/v1/allocations"
GONE = {"code": "qemu_gone", "subject": "web", "message": "it ended", "hint": "start it"}


@dataclass
class House:
    """Everything of a test.

    Args:
        pool: two controllers and two nodes.
        allocations: what the tenant proxy has on record.
        told: what the webhook was sent.
        ours: the command under test.
    """

    pool: Pool
    allocations: list[dict[str, Any]]
    told: Told
    ours: Reconciler

    def order(self, **order: Any) -> str:
        """Have a VM made and put it on record, as a tenant proxy does; its id."""
        placed = self.pool.first.create(**order).json()
        vm = placed["vm"]
        self.allocations.append(
            {
                "vm": vm["id"],
                "tenant": vm["owner"],
                "memory_mib": vm["memory_mib"],
                "vcpus": vm["vcpus"],
                "disk_gib": vm["disk_gib"],
                "state": "settled",
                "since": datetime.now(UTC).isoformat(),
            }
        )
        return str(vm["id"])

    def node_of(self, vm: str) -> Reporting:
        """The node a VM is on."""
        (name,) = self.pool.held()[vm]
        (node,) = (one for one in self.pool.nodes if one.name == name)
        assert isinstance(node, Reporting)
        return node


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two controllers, two nodes, a tenant proxy with the pool's certificate, a webhook."""
    folder = tmp_path_factory.mktemp("reconcile")
    nodes = [Reporting("a", "127.0.1.1"), Reporting("b", "127.0.1.2")]
    with ExitStack() as stack:
        made = stack.enter_context(pool(folder, list(nodes), controllers=2))
        other = folder / "tenants"
        other.mkdir()
        authority = Authority(other, "tenants")
        files = authority.issue("relay", "tenant-proxy", address="127.0.3.1")
        answers: dict[str, Any] = {PATH: {"allocations": []}}
        proxy = stack.enter_context(tenant_proxy("127.0.3.1", files, answers))
        url, told = stack.enter_context(webhook())
        settings = {
            "controllers": [one.url for one in made.controllers],
            "tenant_proxies": [proxy],
            "nodes": [node.name for node in nodes],
            "trust": str(authority.certificate),
            "sinks": [{"kind": "webhook", "name": "hook", "url": url}],
        }
        yield House(made, answers[PATH]["allocations"], told, Reconciler(other, settings))


@pytest.fixture
def house(started: House, tmp_path: Path) -> House:
    """The same, with nothing in it and nothing told."""
    for node in started.pool.nodes:
        assert isinstance(node, Reporting)
        node.alerts.clear()
        node.going.clear()
    started.pool.reset()
    started.allocations.clear()
    started.told.bodies.clear()
    started.told.headers.clear()
    started.told.status = 204
    started.told.hang.clear()
    settings = dict(started.ours.settings)
    return House(started.pool, started.allocations, started.told, Reconciler(tmp_path, settings))


def test_a_pool_that_agrees_is_clean(house: House) -> None:
    """REC-01, REC-04: on demand; with a signed report, whose key was born here."""
    for owner in ("acme", "rival"):
        house.order(owner=owner)
    house.pool.first.create(owner="operator")
    report = json.loads(house.ours.do("run", "--json").stdout)
    assert report["findings"] == report["not_judged"] == [] and report["compared"]["vms"] == 3
    assert report["compared"]["allocations"] == 2 and report["by"] == "relay"
    assert stat.S_IMODE((house.ours.state / "report.key").stat().st_mode) == 0o600
    assert "sound" in house.ours.do("verify").stdout and house.told.bodies == []
    assert json.loads(house.ours.do("show", "--json").stdout) == report


def test_ghosts_strangers_and_wrong_records_are_found(house: House) -> None:
    """REC-02, REC-03: each class with its node, and one notice each, however often it runs."""
    for _ in range(4):
        house.order()
    ghost, stray, foreign, small = (one["vm"] for one in house.allocations)
    node = {vm: house.node_of(vm) for vm in (ghost, stray, foreign, small)}
    node[ghost].vms.pop(ghost)
    del house.allocations[1]
    house.allocations[1]["tenant"] = "rival"
    house.allocations[2]["vcpus"] = 1
    node[ghost].beat()
    wanted = {
        ("ghost_record", ghost, ""),
        ("vm_unrecorded", stray, node[stray].name),
        ("owner_wrong", foreign, node[foreign].name),
        ("size_wrong", small, node[small].name),
    }
    assert house.ours.found() == wanted
    assert house.ours.do("run", accept=(7,)).stdout.count("next: ") == 4
    assert {(code, vm, name) for _, code, vm, name in house.told.notices()} == wanted
    assert len(house.told.notices()) == 4
    text = house.ours.do("show", accept=(7,)).stdout
    assert "next: " in text and ghost in text
    house.allocations[2]["vcpus"] = 2
    house.ours.run()
    assert house.told.notices()[4:] == [("cleared", "size_wrong", small, node[small].name)]


def test_what_is_being_made_is_not_missed(house: House) -> None:
    """REC-02: a VM that comes between two looks, and one that is on its way."""
    vm = house.order()
    node = house.node_of(vm)
    del house.allocations[:]
    node.going.append(vm)
    assert house.ours.found() == set()
    node.going.clear()
    assert house.ours.found() == {("vm_unrecorded", vm, node.name)}


@pytest.mark.fault(
    "reconciliation cannot read a node, a controller or a tenant proxy",
    "what these alone can tell is said to be not judged, and nothing is called missing",
)
def test_a_silent_source_is_not_judged(house: House) -> None:
    """REC-02: never missing."""
    vm = house.order()
    silent = {
        "controllers": [*house.ours.settings["controllers"], "http://127.0.2.9:9"],
        "tenant_proxies": ["https://127.0.3.9:9"],
        "nodes": ["a", "b", "attic"],
    }
    house.ours.write(**silent)
    report = house.ours.run()
    assert {(one["code"], one["subject"]) for one in report["findings"]} == {
        ("controller_silent", "http://127.0.2.9:9"),
        ("source_unreadable", "tenant proxy https://127.0.3.9:9"),
        ("source_unreadable", "node attic"),
    }
    assert {one["kind"] for one in report["not_judged"]} == {"controller", "tenant proxy", "node"}
    house.node_of(vm).vms.clear()
    assert not {code for code, _, _ in house.ours.found()} & {"ghost_record", "vm_unrecorded"}


def test_a_tenant_proxy_of_another_pool_is_not_believed(house: House, tmp_path: Path) -> None:
    """REC-02: it has to show a certificate of this pool."""
    house.order()
    house.ours.write(trust=str(Authority(tmp_path, "stranger").certificate))
    (found,) = house.ours.found()
    assert found[0] == "source_unreadable" and "127.0.3.1" in found[1]
    house.ours.write(trust=str(tmp_path / "missing.crt"))
    (found,) = house.ours.found()
    assert found[0] == "source_unreadable"


def test_no_controller_is_no_run(house: House) -> None:
    """REC-01: nothing was compared, so that the day's run is still owed."""
    house.ours.write(controllers=["http://127.0.2.9:9"])
    done = house.ours.do("run", "--if-due", "--json", accept=(1,))
    assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == "nothing_read"
    assert json.loads(house.ours.do("list", "--json").stdout) == []


def test_a_day_has_one_run_and_a_missed_one_is_made_up_for(house: House) -> None:
    """REC-01: as the timer asks, every hour, and after any outage."""
    house.ours.do("run", "--if-due")
    assert house.ours.run(if_due=True) == {}
    (kept,) = (house.ours.state / "reports").iterdir()
    # The machine was off for two days: the newest report is as old as that.
    made = datetime.strptime(kept.stem, NAME_FORMAT).replace(tzinfo=UTC) - timedelta(days=2)
    kept.rename(kept.with_name(f"{made.strftime(NAME_FORMAT)}.json"))
    assert house.ours.run(if_due=True) and not house.ours.run(if_due=True)
    reports = json.loads(house.ours.do("list", "--json").stdout)
    assert len(reports) == 2 and {one["state"] for one in reports} == {"sound"}
    house.ours.do("verify")


def test_reports_are_verified_elsewhere_and_damage_is_named(house: House, tmp_path: Path) -> None:
    """REC-04: offline, with the public key alone."""
    house.ours.run()
    house.ours.run()
    first, second = sorted((house.ours.state / "reports").iterdir())
    key = str(house.ours.state / "report.key.pub")
    assert "1 reports" in house.ours.do("verify", str(first), "--key", key).stdout
    copy = tmp_path / "copy.json"
    copy.write_text(first.read_text().replace('"vms":0', '"vms":1'))
    refused = house.ours.do("verify", str(copy), "--key", key, accept=(1,))
    assert "report_signature_wrong" in refused.stderr
    second.unlink()
    house.ours.run()
    first.write_text("{}")
    assert "report_damaged" in house.ours.do("verify", accept=(1,)).stderr
    listed = json.loads(house.ours.do("list", "--json").stdout)
    assert [one["state"] for one in listed] == ["report_damaged", "sound"]


def test_one_run_at_a_time(house: House) -> None:
    """REC-01."""
    house.order()
    del house.allocations[:]
    house.told.hang.set()
    house.told.waiting.clear()
    going = house.ours.begin("run")
    try:
        # It tells what it found, and is not over before that is taken.
        assert house.told.waiting.wait(180)
        with pytest.raises(Refusal) as caught:
            house.ours.run()
        assert caught.value.code == "reconciliation_going"
        house.told.hang.clear()
        assert going.wait(180) == 7
    finally:
        going.kill()
        going.wait()


def test_the_watch_tells_each_alert_once(house: House) -> None:
    """HLT-06, REC-03: of agents and controllers, within two cycles, and that it is over."""
    house.ours.watch()
    node = house.pool.nodes[0]
    assert isinstance(node, Reporting)
    node.alerts.append(GONE)
    node.beat()
    for _ in range(3):
        house.ours.watch()
    assert house.told.notices() == [("raised", "qemu_gone", "web", "a")]
    # A run sees it too, and says nothing new of it.
    assert ("qemu_gone", "web", "a") in house.ours.found()
    assert len(house.told.notices()) == 1
    listed = json.loads(house.ours.do("alerts", "--json", accept=(7,)).stdout)
    assert [one["code"] for one in listed["active"]] == ["qemu_gone"]
    node.alerts.clear()
    node.beat()
    house.ours.watch()
    assert house.told.notices()[1:] == [("cleared", "qemu_gone", "web", "a")]


@pytest.mark.fault(
    "a controller is killed", "one alert, no other is lost or said to be over, and it clears"
)
def test_a_killed_controller_is_one_alert(house: House) -> None:
    """HLT-06: and a controller that has just started does not call every node silent."""
    node = house.pool.nodes[1]
    assert isinstance(node, Reporting)
    node.alerts.append(GONE)
    node.beat()
    house.ours.watch()
    killed = house.pool.controllers[1]
    killed.kill()
    try:
        for _ in range(2):
            house.ours.watch()
    finally:
        killed.start_again()
    assert house.told.notices() == [
        ("raised", "qemu_gone", "web", "b"),
        ("raised", "controller_silent", killed.url, ""),
    ]
    house.ours.watch()
    assert house.told.notices()[2:] == [("cleared", "controller_silent", killed.url, "")]


@pytest.mark.fault(
    "kill -9 of a reconciliation while a sink hangs",
    "it is still owed, and tells no more than once",
)
def test_a_run_that_is_killed_is_still_owed(house: House) -> None:
    """REC-01, REC-03: what it found is told although its report was never kept."""
    vm = house.order()
    name = house.node_of(vm).name
    del house.allocations[:]
    house.told.hang.set()
    house.told.waiting.clear()
    going = house.ours.begin("run", "--if-due")
    assert house.told.waiting.wait(180)
    os.kill(going.pid, signal.SIGKILL)
    going.wait()
    house.told.hang.clear()
    wait_for(lambda: bool(house.told.bodies), "the end of the first delivery")
    house.told.bodies.clear()
    assert house.ours.run(if_due=True)["findings"]
    assert house.told.notices() == [("raised", "vm_unrecorded", vm, name)]


@pytest.mark.fault(
    "kill -9 of the watch while a sink hangs", "the next one delivers what was owed, with its id"
)
def test_killed_in_the_midst_of_a_delivery(house: House) -> None:
    """REC-03: what is owed is on disk before the first delivery."""
    node = house.pool.nodes[0]
    assert isinstance(node, Reporting)
    node.alerts.append(GONE)
    node.beat()
    house.told.hang.set()
    house.told.waiting.clear()
    going = house.ours.begin("watch")
    assert house.told.waiting.wait(180)
    os.kill(going.pid, signal.SIGKILL)
    going.wait()
    state = json.loads((house.ours.state / "alerts.json").read_text())
    (owed,) = state["sinks"]["hook"]["pending"]
    house.told.hang.clear()
    # What it took of the one that was killed, which never heard of it.
    wait_for(lambda: bool(house.told.bodies), "the end of the first delivery")
    house.told.bodies.clear()
    house.ours.watch()
    assert [one["id"] for body in house.told.bodies for one in body["notices"]] == [owed["id"]]
    house.ours.watch()
    assert len(house.told.bodies) == 1
