"""Carries out the steps of a plan, and says on the console how far it is."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ppn.errors import PpnError
from ppn.installer import mark
from ppn.installer.console import Say
from ppn.installer.plan import Action, Appear, CopyTree, PutMark, Run, Step, WriteFiles
from ppn.installer.render import File
from ppn.run import run

SYS = Path("/sys/dev/block")
LOOK_SECONDS = 0.5
# What the console tells of a copy: each further ten of a hundred.
TOLD_PERCENT = 10


class StepFailed(PpnError):
    """A step of the installation that could not be done; the disk cannot be started."""

    code = "installation_failed"


def carry_out(steps: Sequence[Step], disk: Path, say: Say) -> None:
    """Do all steps in their order.

    Args:
        steps: of `plan.installation`.
        disk: the chosen disk, for the mark.
        say: tells the console.

    Raises:
        StepFailed: one could not be done; those after it were not begun.
    """
    for number, step in enumerate(steps, start=1):
        say(f"[{number:2}/{len(steps)}] {step.title}")
        began = time.monotonic()
        for action in step.actions:
            try:
                do(action, disk, say)
            except (PpnError, OSError) as error:
                raise StepFailed(
                    f"step {number}, {step.title!r}, failed: {error}",
                    hint="start the machine from the medium again: the installation starts over",
                ) from error
        took = time.monotonic() - began
        if took >= 1:
            say(f"done in {took:.0f} s")


def do(action: Action, disk: Path, say: Say) -> None:
    """Do one action.

    Raises:
        PpnError: a program failed, or a device did not appear.
        OSError: something could not be read or written.
    """
    match action:
        case PutMark():
            mark.write(disk, action.mark)
        case Run():
            done = run(action.argv, timeout=action.seconds, env=ENVIRONMENT)
            if action.shown:
                say(done.stdout or done.stderr)
        case Appear():
            appear(action.devices, action.disk, action.seconds)
        case WriteFiles():
            write_files(action.folder, action.files)
        case CopyTree():
            copy_tree(action, say)


# No word of the live system's surroundings shapes what is installed.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    # What is shown goes to consoles that know no more.
    "LC_ALL": "C",
    "TERM": "dumb",
}


def appear(devices: Sequence[Path], disk: Path, seconds: float, sys: Path = SYS) -> None:
    """Wait until partitions are there, and their names lead to this disk's own.

    Args:
        devices: the partitions; another disk's may have the same UUIDs, and so these names.
        disk: the device that they must be on.
        seconds: how long to wait.
        sys: where the kernel tells of devices by their numbers.

    Raises:
        PpnError: one was not there in time.
    """
    end = time.monotonic() + seconds
    while missing := [path for path in devices if not is_on(path, disk, sys)]:
        if time.monotonic() > end:
            raise PpnError(f"{missing[0]} was no partition of {disk} within {seconds:.0f} s")
        time.sleep(0.1)


def is_on(partition: Path, disk: Path, sys: Path) -> bool:
    """Whether a device is a partition of a disk; not while either comes or goes."""
    try:
        whole = ((sys / _number(partition)).resolve().parent / "dev").read_text().strip()
        return whole == _number(disk)
    except OSError:
        return False


def _number(device: Path) -> str:
    """A device's number as the kernel writes it."""
    number = device.stat().st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


def write_files(folder: Path, files: Mapping[str, File]) -> None:
    """Write files and links below a folder; what was there under their names is replaced.

    Raises:
        OSError: one cannot be written.
    """
    for name, file in files.items():
        path = folder / name.lstrip("/")
        make_folders(path.parent)
        path.unlink(missing_ok=True)
        if file.link:
            path.symlink_to(file.link)
            continue
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            os.fchmod(opened.fileno(), file.mode)
            opened.write(file.text)


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, with modes that no umask has touched."""
    if not folder.is_dir():
        make_folders(folder.parent)
        folder.mkdir()
        folder.chmod(0o755)


def copy_tree(action: CopyTree, say: Say) -> None:
    """Copy a file system and tell how far it is, by the files that are there already.

    Raises:
        CommandFailed: it could not be copied.
    """
    words = ("cp", "--archive", "--one-file-system", f"{action.source}/.", str(action.target))
    wanted = os.statvfs(action.source).f_files
    before = _used(action.target)

    def percent() -> int:
        return min(100, 100 * (_used(action.target) - before) // max(1, wanted))

    with telling(percent, say):
        run(words, timeout=action.seconds, env=ENVIRONMENT)


def _used(folder: Path) -> int:
    state = os.statvfs(folder)
    return state.f_files - state.f_ffree


@contextmanager
def telling(percent: Callable[[], int], say: Say) -> Iterator[None]:
    """Tell how much of a copy is done, while it goes on.

    Args:
        percent: how much it is now.
        say: tells the console.
    """
    ended = threading.Event()

    def watch() -> None:
        told = 0
        while not ended.wait(LOOK_SECONDS):
            now = percent() // TOLD_PERCENT * TOLD_PERCENT
            if now > told:
                told = now
                say(f"copied {now} %")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
