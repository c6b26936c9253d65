"""The one place where ppn starts other programs."""

from __future__ import annotations

import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ppn.errors import PpnError

CHECK_SECONDS = 0.2
LOG_LINES = 12


class CommandFailed(PpnError):
    """A program ended with an exit code the caller does not accept, or outlived its deadline."""

    code = "command_failed"


@dataclass(frozen=True)
class Completed:
    """What a finished program left behind."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    input: str | None = None,
    accept: Sequence[int] = (0,),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: Callable[[], None] | None = None,
) -> Completed:
    """Run a program to its end and return its output.

    Args:
        argv: the program and its arguments; never a shell line.
        timeout: seconds after which the program is killed.
        input: text for its standard input; without it the input is empty.
        accept: exit codes that are no error.
        env: the whole environment of the program; inherited when not given.
        cwd: the folder it runs in.
        check: asked now and then while it runs; when it raises the program is killed.

    Raises:
        CommandFailed: not found, not startable, timed out, or an exit code outside `accept`.
    """
    words = tuple(str(word) for word in argv)
    try:
        with _started(words, env, cwd) as process:
            try:
                stdout, stderr = _output(process, input or "", timeout, check)
            finally:
                # Nobody waits for it any more; one that has ended takes no notice.
                process.kill()
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{words[0]} did not end within {timeout:g} s") from error
    except OSError as error:
        raise CommandFailed(f"cannot start {words[0]}: {error.strerror}") from error
    if process.returncode not in accept:
        last = (stderr or stdout).strip().splitlines()[-3:]
        raise CommandFailed(
            f"{' '.join(words[:3])} … ended with {process.returncode}: {' | '.join(last)}"
        )
    return Completed(words, process.returncode, stdout, stderr)


def _started(
    words: tuple[str, ...], env: Mapping[str, str] | None, cwd: Path | None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=dict(env) if env is not None else None,
        cwd=cwd,
    )


def _output(
    process: subprocess.Popen[str],
    input: str,
    timeout: float,
    check: Callable[[], None] | None,
) -> tuple[str, str]:
    """What a program says until its end, or until nobody wants it any more."""
    end = time.monotonic() + timeout
    while True:
        left = max(end - time.monotonic(), 0)
        try:
            return process.communicate(input, left if check is None else min(left, CHECK_SECONDS))
        except subprocess.TimeoutExpired:
            if check is None or left <= CHECK_SECONDS:
                raise
            # It has been given its input once.
            input = ""
            check()


def stream(
    argv: Sequence[str | Path],
    *,
    log: Path,
    timeout: float,
    told: Callable[[str], None],
    env: Mapping[str, str],
) -> None:
    """Run a long program to its end, reporting its output line by line.

    Args:
        argv: the program and its arguments.
        log: file that takes the whole output; replaced.
        timeout: seconds after which it is ended.
        told: called with each line.
        env: additions to the environment.

    Raises:
        CommandFailed: not found, ended with an error or timed out; with the last lines of the log.
    """
    # In the foreground's group, so that an interrupt at the terminal reaches the program too.
    bounded = ["timeout", "--foreground", "--kill-after=10", f"{timeout:g}", *argv]
    last: deque[str] = deque(maxlen=LOG_LINES)
    pipe, everything = subprocess.PIPE, os.environ | env
    with (
        log.open("wb") as file,
        subprocess.Popen(
            bounded,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            env=everything,
        ) as child,
    ):
        try:
            for raw in child.stdout or ():
                file.write(raw)
                last.append(raw.decode(errors="replace").rstrip())
                told(last[-1])
        except BaseException:
            # Interrupted: nobody else would end it.
            child.terminate()
            raise
    if child.returncode != 0:
        shown = "\n".join(f"    {line}" for line in last)
        raise CommandFailed(
            f"{argv[0]} ended with {child.returncode}; its last lines:\n{shown}",
            hint=f"the whole log is {log}",
        )
