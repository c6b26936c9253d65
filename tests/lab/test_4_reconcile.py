"""The first controller reconciles the pool and passes on its alerts, as systemd starts it."""

from __future__ import annotations

import json
from typing import Any

from tests.lab.pool import LabPool, eventually

STRAY = "/var/lib/ppn/vms/old.qcow2"
LOG = "/var/log/ppn-alerts/alerts.jsonl"


def reconcile(pool: LabPool) -> dict[str, Any]:
    """A run on demand, by root; its report."""
    done = pool.node("relay").run("ppn reconcile run --json")
    assert done.rc in (0, 7), done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def found(pool: LabPool) -> set[tuple[str, str, str]]:
    """Class, subject and node of each finding; a tenant proxy that does not run is one, rightly."""
    report = reconcile(pool)
    keys = {(one["code"], one["subject"], one["node"]) for one in report["findings"]}
    if pool.node("relay").service("ppn-tenant").is_running:
        assert report["not_judged"] == []
        return keys
    silent = {("source_unreadable", "tenant proxy https://10.8.0.1:9221", "")}
    assert silent <= keys
    return keys - silent


def told(pool: LabPool) -> list[tuple[str, str, str, str]]:
    """What the file of alerts says of the stray: event, class, subject, node."""
    text = pool.node("relay").run(f"cat {LOG}").stdout
    lines = [json.loads(line) for line in text.splitlines()]
    keys = ("event", "code", "subject", "node")
    return [tuple(line[key] for key in keys) for line in lines if line["subject"] == "old.qcow2"]


def test_the_first_controller_alone_does_it(pool: LabPool) -> None:
    """REC-01: by timers, on one of two controllers, as a user of its own."""
    for timer in ("ppn-reconcile.timer", "ppn-alerts.timer"):
        assert pool.node("relay").service(timer).is_running
        assert pool.node("relay").service(timer).is_enabled
        assert not pool.node("server").service(timer).is_running
    assert pool.run("relay", "systemctl show -P User ppn-reconcile") == "ppn-reconcile"


def test_a_sound_pool_is_clean_and_a_day_has_one_run(pool: LabPool) -> None:
    """REC-01, REC-04: from its sandbox, with a report; and by root, who leaves no file behind."""
    pool.run("relay", "systemctl start ppn-reconcile.service")
    before = json.loads(pool.run("relay", "ppn reconcile list --json"))
    pool.run("relay", "systemctl start ppn-reconcile.service")
    assert json.loads(pool.run("relay", "ppn reconcile list --json")) == before
    assert found(pool) == set()
    report = json.loads(pool.node("relay").run("ppn reconcile show --json").stdout)
    assert set(report["compared"]["nodes"]) == {"server", "laptop"}
    assert len(report["compared"]["controllers"]) == 2
    pool.run("relay", "ppn reconcile verify")
    assert pool.run("relay", "find /var/lib/ppn-reconcile -user root") == ""


def test_an_orphan_disk_is_told_once_and_once_that_it_is_gone(pool: LabPool) -> None:
    """REC-03, HLT-06: from the node's agent to the file, by the very unit of the timer."""

    def cycle() -> list[tuple[str, str, str, str]]:
        # Started again and again, it would come to its unit's limit of starts.
        pool.run("relay", "systemctl reset-failed ppn-alerts; systemctl start ppn-alerts")
        return told(pool)

    pool.run("server", f"touch {STRAY}")
    raised = ("raised", "disk_orphaned", "old.qcow2", "server")
    try:
        assert eventually(cycle, "the alert") == [raised]
    finally:
        pool.run("server", f"rm {STRAY}")
    eventually(lambda: len(cycle()) > 1, "the notice that it is gone")
    assert told(pool) == [raised, ("cleared", *raised[1:])]
