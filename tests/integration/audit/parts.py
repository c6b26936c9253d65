"""A real witness on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import httpx

from ppn.audit.witness.settings import KnownLog, WitnessSettings

ROOT = Path(__file__).parents[3]
NAME = "ppn/witness/server"
LOOPBACK = IPv4Address("127.0.0.1")


def settings(folder: Path, port: int, *origins: str) -> WitnessSettings:
    """What a witness of some logs is told."""
    return WitnessSettings(
        name=NAME,
        address=LOOPBACK,
        mesh_range=IPv4Network("127.0.0.0/8"),
        port=port,
        logs=tuple(KnownLog(origin=origin, address=LOOPBACK) for origin in origins),
        folder=folder,
        development=True,
    )


@contextmanager
def witness(told: WitnessSettings) -> Iterator[subprocess.Popen[str]]:
    """A witness's process, answering; it is dead when the block ends."""
    path = told.folder.with_suffix(".json")
    path.write_text(told.model_dump_json())
    process = subprocess.Popen(
        [sys.executable, "-m", "ppn.audit.witness", "--settings", str(path)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    with process:
        try:
            wait_for(f"{url(told)}/vkey", process)
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def url(told: WitnessSettings) -> str:
    """Where a witness answers."""
    return f"http://{told.address}:{told.port}"


def wait_for(where: str, process: subprocess.Popen[str]) -> None:
    """Wait until something answers there."""
    end = time.monotonic() + 60
    while True:
        try:
            assert httpx.get(where, trust_env=False, timeout=5).status_code == 200
            return
        except httpx.TransportError:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
