"""For each of these faults one command names the cause and the next step (CLI-04)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from ppn.host.kvm import Verdict
from ppn.run import run
from tests.integration.debug.parts import (
    ORDER,
    SECRET,
    URL,
    InsideAgent,
    Pool,
    Program,
    inside,
    started,
)
from tests.integration.host import still
from tests.integration.host.libvirtd import kill_libvirtd
from tests.integration.host.node import PPN, end_process, wait_for
from tests.integration.host.test_life import grant


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """One pool for all faults; each test mends what it broke."""
    with started() as found:
        yield found


def cause(pool: Pool, *words: str) -> dict[str, Any]:
    """The first cause that `ppn debug` names."""
    first = pool.causes(*words)[0]
    assert first["next_step"] and first["evidence"], first
    return first


def refused_order(pool: Pool, *more: str, key: str, code: int = 3) -> str:
    """The VM of an order that is not carried out; its error says which debug explains it."""
    error = pool.refused(*ORDER, *more, "--key", key, code=code)
    return str(error["hint"]).rpartition(" ")[2]


def test_a_vm_that_runs_well_is_shown_whole(pool: Pool) -> None:
    """CLI-03: timeline with stage times, decision, domain XML, QEMU's arguments, serial tail."""
    done = pool.ppn("debug", "vm", pool.base)
    for part in (
        "is running on server",
        "placement decision of",
        "  start",
        "-accel",
        f"guest={pool.base}",
        "<domain type=",
        # The end of its console, wherever its beats have pushed the ready line.
        "ppn-guest ",
        "seed is ok; user data has write_files",
    ):
        assert part in done.stdout, part
    found = pool.json("debug", "vm", pool.base)
    assert [one for one in found["causes"] if one["grade"] == "error"] == []
    evidence = found["evidence"][0]
    steps = evidence["timeline"]["operations"][0]["steps"]
    assert next(step["seconds"] for step in steps if step["name"] == "start") > 0
    assert evidence["decision"]["node"] == "server"
    # INV-04: neither user data nor what the seed holds.
    assert SECRET not in done.stdout + json.dumps(found)


def test_a_node_that_works_is_shown_whole(pool: Pool) -> None:
    """CLI-03."""
    found = pool.json("debug", "node", "server")
    # Nested virtualisation is not to be had here, and that is said.
    assert {one["code"] for one in found["causes"]} <= {"kvm_missing", "peer_silent"}
    assert found["evidence"][0]["examination"]["versions"]["qemu"].startswith("QEMU")
    assert "qemu" in pool.ppn("debug", "node", "server").stdout
    assert pool.ppn("debug", "mesh", accept=(0,)).stdout


@pytest.mark.fault("an order for an image that no node has", "`ppn debug vm` says image_missing")
def test_no_image(pool: Pool) -> None:
    """CLI-04."""
    error = pool.refused("create", "none-such", "--key", "image")
    found = cause(pool, "vm", error["hint"].rpartition(" ")[2])
    assert found["code"] == "image_missing" and "none-such" in found["evidence"][0]


@pytest.mark.fault("an order for more disk than any node has", "`ppn debug vm` says disk_full")
def test_disk_that_is_too_full(pool: Pool) -> None:
    """CLI-04: with the numbers."""
    found = cause(pool, "vm", refused_order(pool, "--disk-gib", "6000", key="disk"))
    assert found["code"] == "disk_full" and "wanted 6144000, free" in found["evidence"][0]


@pytest.mark.fault("the disk is full while a VM is made", "`ppn debug vm` says disk_full")
def test_disk_that_fills_up_in_the_midst(pool: Pool) -> None:
    """CLI-04: by the timeline of a VM of which nothing is left."""
    vms = pool.node.paths.vms
    used = len(list(vms.rglob("*"))) + 3
    run(["mount", "-o", f"remount,nr_inodes={used}", vms], timeout=60)
    try:
        found = cause(pool, "vm", refused_order(pool, key="inodes"))
    finally:
        run(["mount", "-o", "remount,nr_inodes=0", vms], timeout=60)
    assert found["code"] == "disk_full" and "space" in found["evidence"][0]


@pytest.mark.fault("no host port is left for a guest", "`ppn debug vm` says ports_empty")
def test_empty_port_range(pool: Pool) -> None:
    """CLI-04."""
    found = cause(pool, "vm", refused_order(pool, "--port", "80", key="port"))
    assert found["code"] == "ports_empty" and "port_last" in found["next_step"]


@pytest.mark.fault("KVM is said to work and does not", "`ppn debug vm` says kvm_broken")
def test_broken_kvm(pool: Pool) -> None:
    """CLI-04: the VM runs all the same, emulated, so nobody would ask why it is slow."""
    paths = pool.node.paths
    before = paths.kvm_verdict.read_bytes()
    verdict = json.loads(before) | {"usable": True, "reason": "it was, once"}
    paths.kvm_verdict.write_text(Verdict.model_validate(verdict).model_dump_json())
    try:
        vm = pool.json("vm", *ORDER, "--key", "kvm")["vm"]["id"]
        found = cause(pool, "vm", vm)
    finally:
        paths.kvm_verdict.write_bytes(before)
    assert found["code"] == "kvm_broken" and "probe-kvm" in found["next_step"]
    pool.ppn("vm", "destroy", vm)


@pytest.mark.fault("an order with an odd vCPU count, or wider than a socket", "numa_rule is named")
@pytest.mark.parametrize(("vcpus", "why"), [("3", "vcpus_odd"), ("10", "vcpus_exceed_socket")])
def test_numa_rule(pool: Pool, vcpus: str, why: str) -> None:
    """CLI-04."""
    vm = refused_order(pool, "--vcpus", vcpus, key=why)
    found = cause(pool, "vm", vm)
    assert found["code"] == "numa_rule" and why in found["evidence"][0]


@pytest.mark.fault("an order with user data that cannot be a seed", "user_data_wrong is named")
def test_bad_user_data(pool: Pool, tmp_path: Path) -> None:
    """CLI-04."""
    data = tmp_path / "data.json"
    data.write_text('{"hostname": "x"}')
    found = cause(pool, "vm", refused_order(pool, "--user-data", str(data), key="data"))
    assert found["code"] == "user_data_wrong" and "hostname" in found["evidence"][0]


@pytest.mark.fault("the seed volume of a VM is overwritten", "`ppn debug vm` says seed_damaged")
def test_bad_seed(pool: Pool) -> None:
    """CLI-04."""
    seed = pool.node.paths.vm(pool.base).seed
    before = seed.read_bytes()
    seed.write_bytes(bytes(len(before)))
    try:
        found = cause(pool, "vm", pool.base)
    finally:
        seed.write_bytes(before)
    assert found["code"] == "seed_damaged" and "seed.iso" in found["next_step"]


@pytest.mark.fault("the ledger on a node is changed", "`ppn debug node` says ledger_tampered")
def test_tampered_ledger(pool: Pool, tmp_path: Path) -> None:
    """CLI-04."""
    ledger = pool.node.paths.ledger
    grant(pool.node, tmp_path, weight=300, minimum_mib=128)
    ledger.write_bytes(ledger.read_bytes().replace(b'"weight":300', b'"weight":900'))
    try:
        wait_for("the alert", lambda: pool.ppn("fleet", "alerts", accept=(0, 7)).returncode == 7)
        found = cause(pool, "node", "server")
    finally:
        ledger.unlink()
        wait_for(
            "the alert to go", lambda: pool.ppn("fleet", "alerts", accept=(0, 7)).returncode == 0
        )
    assert found["code"] == "ledger_tampered" and "entry 1" in found["evidence"][0]


@pytest.mark.fault("a QEMU is killed", "`ppn debug vm` says qemu_killed")
def test_killed_qemu(pool: Pool) -> None:
    """CLI-04: and its next step mends it."""
    end_process(int(pool.node.paths.pid_file(pool.base).read_text()))
    wait_for("the alert", lambda: pool.ppn("fleet", "alerts", accept=(0, 7)).returncode == 7)
    found = cause(pool, "vm", pool.base)
    assert found["code"] == "qemu_killed"
    step = found["next_step"].partition("`ppn ")[2].partition("`")[0]
    assert pool.json(*step.split())["vm"]["state"] == "running"
    wait_for("the alert to go", lambda: pool.ppn("fleet", "alerts", accept=(0, 7)).returncode == 0)


@pytest.mark.fault("libvirtd is killed", "`ppn debug vm` and `node` say libvirt_down")
def test_libvirt_down(pool: Pool) -> None:
    """CLI-04."""
    kill_libvirtd(pool.node)
    try:
        codes = [cause(pool, *words)["code"] for words in (("vm", pool.base), ("node", "server"))]
    finally:
        pool.start_libvirtd()
        wait_for("libvirt", lambda: not pool.json("node", "show", "server")["alerts"])
    assert codes == ["libvirt_down", "libvirt_down"]


@contextmanager
def without(pool: Pool, service: str) -> Iterator[None]:
    """The pool while one of its services is dead."""
    programs: dict[str, InsideAgent | Program] = {
        "agent": pool.agent,
        "proxy": pool.proxy,
        "controller": pool.controller,
    }
    program = programs[service]
    program.end(signal.SIGKILL)
    try:
        yield
    finally:
        program.start()
        wait_for("the node is heard", pool.heard)
        wait_for("the proxy", lambda: pool.listens(pool.server, 9204))


@pytest.mark.fault("a host agent is dead", "`ppn debug vm` and `node` say agent_down")
def test_agent_down(pool: Pool) -> None:
    """CLI-04."""
    with without(pool, "agent"):
        codes = [cause(pool, *words)["code"] for words in (("vm", pool.base), ("node", "server"))]
    assert codes == ["agent_down", "agent_down"]


@pytest.mark.fault("a node proxy is dead", "`ppn debug vm` says proxy_down")
def test_proxy_down(pool: Pool) -> None:
    """CLI-04."""
    with without(pool, "proxy"):
        found = cause(pool, "vm", pool.base)
    assert found["code"] == "proxy_down" and "ppn-node-proxy" in found["next_step"]


@pytest.mark.fault("a controller is dead", "every command says so; controller_down is named")
def test_controller_down(pool: Pool) -> None:
    """CLI-04: code 5, by which a script knows that it may ask again."""
    with without(pool, "controller"):
        assert pool.ppn("vm", "list", accept=(5,)).returncode == 5
        found = cause(pool, "vm", pool.base)
    assert found["code"] == "controller_down"


@pytest.mark.fault("a controller has just started", "controller_warming_up is named")
def test_controller_warming_up(pool: Pool) -> None:
    """CLI-04."""
    with without(pool, "agent"):
        pool.controller.end()
        pool.controller.start()
        wait_for("the controller", lambda: pool.listens(pool.relay, 9203))
        found = cause(pool, "vm", pool.base)
    assert found["code"] == "controller_warming_up"


@pytest.mark.fault("the certificate of a node proxy has ended", "proxy_certificate_ended is named")
def test_expired_proxy_certificate(pool: Pool) -> None:
    """CLI-04."""
    pool.certify(ago=timedelta(days=3), lifetime=timedelta(days=1))
    try:
        found = cause(pool, "vm", pool.base)
    finally:
        pool.certify()
    assert found["code"] == "proxy_certificate_ended" and "deploy" in found["next_step"]


@pytest.mark.fault("a node's certificate holds from tomorrow only", "clock_wrong is named")
def test_certificate_from_the_future(pool: Pool) -> None:
    """CLI-04: as after a clock that was wrong when the certificate was signed."""
    pool.certify(ago=timedelta(days=-2))
    try:
        found = cause(pool, "vm", pool.base)
    finally:
        pool.certify()
    assert found["code"] == "clock_wrong"


@pytest.mark.fault("the clock of a node is wrong by an hour", "`ppn debug node` says clock_wrong")
def test_wrong_clock(pool: Pool) -> None:
    """CLI-04."""
    library = next(Path("/usr/lib").rglob("libfaketime.so.1"))
    pool.agent.end()
    pool.agent.environment = {"LD_PRELOAD": str(library), "FAKETIME": "+3600"}
    try:
        pool.agent.start()
        found = cause(pool, "node", "server")
    finally:
        pool.agent.end()
        pool.agent.environment = {}
        pool.agent.start()
        wait_for("the node is heard", pool.heard)
    assert found["code"] == "clock_wrong" and "ahead" in found["evidence"][0]


@pytest.mark.fault("the mesh is cut to a node", "`ppn debug vm` says mesh_cut")
def test_mesh_cut(pool: Pool) -> None:
    """CLI-04."""
    pool.server.sh("ip link set ppn0 down")
    try:
        found = cause(pool, "vm", pool.base)
    finally:
        pool.server.sh("ip link set ppn0 up")
    assert found["code"] == "mesh_cut" and "debug mesh" in found["next_step"]
    wait_for("the node is heard", pool.heard)


def test_an_id_that_nobody_knows(pool: Pool) -> None:
    """CLI-04."""
    assert cause(pool, "vm", "vm-aaaaaaaaaaaaaaaa")["code"] == "vm_unknown"
    assert pool.ppn("vm", "show", "vm-aaaaaaaaaaaaaaaa", accept=(4,)).returncode == 4


def test_the_console_is_followed(pool: Pool) -> None:
    """CLI-03: what the guest writes next comes by itself, once."""
    words = [*inside(pool.relay), "timeout", "-s", "INT", "180"]
    words += [str(PPN), "vm", "console", pool.base, "--follow", "--bytes", "1"]
    environment = {**os.environ, "PPN_CONTROLLER": URL}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as following:
        assert following.stdout is not None
        lines = (line for line in following.stdout if line.startswith("ppn-guest beat"))
        beats = list(islice(lines, 4))
        following.send_signal(signal.SIGTERM)
    assert len(set(beats)) == 4


def test_ids_are_completed(pool: Pool) -> None:
    """CLI-03: and nothing is said when nobody answers."""
    for url, found in ((URL, pool.base), ("http://10.8.0.1:1", "")):
        environment = {
            **os.environ,
            "PPN_CONTROLLER": url,
            "_PPN_COMPLETE": "complete_bash",
            "COMP_WORDS": "ppn vm show vm-",
            "COMP_CWORD": "3",
        }
        done = run([*inside(pool.relay), PPN], timeout=60, env=environment)
        assert (done.stdout.strip(), done.stderr) == (found, "")


def test_every_verb_on_a_real_pool(pool: Pool, tmp_path: Path) -> None:
    """CLI-01, OPS-04: for people and for programs."""
    orders = tmp_path / "orders.json"
    order = {"owner": "acme", "image": still.NAME, "vcpus": 2, "memory_mib": 256}
    orders.write_text(json.dumps([order, order | {"image": "none-such"}]))
    (made, lost) = pool.json("vm", "batch", str(orders), "--per-item", accept=(7,))["items"]
    assert lost["problem"]["code"] == "no_capacity" and made.get("problem") is None, made
    vm = made["id"]
    assert [one["vm"]["id"] for one in pool.json("vm", "list", "--owner", "acme")] == [vm]
    assert pool.json("vm", "destroy", vm)["nodes"] == ["server"]
    # One that has booted hears its power button.
    vm = pool.base
    assert pool.json("vm", "attach", vm, "data:1")["vm"]["disks"]
    assert pool.json("vm", "stop", vm)["vm"]["state"] == "stopped"
    assert pool.json("vm", "detach", vm, "data", "--discard")["vm"]["disks"] == []
    assert pool.json("vm", "resize", vm, "--memory-mib", "320")["vm"]["memory_mib"] == 320
    assert "+0." in pool.ppn("vm", "timeline", vm).stdout
    assert pool.json("vm", "show", vm)["vm"]["label"] == "base"
    whole = pool.ppn("vm", "console", vm, "--bytes", str(1024 * 1024)).stdout
    assert "ppn-guest ready" in whole
    assert pool.json("fleet", "show")["live"] == 1
    assert [one["name"] for one in pool.json("node", "list")] == ["server"]
    assert "server" in pool.ppn("node", "list").stdout
    assert "1 of 1" in pool.ppn("fleet", "show").stdout
