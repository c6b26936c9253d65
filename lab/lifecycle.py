"""Brings a lab up, takes it down: each can be interrupted anywhere and simply run again."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from deploys.wheelhouse import PYTHON_OF_DEBIAN, dependencies_layer
from iso.trees import need_root, need_space, remove
from lab import customer, firmware, node_container, node_installed, node_vm, ssh, wiring
from lab.errors import LabError
from lab.guest import cached
from lab.image import node_image
from lab.medium import Medium
from lab.network import plan
from lab.paths import LabPaths
from lab.process import Process, gone, identify, recorded, send
from lab.settings import Settings, made_as
from lab.steps import Step, note, step
from lab.topology import NODES, Kind, LabNode, kinds_of
from ppn.durable import write_atomic
from ppn.pool import certificates, keys

# Debian release of the node image.
NODE_RELEASE = "13"
STATE_NEEDS_MIB = 1000
READY_SECONDS = {Kind.CONTAINER: 300, Kind.VM: 1800, Kind.INSTALLED: 1800}
STOP_SECONDS = {Kind.CONTAINER: 45, Kind.VM: 120}
# What has to be there beside coreutils, by the Debian package that has it.
PROGRAMS = {
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "wg-quick": "wireguard-tools",
}
MACHINE_PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mke2fs": "e2fsprogs",
}


@contextmanager
def locked(lab: LabPaths) -> Iterator[None]:
    """Hold the lab: one command changes it at a time.

    Raises:
        LabError: another command holds it.
    """
    need_root("a lab")
    folder = Path("/run/lock")
    folder.mkdir(exist_ok=True)
    with (folder / f"ppn-lab-{lab.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError(
                f"another command is changing lab {lab.name}",
                code="lab_busy",
                hint="wait for it to end, or choose another --name",
            ) from error
        yield


def up(lab: LabPaths, kinds: Mapping[str, Kind] | None, medium: Medium | None = None) -> None:
    """Bring a lab up, or mend what is missing of one that is up.

    Args:
        lab: which lab.
        kinds: what its nodes are to be, by name; None for what they are, containers at first.
        medium: what those are installed from that are installed; None for what they were.

    Raises:
        LabError: not possible on this machine, or a node did not come up.
    """
    with locked(lab):
        made = prepare(lab, kinds, medium)
        for node in NODES:
            if made.medium is not None and made.kind_of(node) is Kind.INSTALLED:
                node_installed.ensure_installed(lab, node, made.medium)
        with step("Lay the networks"):
            wiring.wire(lab, plan(made.kinds))
        missing = [node for node in NODES if recorded(lab.node(node.name).process) is None]
        for node in missing:
            lab.node(node.name).boot.unlink(missing_ok=True)
        # A node that an interrupted `up` has started is waited for like one of ours.
        waiting = [node for node in NODES if not lab.node(node.name).boot.exists()]
        if waiting:
            names = ", ".join(node.name for node in waiting)
            found = ", ".join(sorted({made.kind_of(node) for node in waiting}))
            with step(f"Boot {names} ({found})") as shown:
                start(lab, made, missing)
                wait(lab, made, waiting, shown)
        else:
            note("All nodes are running")
        ssh.write_config(lab)


def prepare(lab: LabPaths, kinds: Mapping[str, Kind] | None, medium: Medium | None) -> Settings:
    """Check the machine and make what a lab needs before its network."""
    present = made_as(lab)
    if present is not None:
        need_same(lab, present, kinds, medium)
        kinds, medium = present.kinds, present.medium
    wanted = kinds or kinds_of(Kind.CONTAINER)
    need_programs(set(wanted.values()))
    need_own_runtime(lab)
    image = node_image()
    if present and present.image.folder != image.folder:
        if not present.image.root.is_dir():
            raise LabError(
                f"lab {lab.name} was made from {present.image.folder}, which is gone",
                hint=f"run `scripts/lab destroy --name {lab.name}` and start anew",
            )
        note(f"The nodes stay on the older image {present.image.digest}; destroy to renew them")
        image = present.image
    if {Kind.VM, Kind.INSTALLED} & set(wanted.values()):
        node_vm.need_sound_qemu()
    if Kind.VM in wanted.values():
        node_vm.ensure_boot_files(image)
    # Now, for the operator's place in the lab has no way out to any network.
    with step("Fetch the locked wheels of the node software"):
        dependencies_layer(PYTHON_OF_DEBIAN[NODE_RELEASE])
    need_space(lab.state_dir, STATE_NEEDS_MIB, "a lab's state")
    make_people_files(lab)
    made = Settings(wanted, image, medium)
    if present is None:
        write_atomic(lab.settings, made.record())
    return made


def need_same(
    lab: LabPaths, present: Settings, kinds: Mapping[str, Kind] | None, medium: Medium | None
) -> None:
    """Refuse to make of a lab what it is not.

    Raises:
        LabError: its nodes are of other kinds, or installed from something else.
    """
    if kinds in (None, present.kinds) and medium in (None, present.medium):
        return
    found = ", ".join(f"{name} {kind}" for name, kind in present.kinds.items())
    raise LabError(
        f"lab {lab.name} was made with other nodes, or from another image: {found}",
        code="wrong_kind",
        hint=f"run `scripts/lab destroy --name {lab.name}` first, or use another --name",
    )


def make_people_files(lab: LabPaths) -> None:
    """Make what operator and customer have: keys, ssh settings, the guest image for trials."""
    lab.state_dir.chmod(0o700)
    ssh.make_keys(lab)
    customer.make_key(lab)
    ssh.write_config(lab)
    if not lab.operator_public_key.exists():
        # Public half last: one without the other is a run that was cut short.
        lab.operator_key.unlink(missing_ok=True)
        keys.generate(lab.operator_key, lab.operator_public_key)
    if not lab.ca_certificate.exists():
        lab.ca_key.unlink(missing_ok=True)
        keys.public_path(lab.ca_key).unlink(missing_ok=True)
        keys.generate(lab.ca_key, keys.public_path(lab.ca_key))
        authority = certificates.authority_certificate(
            keys.load_private(lab.ca_key), f"lab {lab.name}", datetime.now(UTC)
        )
        write_atomic(lab.ca_certificate, certificates.pem([authority]).encode())
    guest = cached()
    if not lab.tiny_guest.is_symlink() or lab.tiny_guest.readlink() != guest:
        lab.tiny_guest.parent.mkdir(exist_ok=True)
        lab.tiny_guest.unlink(missing_ok=True)
        lab.tiny_guest.symlink_to(guest)


def need_programs(kinds: Collection[Kind]) -> None:
    """Refuse to start without the programs that will be needed."""
    if Kind.INSTALLED in kinds:
        firmware.need_firmware()
    needed = PROGRAMS | (MACHINE_PROGRAMS if {Kind.VM, Kind.INSTALLED} & set(kinds) else {})
    packages = [package for program, package in needed.items() if shutil.which(program) is None]
    if packages:
        raise LabError(
            f"this machine lacks {', '.join(packages)}",
            code="program_missing",
            hint=f"apt-get install {' '.join(packages)}, or run scripts/setup",
        )


def need_own_runtime(lab: LabPaths) -> None:
    """Refuse a name whose namespaces belong to a lab with its state elsewhere."""
    lab.runtime_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = lab.runtime_dir / "state"
    if owner.exists() and owner.read_text() != str(lab.state_dir) and wiring.present(lab):
        raise LabError(
            f"the name {lab.name} is in use by a lab in {owner.read_text()}",
            code="name_in_use",
            hint="choose another --name",
        )
    write_atomic(owner, str(lab.state_dir).encode())


def start(lab: LabPaths, made: Settings, nodes: list[LabNode]) -> None:
    """Start nodes, all at once."""
    for node in nodes:
        ssh.hang_up(lab, node.name)
        end_strays(lab, node)
        match made.kind_of(node):
            case Kind.CONTAINER:
                node_container.start(lab, node, made.image)
            case Kind.VM:
                node_vm.start(lab, node, made.image)
            case Kind.INSTALLED:
                node_installed.start(lab, node)


def wait(lab: LabPaths, made: Settings, nodes: list[LabNode], shown: Step) -> None:
    """Wait until each node lets us in, and record how long that took.

    Raises:
        LabError: a node ended or did not answer in time.
    """
    begun = time.monotonic()
    waiting = list(nodes)
    while waiting:
        shown.detail(f"waiting for {', '.join(node.name for node in waiting)}")
        for node in list(waiting):
            if ready(lab, node):
                fields = {"kind": made.kind_of(node), "seconds": round(time.monotonic() - begun, 1)}
                write_atomic(lab.node(node.name).boot, json.dumps(fields).encode())
                waiting.remove(node)
            elif time.monotonic() - begun > (limit := READY_SECONDS[made.kind_of(node)]):
                raise stuck(lab, node, f"does not answer after {limit} s")
        time.sleep(0.1)


def ready(lab: LabPaths, node: LabNode) -> bool:
    """Whether a node has shown its host key and lets us in.

    Raises:
        LabError: its process has ended.
    """
    if recorded(lab.node(node.name).process) is None:
        raise stuck(lab, node, "ended while it was starting")
    if ssh.console_key(lab, node) is None:
        return False
    ssh.write_config(lab)
    return ssh.reachable(lab, node.name)


def stuck(lab: LabPaths, node: LabNode, what: str) -> LabError:
    """The error for a node that does not come up, with the end of its console."""
    paths = lab.node(node.name)
    texts = []
    for log in (paths.folder / "qemu.log", paths.console_log):
        with suppress(FileNotFoundError):
            texts += log.read_text(errors="replace").splitlines()[-8:]
    shown = "\n".join(f"    {line}" for line in texts)
    return LabError(
        f"{node.name} {what}; its last lines:\n{shown}",
        code="node_failed",
        hint=f"see {paths.console_log}, then run `scripts/lab up` again or `scripts/lab down`",
    )


def down(lab: LabPaths) -> None:
    """Take a lab down and keep its nodes' disks.

    Raises:
        LabError: not allowed, or something cannot be ended.
    """
    with locked(lab):
        stop(lab, keep_disks=True)


def destroy(lab: LabPaths) -> None:
    """Take a lab down and remove all it has, keys and disks too."""
    with locked(lab):
        stop(lab, keep_disks=False)
        remove(lab.state_dir)


def stop(lab: LabPaths, *, keep_disks: bool) -> None:
    """End the nodes, then whatever else is in the lab's networks, then the networks."""
    running = {
        node: process
        for node in NODES
        if (process := recorded(lab.node(node.name).process)) is not None
    }
    for node in NODES:
        ssh.hang_up(lab, node.name)
    if running:
        with step(f"Shut down {', '.join(node.name for node in running)}"):
            shut_down(lab, running, keep_disks=keep_disks)
    with step("Remove the networks"):
        for node in NODES:
            end_strays(lab, node)
            lab.node(node.name).process.unlink(missing_ok=True)
            node_container.clear(lab, node)
        end_all(lambda: wiring.all_processes(lab))
        wiring.unwire(lab)
        remove(lab.runtime_dir)
        with suppress(OSError):  # other labs are there
            lab.runtime_dir.parent.rmdir()
        (lab.state_dir / "cuts.json").unlink(missing_ok=True)


def shut_down(lab: LabPaths, running: dict[LabNode, Process], *, keep_disks: bool) -> None:
    """Ask nodes to shut down together, and end those that do not."""
    # What is there is asked, not the settings: a lab with damaged ones can be taken down too.
    is_vm = {node: lab.node(node.name).qmp.exists() for node in running}
    kind = Kind.VM if any(is_vm.values()) else Kind.CONTAINER
    for node, process in running.items():
        # A machine that is still starting hears no power button.
        if is_vm[node] and keep_disks and lab.node(node.name).boot.exists():
            # One that does not answer is ended below.
            with suppress(LabError):
                node_vm.order(lab.node(node.name), "system_powerdown")
        else:
            send(process, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS[kind]
    for node, process in running.items():
        if not gone(process, max(0.0, deadline - time.monotonic())):
            note(f"{node.name} did not shut down in {STOP_SECONDS[kind]} s and is ended")
            send(process, signal.SIGKILL)


def end_strays(lab: LabPaths, node: LabNode) -> None:
    """End what a killed node left running in its network."""
    end_all(lambda: wiring.processes(lab, node.name))


def end_all(find: Callable[[], set[int]]) -> None:
    """Kill the processes that `find` names until it names none.

    Raises:
        LabError: some cannot be killed.
    """
    for _ in range(100):
        found = [process for pid in find() if (process := identify(pid)) is not None]
        if not found:
            return
        for process in found:
            send(process, signal.SIGKILL)
        time.sleep(0.05)
    pids = ", ".join(str(process.pid) for process in found)
    raise LabError(f"processes {pids} do not end", hint="they wait for a device: see dmesg")
