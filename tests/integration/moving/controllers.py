"""A controller of the two nodes, in a process and a network of its own."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ppn.pool.tls import TlsFiles
from tests.integration.fleet.edges import context
from tests.integration.host.node import wait_for
from tests.integration.mesh.namespaces import Namespace

FLEET_PORT = 9203
CONTROLLERS = ("10.8.0.1", "10.8.0.4")
NODES = {"a": "10.8.0.2", "b": "10.8.0.3"}


@dataclass
class Controller:
    """A controller in the hub.

    Args:
        folder: takes its files.
        space: its network.
        settings: what it is told.
        files: its client certificate.
        reach: does HTTP in the hub's network.
    """

    folder: Path
    space: Namespace
    settings: dict[str, Any]
    files: TlsFiles
    reach: ThreadPoolExecutor
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it has heard every node."""
        path = self.folder / "fleet.json"
        path.write_text(json.dumps(self.settings))
        words = ["-m", "ppn.fleet", "--key", str(self.files.key), "--settings", str(path)]
        with (self.folder / "controller.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*enter(self.space), sys.executable, *words], stderr=log, stdout=log
            )

        def hears() -> bool:
            with suppress(httpx.HTTPError):
                return len(self.ask("GET", "/nodes").json()) == len(NODES)
            return False

        wait_for("a controller that hears both nodes", hears)

    def kill(self) -> None:
        """End it without warning."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def ask(self, method: str, path: str, body: Any = None, key: str = "") -> httpx.Response:
        """Ask it, as a caller on its own node."""
        url = f"http://{self.settings['address']}:{FLEET_PORT}/v1{path}"
        headers = {"Idempotency-Key": key} if key else {}

        def work() -> httpx.Response:
            with httpx.Client(verify=context(), timeout=60, trust_env=False) as client:
                return client.request(method, url, json=body, headers=headers)

        return self.reach.submit(work).result()


def enter(space: Namespace) -> list[str]:
    """The words before a command that run it in a namespace's network."""
    return ["nsenter", "-t", str(space.pid), "-n", "--"]


def joins(space: Namespace) -> Callable[[], None]:
    """Puts the thread that calls it into a namespace's network."""

    def join() -> None:
        descriptor = os.open(f"/proc/{space.pid}/ns/net", os.O_RDONLY)
        try:
            assert ctypes.CDLL(None, use_errno=True).setns(descriptor, 0) == 0
        finally:
            os.close(descriptor)

    return join
