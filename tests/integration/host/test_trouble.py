"""What goes wrong on a node: kills, failures, silence, strangers."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ppn.host import apply as apply_module
from ppn.host import backend
from ppn.host.backend import Backend
from ppn.host.kvm import BUSYBOX, probe_command, probe_kvm, run_guest
from ppn.host.model import NodeState
from ppn.host.paths import Paths
from ppn.host.probe_guest import initrd
from ppn.host.sidecar import read_sidecar
from ppn.host.spec import VmSpec
from ppn.host.state import state_through
from ppn.run import run
from tests.integration.host import still
from tests.integration.host.node import PPN, Node, is_alive, spec_text
from tests.integration.host.test_life import grant

GOLDEN = Path(__file__).parents[2] / "unit/host/golden"
ROUNDS = 10
PROBE_SECONDS = 5
# libfaketime takes the monotonic time that Python's own sleep ends at for a date.
OTHER_SLEEP = """
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds)
"""


def apply_and_kill(node: Node, text: str, seconds: float) -> None:
    """Start an apply and kill it, and it alone, after a while."""
    with subprocess.Popen(
        [*node.enter, PPN, "host", "apply"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(node.environment),
    ) as process:
        assert process.stdin is not None
        process.stdin.write(text.encode())
        process.stdin.close()
        time.sleep(seconds)
        process.kill()


@pytest.mark.fault(
    "kill -9 of ppn host apply at ten random points",
    "the next apply converges; no VM is lost or doubled",
)
def test_killed_applies_converge_when_repeated(node: Node) -> None:
    """HOST-13: ten creations and removals, each killed at a random point; no VM lost or doubled."""
    # The first call of a fresh libvirtd looks at QEMU for long; it is no measure for the others.
    node.virsh("domcapabilities")
    order = {"image": still.NAME}
    begun = time.monotonic()
    node.apply(**order)
    whole = time.monotonic() - begun
    node.apply(state="absent")
    chance = random.Random(os.environ.get("PPN_TEST_SEED", "1"))
    for turn in range(ROUNDS):
        apply_and_kill(node, spec_text(order), chance.uniform(0.3, 1.1) * whole)
        if turn % 3 == 2:
            gone = spec_text({**order, "state": "absent"})
            apply_and_kill(node, gone, chance.uniform(0.3, 1.1) * whole)
        done = node.apply(**order)
        assert done["vm"]["state"] == "running" and is_alive(done["vm"]["pid"])
        assert node.domains() == ["web"]
        assert [entry.name for entry in node.paths.vms.iterdir()] == ["web"]
        sidecar = read_sidecar(node.paths.vm("web").sidecar)
        assert sidecar is not None and sidecar.uuid == node.virsh("domuuid", "web").strip()
        assert not node.apply(**order)["changed"]
        if turn % 2:
            node.apply(state="absent")
            assert node.nothing_is_left()


@pytest.mark.fault(
    "the node's clock is wrong by a year",
    "only dates differ",
)
@pytest.mark.parametrize("days", [-366, 366])
def test_clock_that_is_wrong_by_a_year_changes_nothing_but_dates(
    node: Node, tmp_path: Path, days: int
) -> None:
    """HOST-05, LED-01, CPU-03: the ledger holds, and each clock leaves the other's VMs alone."""
    grant(node, tmp_path, weight=300, minimum_mib=128)
    first = node.apply(image=still.NAME)
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    (tmp_path / "sitecustomize.py").write_text(OTHER_SLEEP)
    wrong = {
        **node.environment,
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{days:+d}d",
        # Only the date is set wrong: a kernel's monotonic clock cannot be.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": str(tmp_path),
    }

    def wrongly(*words: str, **spec: object) -> dict[str, Any]:
        text = spec_text({"image": still.NAME, **spec})
        done = run([PPN, "host", *words], timeout=300, env=wrong, input=text)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    assert not wrongly("apply")["changed"]
    assert not wrongly("enforce")["changed"]
    assert wrongly("state", "--json")["ledger"]["entries"] == 1
    assert wrongly("apply", name="other")["vm"]["state"] == "running"
    sidecar = read_sidecar(node.paths.vm("other").sidecar)
    assert sidecar is not None
    off = datetime.fromisoformat(sidecar.created) - datetime.now(UTC)
    assert round(off / timedelta(days=1)) == days
    assert not node.apply(name="other", image=still.NAME)["changed"]
    assert node.apply(image=still.NAME)["vm"]["pid"] == first["vm"]["pid"]
    wrongly("apply", name="other", state="absent")
    assert node.domains() == ["web"]


def test_failed_start_leaves_nothing(node: Node) -> None:
    """HOST-11: no disk, domain, folder or process of a VM that could not start."""
    image = node.paths.image("broken")
    image.mkdir()
    (image / "kernel").write_bytes(b"no kernel at all")
    (image / "manifest.json").write_text('{"name": "broken", "kernel": "kernel"}')
    done = node.ppn("host", "apply", "--json", text=spec_text({"image": "broken"}), accept=(1,))
    assert json.loads(done.stderr)["error"]["code"] == "libvirt_failed"
    assert node.nothing_is_left()
    shutil.rmtree(image)


def test_state_answers_without_libvirt(node: Node) -> None:
    """What the files say is told; what libvirt would say is not guessed."""
    node.apply(state="stopped")
    silent = {**node.environment, "PPN_LIBVIRT_URI": "qemu+unix:///system?socket=/nowhere"}
    state = NodeState.model_validate_json(
        run([PPN, "host", "state", "--json"], timeout=300, env=silent).stdout
    )
    assert not state.libvirt.ok and state.libvirt.error is not None
    vm = state.vm("web")
    assert vm is not None and vm.state == "unknown" and vm.spec is not None
    refused = run([PPN, "host", "apply"], timeout=300, env=silent, input=spec_text({}), accept=(5,))
    assert "libvirt_unavailable" in refused.stderr and refused.stdout == ""


@pytest.mark.fault(
    "libvirt has lost a domain",
    "it is made again from the sidecar, with its identity",
)
def test_lost_domain_comes_back_with_its_identity(node: Node) -> None:
    """HOST-05: the sidecar is enough to make the domain again."""
    first = node.apply(state="stopped")
    node.virsh("undefine", "web")
    assert [vm.state for vm in node.state().vms] == ["missing"]
    again = node.apply(state="stopped")
    assert again["actions"] == ["define vm web"]
    assert again["vm"]["uuid"] == first["vm"]["uuid"] == node.virsh("domuuid", "web").strip()


@pytest.mark.fault(
    "a sidecar is damaged",
    "it is reported, nothing is guessed, only removal goes on",
)
def test_damaged_sidecar_is_reported_and_only_removal_goes_on(node: Node) -> None:
    """HOST-05."""
    node.apply(state="stopped")
    node.paths.vm("web").sidecar.write_text('{"schema": 1')
    vm = node.state().vm("web")
    assert vm is not None
    assert vm.sidecar == "damaged" and "sidecar_damaged" in {p.code for p in vm.problems}
    assert node.refused(state="stopped")["code"] == "sidecar_damaged"
    node.apply(state="absent")
    assert node.nothing_is_left()


def test_strangers_are_reported_and_left_alone(node: Node, tmp_path: Path) -> None:
    """A domain that came another way keeps its name; HOST-14."""
    xml = tmp_path / "web.xml"
    xml.write_text(
        "<domain type='qemu'><name>web</name><memory unit='MiB'>64</memory>"
        "<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
    )
    node.virsh("define", xml)
    try:
        assert [(other.name, other.kind) for other in node.state().unmanaged] == [("web", "domain")]
        for state in ("running", "absent"):
            assert node.refused(state=state)["code"] == "name_taken"
        assert node.domains() == ["web"]
    finally:
        node.virsh("undefine", "web")


def hold_at_start(monkeypatch: pytest.MonkeyPatch, node: Node) -> list[int]:
    """Have each QEMU stand still as soon as libvirt has started it; returns their ids."""
    held: list[int] = []
    start = Backend.start

    def start_and_hold(self: Backend, name: str) -> None:
        start(self, name)
        held.append(int(node.paths.pid_file(name).read_text()))
        os.kill(held[-1], signal.SIGSTOP)

    monkeypatch.setattr(Backend, "start", start_and_hold)
    monkeypatch.setattr(backend, "PATIENCE_SECONDS", 1)
    return held


@pytest.mark.fault(
    "a QEMU answers libvirt only a while after its start, or not at all",
    "who ordered the start waits for it, and is told that it is silent when it stays so",
)
def test_a_start_waits_for_a_qemu_that_is_slow(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """HOST-13: all steps are done, and whether they led there is known only when it answers."""
    held = hold_at_start(monkeypatch, node)
    spec = VmSpec.model_validate_json(spec_text({"image": still.NAME}))

    def look_and_go_on(*asked: Any) -> NodeState:
        """The look after the start finds it silent; later ones do not."""
        seen = state_through(*asked)
        if held and seen.vms[0].state == "unknown":
            os.kill(held[-1], signal.SIGCONT)
        return seen

    with monkeypatch.context() as patch:
        patch.setattr(apply_module, "state_through", look_and_go_on)
        done = apply_module.apply(spec, node.paths, uri=node.uri)
        assert held and done.vm is not None and done.vm.state == "running"
    node.apply(state="absent")
    monkeypatch.setattr(apply_module, "ANSWER_SECONDS", 0)
    with pytest.raises(apply_module.NotConverged) as late:
        apply_module.apply(spec, node.paths, uri=node.uri)
    assert late.value.code == "qemu_silent" and "kill" in late.value.hint
    os.kill(held[-1], signal.SIGCONT)
    assert not node.apply(image=still.NAME)["changed"]


def test_kvm_failure_falls_back_to_emulation(node: Node) -> None:
    """HOST-10: a verdict that no longer holds costs a warning, not the VM."""
    boot_id = node.paths.boot_id.read_text().strip()
    verdict = {"boot_id": boot_id, "usable": True, "reason": "guest code ran"}
    node.paths.kvm_verdict.parent.mkdir(parents=True, exist_ok=True)
    node.paths.kvm_verdict.write_text(json.dumps(verdict))
    done = node.apply()
    assert (done["vm"]["state"], done["vm"]["accelerator"]) == ("running", "tcg")
    assert len(done["warnings"]) == 1 and "KVM" in done["warnings"][0]
    assert node.wait_ready("web")


def test_probe_believes_only_guest_code(node: Node, tmp_path: Path) -> None:
    """HOST-09: this machine's own device, and the same guest under emulation as the control."""
    kernel = node.paths.image("tiny") / "kernel"
    archive = tmp_path / "initrd"
    archive.write_bytes(initrd(BUSYBOX.read_bytes()))
    assert run_guest(probe_command(kernel, archive, "tcg"), 300) == (True, "guest code ran")
    found = json.loads(node.ppn("host", "probe-kvm", "--json").stdout)
    assert found["changed"] and not found["usable"] and "does not exist" in found["reason"]
    assert not json.loads(node.ppn("host", "probe-kvm", "--json").stdout)["changed"]
    if not Path("/dev/kvm").exists():
        pytest.skip("this machine has no /dev/kvm to be wrong about")
    root = tmp_path / "root"
    paths = Paths(root)
    (root / "dev").mkdir(parents=True)
    (root / "dev/kvm").symlink_to("/dev/kvm")
    # Where no guest code runs, a processor is busy with it until the deadline.
    named = {"PPN_PROBE_KERNEL": str(kernel)}
    real = probe_kvm(paths, "this boot", deadline=PROBE_SECONDS, environment=named)
    assert real.probed and real.usable == (real.reason == "guest code ran")
    assert paths.kvm_verdict.exists()


@pytest.mark.parametrize("name", ["tcg-direct-boot", "kvm-disk-boot-weight", "kvm-pinned"])
def test_libvirt_accepts_the_golden_domains(name: str) -> None:
    """HOST-04: against libvirt's own schema."""
    run(
        ["virsh", "-q", "-c", "test:///default", "define", "--validate", GOLDEN / f"{name}.xml"],
        timeout=60,
    )
