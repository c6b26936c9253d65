"""The `ppn reconcile` command against a pool on loopback."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppn.fleet.reconciliation import app
from ppn.fleet.reconciliation.settings import read_settings
from ppn.fleet.reconciliation.store import Store, read_report
from ppn.run import Completed, run
from tests.integration.fleet.node import Node
from tests.integration.host.node import PPN

# Where reconciliation asks from: a caller of the controllers.
ADDRESS = "127.0.0.1"


@dataclass
class Reconciler:
    """The node that reconciles: its settings, and its command.

    Args:
        folder: takes everything.
        settings: beyond what it needs.
    """

    folder: Path
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        self.path = self.folder / "reconcile.json"
        self.state = self.folder / "state"
        self.write()

    def write(self, **changes: Any) -> None:
        """Write the settings, with changes."""
        self.settings |= changes
        usual = {
            "name": "relay",
            "address": ADDRESS,
            "state": str(self.state),
            "settle_seconds": 0.8,
        }
        self.path.write_text(json.dumps(usual | self.settings))

    def argv(self, *words: str) -> list[str]:
        """The command line of a sub-command that reads the settings."""
        return [str(PPN), "reconcile", *words, "--settings", str(self.path)]

    def do(self, *words: str, accept: tuple[int, ...] = (0,)) -> Completed:
        """Run a sub-command to its end."""
        return run(self.argv(*words), timeout=120, accept=accept)

    def run(self, *, if_due: bool = False) -> dict[str, Any]:
        """A run in this process, which saves the start of another; its report, or nothing."""
        settings = read_settings(self.path)
        store = Store(settings.state)
        made = app.run(settings, store, if_due=if_due)
        if made is None:
            return {}
        report = read_report(made.path, store.public())
        return {"name": made.name, **report.model_dump(mode="json")}

    def found(self) -> set[tuple[str, str, str]]:
        """Class, subject and node of each finding of a run."""
        return {(one["code"], one["subject"], one["node"]) for one in self.run()["findings"]}

    def watch(self) -> None:
        """A cycle of the watch, in this process."""
        settings = read_settings(self.path)
        app.watch(settings, Store(settings.state))

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a sub-command, without waiting for its end."""
        return subprocess.Popen(self.argv(*words), stderr=subprocess.DEVNULL)


class Reporting(Node):
    """A node whose stand-in of an agent also says how it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.alerts: list[dict[str, str]] = []
        self.going: list[str] = []

    def _do(self, body: dict[str, Any], ticket: dict[str, Any] | None) -> dict[str, Any]:
        if body["operation"] != "node":
            return super()._do(body, ticket)
        operations = [
            {"vm": vm, "operation": "spawn", "correlation_id": "test-going", "seconds": 1.0}
            for vm in self.going
        ]
        holds = {"count": 0, "mean_seconds": 0.0, "longest_seconds": 0.0}
        return {"node": self.heartbeat(), "operations": operations, "holds": holds}

    def heartbeat(self) -> dict[str, Any]:
        """What it says of itself now."""
        beat = super().heartbeat()
        return beat | {"alerts": list(self.alerts)}
