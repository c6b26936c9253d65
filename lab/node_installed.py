"""Nodes installed from the provisioning image: machines with firmware and a disk of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

from lab import firmware
from lab.errors import LabError
from lab.firmware import Bus, Drive
from lab.medium import Medium, firmware_memory, make_site_medium
from lab.node_vm import (
    ALL_PROCESSORS,
    CPUS,
    PROCESSOR,
    control,
    credential_words,
    emulator,
    network_card,
    order,
)
from lab.paths import LabPaths, NodePaths
from lab.process import Process, spawn
from lab.steps import Step, step
from lab.topology import LabNode
from lab.wiring import inside
from ppn.durable import write_atomic
from ppn.run import run, stream

DISK_SIZE = "16G"
INSTALL_SECONDS = 2400
# Colours and cursor moves of firmware and systemd.
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|[=>])|\r")
# What the image says of each end it can come to, and of every step.
INSTALLED = "ppn-installer: INSTALLED"
# The second, when the lab was interrupted between the last step and the machine's restart.
WELL = (INSTALLED, "ppn-installer: ALREADY INSTALLED")
ENDED = re.compile(r"ppn: the machine waits here|ppn-installer: (?:halted|waiting)")
SAID = re.compile(r"ppn(?:-installer)?: (.*)")


def ensure_installed(lab: LabPaths, node: LabNode, medium: Medium) -> None:
    """Install a node on a blank disk of its own, unless that was done before.

    An installation that was cut short goes on from the disk as it is.

    Args:
        lab: whose node.
        node: which node.
        medium: what to install from.

    Raises:
        LabError: the installer refused, failed, or did not end in time.
    """
    paths = lab.node(node.name)
    if paths.disk.exists():
        return
    paths.folder.mkdir(parents=True, exist_ok=True)
    if not paths.site.exists():
        make_site_medium(lab, node, medium.site_key)
    write_atomic(paths.variables, firmware_memory(medium.image, enforced=True))
    if not paths.installing.exists():
        run(["qemu-img", "create", "-q", "-f", "qcow2", paths.installing, DISK_SIZE], timeout=60)
    with step(f"Install {node.name} from {medium.image.name}") as shown:
        install(node, paths, medium, shown)
    paths.installing.rename(paths.disk)


def install(node: LabNode, paths: NodePaths, medium: Medium, shown: Step) -> None:
    """Boot a machine from the image once, until it restarts by itself.

    Raises:
        LabError: the installer refused, failed, or did not end in time.
    """
    paths.qmp.unlink(missing_ok=True)
    drives = [
        Drive(medium.image, Bus.CD),
        Drive(paths.site, Bus.STICK, writable=False),
        Drive(paths.installing, Bus.NVME, format="qcow2"),
    ]
    said = False

    def told(line: str) -> None:
        nonlocal said
        text = plain(line.encode()).strip()
        if found := SAID.match(text):
            shown.detail(found[1])
        said = said or text.startswith(WELL)
        if ENDED.search(text):
            # It would wait for a person, and there is none.
            with suppress(LabError):
                order(paths, "quit")

    # QEMU keeps the log itself, line by line, so that it is whole however all this ends.
    console = f"stdio,id=console,signal=off,logfile={paths.install_log}"
    # Unplugged: an installation needs no network, and shows so.
    # Nor more than one processor: the image starts all there are at once (lab/initrd.py).
    argv = [*machine(node, paths, drives, 1), *network_card(node, plugged=False)]
    argv += ["-chardev", console, "-serial", "chardev:console"]
    stream(argv, log=paths.folder / "qemu.log", timeout=INSTALL_SECONDS, told=told, env={})
    if not said:
        lines = plain(paths.install_log.read_bytes()).splitlines()
        last = "\n".join(f"    {line}" for line in lines[-8:])
        raise LabError(
            f"{node.name} was not installed; its last lines:\n{last}",
            code="not_installed",
            hint=f"the whole console is {paths.install_log}; run the command again to go on",
        )


def machine(node: LabNode, paths: NodePaths, drives: Sequence[Drive], count: int) -> list[str]:
    """The words for a machine of `count` processors that starts from its firmware."""
    # With virtualisation, as the real hardware has that it stands for.
    argv = [*emulator(node, PROCESSOR, count), *firmware.words(paths.variables, drives)]
    return [*argv, *control(paths)]


def start(lab: LabPaths, node: LabNode) -> Process:
    """Start an installed node from its own disk, with Secure Boot enforced.

    Args:
        lab: whose node; its network must be there.
        node: which node.

    Raises:
        LabError: it could not be started.
    """
    paths = lab.node(node.name)
    paths.qmp.unlink(missing_ok=True)
    paths.console_log.unlink(missing_ok=True)
    drives = [Drive(paths.disk, Bus.NVME, format="qcow2")]
    argv = [*machine(node, paths, drives, CPUS), *credential_words(ALL_PROCESSORS)]
    argv += [*network_card(node), "-serial", f"file:{paths.console_log}"]
    log = paths.folder / "qemu.log"
    return spawn(inside(lab, node.name, argv), log=log, record=paths.process, env={})


def plain(console: bytes) -> str:
    """What a console printed, as a person reads it."""
    return ESCAPES.sub("", console.decode(errors="replace"))
