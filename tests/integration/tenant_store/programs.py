"""Programs of this folder, as processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]


@contextmanager
def started(module: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A program, killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"tests.integration.tenant_store.{module}", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints; empty when it has ended."""
    return "" if process.stdout is None else process.stdout.readline().strip()


def say(process: subprocess.Popen[str], line: str) -> None:
    """Give it a line to read."""
    if process.stdin is not None:
        process.stdin.write(line + "\n")
        process.stdin.flush()
