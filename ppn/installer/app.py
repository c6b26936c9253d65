"""The installer as it runs on a machine: look, judge, say, install, start the disk."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ppn import __version__
from ppn.errors import PpnError, Refusal
from ppn.installer import efi, medium, policy, render, settings
from ppn.installer.console import Console, Say, consoles
from ppn.installer.disks import Disk, list_devices, looked_at, read_disks
from ppn.installer.execute import carry_out
from ppn.installer.mark import Mark, State
from ppn.installer.medium import Boot, Found
from ppn.installer.plan import Folders, installation
from ppn.installer.plugged import QUIET_SECONDS, await_change, plugged
from ppn.installer.policy import Choice, Wanted
from ppn.installer.settings import NodeSettings
from ppn.run import CommandFailed, run

RUN = Path("/run/ppn")
SETTLE_SECONDS = 60.0
LATE_SECONDS = 30.0
# Long enough to be read, when a person stands there.
READ_SECONDS = 5.0
WAITING = (
    f"waiting: {QUIET_SECONDS:g} s after a disk or a medium was plugged in or taken out, the"
    " machine is looked at again"
)


@dataclass(frozen=True)
class Decision:
    """What is to become of this machine: which node, on which disk, from what."""

    node: NodeSettings
    wanted: Wanted
    choice: Choice


def install(say: Say) -> None:
    """Make a node of this machine, and let it start from its disk.

    Args:
        say: tells the console.

    Raises:
        Refusal: it must not be done; nothing was written.
        PpnError: it could not be done.
        OSError: a device could not be read.
    """
    boot = medium.read_boot(RUN, medium.kernel_command_line())
    say(f"ppn {__version__}, image {boot.image[:16]}")
    settle()
    decision = decide(boot, say)
    name = decision.node.node.name
    disk = decision.choice.disk
    if decision.choice.installed:
        say(f"ALREADY INSTALLED: {disk.title} is node {name}, from this image and these settings")
        say("it is not installed again")
    else:
        write(decision, boot, say)
        say(f"INSTALLED node {name} on {disk.title}")
    start_disk(decision.choice, boot.power_off, say)


def settle() -> None:
    """Wait until udev has looked at every device that the kernel knows.

    Raises:
        PpnError: it has not come to an end; a medium or a disk could be overlooked.
    """
    try:
        run(["udevadm", "settle", "--timeout=30"], timeout=SETTLE_SECONDS)
    except CommandFailed as error:
        raise PpnError(
            f"the machine's devices do not come to rest: {error.message}",
            code="devices_busy",
            hint="a broken drive keeps the others waiting: take it out, and start again",
        ) from error


def decide(boot: Boot, say: Say) -> Decision:
    """Judge settings, machine and disks; nothing is written.

    Args:
        boot: what this boot is.
        say: tells the console.

    Raises:
        Refusal: the settings are not to be trusted, or no disk is to be taken.
        PpnError: something cannot be read.
    """
    found = medium.find_settings(boot, await_settings(boot), RUN)
    say(f"site settings of {found.source}, signed by {found.signer}")
    if found.passed_over:
        say(f"passed over: {found.passed_over}; a second medium goes first")
    node = settings.node_of(found.site, medium.read_machine())
    say(f"this machine is node {node.node.name}")
    wanted = Wanted(node.node.name, boot.image, node.digest())
    return Decision(node, wanted, choose(boot, found, node, wanted, say))


def await_settings(boot: Boot) -> list[dict[str, Any]]:
    """The devices of the machine, once settings are there; a second stick may come up late.

    Args:
        boot: what this boot is.
    """
    end_of_wait = time.monotonic() + LATE_SECONDS
    while True:
        listed = list_devices()
        there = medium.has_settings(boot) or any(medium.site_devices(listed))
        if there or time.monotonic() > end_of_wait:
            return listed
        time.sleep(1)


def choose(boot: Boot, found: Found, node: NodeSettings, wanted: Wanted, say: Say) -> Choice:
    """The disk to be taken; the console hears what was found on every one.

    Raises:
        Refusal: none, or more than one.
    """
    media = medium.disks_of(list_devices(), found.devices | {boot.medium})
    disks = read_disks()
    for disk in disks:
        say(f"disk {policy.judge(disk, node.disk, media, wanted).line}")
    choice = policy.choose(disks, node.disk, media, wanted)
    say(f"chosen: {choice.disk.title} ({choice.disk.path})")
    return choice


def write(decision: Decision, boot: Boot, say: Say) -> None:
    """Install on the chosen disk; the one function that writes.

    Raises:
        Refusal: the disk is not what it was when it was chosen; nothing was written.
        PpnError: a step failed.
    """
    disk = decision.choice.disk
    mark = Mark(
        state=State.COMPLETE,
        node=decision.node.node.name,
        image=decision.wanted.image,
        settings=decision.wanted.settings,
        seed=disk.mark.seed if disk.mark is not None else uuid4(),
    )
    files = render.node_files(decision.node, mark)
    kernel = kernel_release(Path("/usr/lib/modules"))
    check_unchanged(disk)
    carry_out(installation(disk, mark, files, boot.root, kernel, Folders()), Path(disk.path), say)


def check_unchanged(disk: Disk) -> None:
    """Look at the chosen disk once more, right before the first write.

    Raises:
        Refusal: its name leads to another disk now, or it is not what it was.
    """
    real = Path(disk.path).resolve()
    # Of one that is gone lsblk tells nothing, and fails.
    found = [looked_at(device) for device in list_devices(real)] if real.exists() else []
    if found != [disk]:
        raise Refusal(
            f"{disk.title} is not what it was a moment ago",
            code="disk_changed",
            constraint="disk policy",
            hint="leave the disks alone",
        )


def kernel_release(modules: Path) -> str:
    """The release of the one kernel of the image.

    Raises:
        PpnError: there is none, or more than one.
    """
    found = sorted(path.name for path in modules.iterdir() if (path / "modules.dep").exists())
    if len(found) != 1:
        raise PpnError(f"the image has {len(found)} kernels, not one", code="image_unsound")
    return found[0]


def start_disk(choice: Choice, power_off: bool, say: Say) -> None:
    """Start the machine anew, from its disk.

    Where the firmware's list cannot be changed, a disk that was just installed is given one try;
    after that the machine would go round for ever.

    Args:
        choice: the disk, and whether it was installed before this start.
        power_off: whether to switch off rather than to halt, when there is nothing else to do.
        say: tells the console.
    """
    how = "reboot"
    try:
        efi.start_next(f"/dev/{choice.disk.name}")
        say("starting from the disk")
    except efi.FirmwareRefuses as error:
        say(f"{error}")
        say("take the medium out and start again, or put the disk first in the firmware's menu")
        if choice.installed:
            how = end(power_off, say)
    time.sleep(READ_SECONDS)
    leave(how)


def end(power_off: bool, say: Say) -> str:
    """Say that nothing goes on, and how the machine is left."""
    say("switching off" if power_off else "halted: switch the machine off and on to go on")
    return "poweroff" if power_off else "halt"


def leave(how: str) -> None:
    """Reboot, halt or switch off at once: nothing of this system is to be kept.

    Args:
        how: `reboot`, `halt` or `poweroff`.
    """
    run(["systemctl", "--force", "--force", how], timeout=SETTLE_SECONDS)


def main() -> None:
    """Entry point of the installer's service: it looks again until it may install."""
    say = Console(consoles()).say
    power_off = "ppn.on_failure=poweroff" in medium.kernel_command_line().split()
    while True:
        before = plugged()
        try:
            install(say)
            return
        except Refusal as error:
            say(f"REFUSED: {error}")
            say("nothing was written")
            if power_off:
                break
        except (PpnError, OSError) as error:
            say(f"FAILED: {error}")
            break
        say(WAITING)
        await_change(before)
        say("disks or media have changed: looking again")
    how = end(power_off, say)
    time.sleep(READ_SECONDS)
    leave(how)
