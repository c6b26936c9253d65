"""A new VM, from the request to guest code running: the host agent against `virsh create`."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring, tostring

from bench.result import Result, overhead
from lab import guest
from ppn.errors import PpnError
from tests.integration.agent.agents import Agent
from tests.integration.host.node import Node

MOST = 1.10
READY = b"ppn-guest ready "
READY_SECONDS = 300.0
POLL_SECONDS = 0.005
HEARTBEAT_SECONDS = 10.0
# One vCPU: with more, QEMU's emulation has been seen to crash at boot now and then
# (`iotlb_to_section: Assertion ... failed`), whoever started it.
SPEC = {"image": "tiny", "vcpus": 1, "memory_mib": 256, "disk_gib": 1}
SETTINGS = {"name": "bench", "allow_odd_vcpus": True}


class GuestSilent(PpnError):
    """A guest did not say that it is ready."""

    code = "guest_silent"


@dataclass(frozen=True)
class Timing:
    """Seconds from the request until the command ended, and until guest code ran."""

    command: float
    ready: float


def measure(runs: int) -> Result:
    """Time new VMs in pairs, the first of each pair by turns; each VM is removed again.

    Both get the same domain: the peer's is ours as libvirt has it, with files of its own that
    are made beforehand, so that `virsh create` has nothing to do but to start it.

    Args:
        runs: how many pairs.

    Raises:
        GuestSilent: a guest did not come up.
    """
    ours: list[Timing] = []
    peer: list[Timing] = []
    with hypervisor() as agent:
        for pair in range(-1, runs):
            takers = [(ours, timed_ours), (peer, timed_peer)]
            for series, take in takers if pair % 2 else reversed(takers):
                series.append(take(agent))
            print(
                f"pair {pair + 1}: {text('ours', ours[-1])}, {text('peer', peer[-1])}", flush=True
            )
    # The first pair fills caches and leaves the verdict on KVM behind, as on any node in use.
    return overhead(
        "vm_create",
        [timing.ready for timing in ours[1:]],
        [timing.ready for timing in peer[1:]],
        most=MOST,
    )


def text(who: str, timing: Timing) -> str:
    """A timing in words."""
    return f"{who} {timing.ready:.3f} s (command {timing.command:.3f} s)"


@contextmanager
def hypervisor() -> Iterator[Agent]:
    """A node with a libvirt and an agent of its own, apart from this machine's; for a block."""
    # The path of a Unix socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ppn-bench-") as root:
        node = Node(Path(root))
        node.prepare(guest.cached())
        node.paths.settings.parent.mkdir(parents=True, exist_ok=True)
        node.paths.settings.write_text(json.dumps(SETTINGS))
        daemon = node.start()
        agent = Agent(node)
        try:
            agent.start(heartbeat_seconds=HEARTBEAT_SECONDS)
            yield agent
        finally:
            agent.end()
            node.stop(daemon)


def timed_ours(agent: Agent) -> Timing:
    """One new VM by the agent, asked as the node proxy asks it, removed again."""
    spec = {"name": fresh_name(), **SPEC}
    name = str(spec["name"])
    start = time.monotonic()
    agent.do("spawn", vm=spec)
    command = time.monotonic() - start
    await_guest(agent.node, name, agent.node.paths.vm(name).serial_log)
    ready = time.monotonic() - start
    agent.do("destroy", vm=name)
    return Timing(command, ready)


def timed_peer(agent: Agent) -> Timing:
    """One new VM by `virsh create` of the domain we would make, removed again."""
    node = agent.node
    name = fresh_name()
    folder = node.root / "peer" / name
    description = prepare_peer(agent, name, folder)
    start = time.monotonic()
    node.virsh("create", description)
    command = time.monotonic() - start
    await_guest(node, name, folder / "serial.log")
    ready = time.monotonic() - start
    node.virsh("destroy", name)
    shutil.rmtree(folder)
    return Timing(command, ready)


def prepare_peer(agent: Agent, name: str, folder: Path) -> Path:
    """Make what `virsh create` needs of a VM of ours that has never run, which is then removed.

    Args:
        agent: of the node.
        name: of the domain to come.
        folder: takes its disk, its seed and its description.

    Returns:
        The file with the domain's description.
    """
    node = agent.node
    spec = {"name": fresh_name(), **SPEC}
    agent.do("spawn", vm={**spec, "state": "stopped"})
    ours = str(spec["name"])
    files = node.paths.vm(ours).folder
    shutil.copytree(files, folder)
    domain = fromstring(node.virsh("dumpxml", "--inactive", ours))
    rename(domain, name, str(files), str(folder))
    agent.do("destroy", vm=ours)
    description = folder / "domain.xml"
    description.write_text(tostring(domain, encoding="unicode"), encoding="utf-8")
    return description


def rename(domain: Element, name: str, files: str, folder: str) -> None:
    """Give a domain another name, identity and folder, and leave the rest as it is.

    Args:
        domain: libvirt's description; changed in place.
        name: the new name.
        files: the folder its files are in.
        folder: the folder they shall be in.
    """
    for element in domain.iter():
        for key, value in element.attrib.items():
            if value.startswith(f"{files}/"):
                element.set(key, folder + value.removeprefix(files))
    for tag, value in (("name", name), ("uuid", str(uuid.uuid4()))):
        found = domain.find(tag)
        if found is not None:
            found.text = value


def await_guest(node: Node, name: str, serial: Path) -> None:
    """Wait until a started guest's ready line is in the log of its serial console.

    Raises:
        GuestSilent: it did not come in time, or QEMU ended before.
    """
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        alive = node.paths.pid_file(name).exists()
        if serial.exists() and READY in serial.read_bytes():
            return
        if not alive:
            hint = "see libvirt's log of the domain, then run the benchmark again"
            raise GuestSilent(f"QEMU of {name} ended before its guest was ready", hint=hint)
        time.sleep(POLL_SECONDS)
    raise GuestSilent(f"{serial}: no ready line within {READY_SECONDS:g} s")


def fresh_name() -> str:
    """A name no VM had before."""
    return f"b{uuid.uuid4().hex[:12]}"
