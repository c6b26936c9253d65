"""The benchmarks' arithmetic, and what they take for a run that changed nothing."""

from __future__ import annotations

import json
from xml.etree.ElementTree import fromstring, tostring

import pytest

from bench.__main__ import names
from bench.converge import our_changes, peer_changes
from bench.result import overhead, times_faster
from bench.vm_create import rename
from ppn.run import Completed

RECAP = """
PLAY RECAP *********************************************************************
relay   : ok=14   changed={relay}    unreachable=0    failed=0    skipped=6    rescued=0
server  : ok=20   changed=0    unreachable={away}    failed=0    skipped=6    rescued=0
"""


def finished(stdout: str, returncode: int = 0) -> Completed:
    return Completed(("program",), returncode, stdout, "")


def report(**hosts: list[str]) -> str:
    operation = {"name": "Base | ppn", "success": [], "error": [], "no_change": [], **hosts}
    return "some line\n" + json.dumps({"results": {"operations": [operation]}})


def test_the_benchmarks_are_listed_and_their_parts_are_not() -> None:
    assert names() == [
        "audit",
        "converge",
        "heartbeats",
        "iso",
        "node_proxy",
        "placement",
        "spawn",
        "tenant_proxy",
        "vm_create",
    ]


def test_ratio_is_the_median_of_the_pairs() -> None:
    result = times_faster("x", [1.0, 2.0, 4.0], [10.0, 30.0, 20.0], aim=10)
    assert (result.ratio, result.met) == (10.0, True)
    assert result.spread["ratio"] == (5.0, 15.0)
    assert json.loads(result.line())["runs"] == 3


def test_overhead_above_the_aim_is_not_met() -> None:
    assert not overhead("x", [1.2], [1.0], most=1.1).met
    assert overhead("x", [1.05], [1.0], most=1.1).met


def test_a_pyinfra_run_without_changes_is_accepted() -> None:
    assert our_changes(finished(report(no_change=["relay"]))) == []


@pytest.mark.parametrize(
    "done",
    [
        finished(report(success=["relay"])),
        finished(report(error=["relay"])),
        finished(report(no_change=["relay"]), returncode=1),
        finished("no report"),
        finished('{"results": {"operations": []}}'),
    ],
)
def test_any_other_pyinfra_run_is_not(done: Completed) -> None:
    assert our_changes(done)


def test_a_playbook_without_changes_is_accepted() -> None:
    assert peer_changes(finished(RECAP.format(relay=0, away=0))) == ""


@pytest.mark.parametrize(
    "done",
    [
        finished(RECAP.format(relay=1, away=0)),
        finished(RECAP.format(relay=0, away=1)),
        finished(RECAP.format(relay=0, away=0), returncode=2),
        finished("no recap"),
    ],
)
def test_any_other_playbook_is_not(done: Completed) -> None:
    assert peer_changes(done)


def test_the_peers_domain_is_ours_under_another_name() -> None:
    domain = fromstring(
        "<domain><name>a</name><uuid>1</uuid><devices><disk><source file='/vms/a/disk.qcow2'/>"
        "</disk><log file='/vms/a/serial.log'/><kernel file='/images/tiny/kernel'/></devices>"
        "</domain>"
    )
    rename(domain, "b", "/vms/a", "/peer/b")
    text = tostring(domain, encoding="unicode")
    assert "/vms/a" not in text
    assert "/peer/b/disk.qcow2" in text
    assert "/images/tiny/kernel" in text
    assert domain.findtext("name") == "b"
    assert domain.findtext("uuid") != "1"
