"""Programs that outlive one command, nodes in the background, or have the terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.errors import LabError
from ppn.durable import write_atomic

# The child waits for one line, so that it is on record before it does anything.
GATE = 'read -r go || exit 1; exec "$@" </dev/null'


@dataclass(frozen=True)
class Process:
    """A process that cannot be taken for another one, even after its number is used again.

    Args:
        pid: its number.
        started: clock ticks after the machine's boot at which it started.
        boot_id: which boot of the machine.
    """

    pid: int
    started: int
    boot_id: str


def identify(pid: int) -> Process | None:
    """The running process with this number; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Process(pid, int(fields[19]), boot_id)


def recorded(record: Path) -> Process | None:
    """The process a record names, if that very process still runs."""
    try:
        wanted = Process(**json.loads(record.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise LabError(f"{record} is damaged", hint="end the node by hand, remove it") from error
    return wanted if identify(wanted.pid) == wanted else None


def spawn(argv: Sequence[str], *, log: Path, record: Path, env: Mapping[str, str]) -> Process:
    """Start a program that goes on after this one has ended.

    The record is written before the program starts: a kill at any point leaves either no
    process or one that is on record.

    Args:
        argv: the program and its arguments.
        log: file that takes its output; replaced.
        record: file that remembers the process.
        env: additions to the environment.

    Raises:
        LabError: it could not be started.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(
            ["sh", "-c", GATE, "sh", *argv],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | env,
            start_new_session=True,
        )
    process = identify(child.pid)
    if process is None or child.stdin is None:
        raise LabError(f"{argv[0]} ended at once", hint=f"see {log}")
    write_atomic(record, json.dumps(asdict(process)).encode())
    child.stdin.write(b"go\n")
    child.stdin.close()
    # It is meant to outlive us: nobody waits for it, and the warning about that is wrong here.
    child.returncode = 0
    return process


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal, unless the process is gone."""
    if identify(process.pid) == process:
        os.kill(process.pid, number)


def gone(process: Process, within: float) -> bool:
    """Whether a process ends before `within` seconds are over."""
    deadline = time.monotonic() + within
    while identify(process.pid) == process:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def attend(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> int:
    """Run a program at this terminal, in folder `cwd`, with `env` added, for its exit code."""
    return subprocess.run(argv, env=os.environ | env, cwd=cwd, check=False).returncode
