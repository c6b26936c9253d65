"""The steps of each VM's last operations with their times, kept for whoever looks for a cause.

They lie beside the VMs, not in their folders, so that the reason of a failure outlives what failed;
with a VM that was destroyed they go.
They are written at every step, whole and by rename, but not forced to disk: a killed agent leaves
them readable, and a lost one costs no VM.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from ppn.errors import PpnError
from ppn.host.paths import Paths
from ppn.log import get_logger
from ppn.wire.agent import OperationRecord, Step, Timeline

OPERATIONS_KEPT = 8
FILES_KEPT = 512
STEPS_KEPT = 64
MESSAGE_CHARACTERS = 2000

log = get_logger("host-agent")


class Recorder:
    """One operation while it goes on.

    Args:
        timelines: where it is kept.
        vm: whom it changes.
        record: how it begins.
    """

    def __init__(self, timelines: Timelines, vm: str, record: OperationRecord) -> None:
        self._timelines = timelines
        self._began = time.monotonic()
        # A quick guest speaks while its operation ends, on another thread.
        self._lock = threading.Lock()
        self.vm = vm
        self.record = record
        self.steps: list[Step] = []

    def step(self, name: str) -> None:
        """Say that a step begins, and with it that the one before has ended."""
        with self._lock:
            self._close_step()
            if len(self.steps) < STEPS_KEPT:
                self.steps.append(Step(name=name, at_seconds=self._now))
            self._keep()

    def end(self, outcome: OperationRecord) -> None:
        """Say how it ended; the steps are added here."""
        with self._lock:
            self._close_step()
            self.record = outcome
            self._keep()

    def guest_ran(self) -> None:
        """Say that the guest wrote its first byte, which is after the operation's end."""
        with self._lock:
            self.steps.append(Step(name="first guest code", at_seconds=self._now, seconds=0.0))
            # The VM may have been removed since, and made anew under its name.
            self._keep(anew=False)

    @property
    def _now(self) -> float:
        return round(time.monotonic() - self._began, 6)

    def _close_step(self) -> None:
        if self.steps and self.steps[-1].seconds is None:
            last = self.steps[-1]
            seconds = round(self._now - last.at_seconds, 6)
            self.steps[-1] = last.model_copy(update={"seconds": seconds})

    def _keep(self, *, anew: bool = True) -> None:
        self.record = self.record.model_copy(update={"steps": tuple(self.steps)})
        self._timelines.keep(self.vm, self.record, anew=anew)


class Timelines:
    """Every VM's timeline, one file each.

    Args:
        paths: the node's files.
    """

    recorder = Recorder

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._lock = threading.Lock()

    @contextmanager
    def recording(self, vm: str, operation: str, correlation_id: str) -> Iterator[Recorder]:
        """Record an operation from here to the end of the block, however that ends."""
        began = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = OperationRecord(operation=operation, correlation_id=correlation_id, began=began)
        recorder = self.recorder(self, vm, record)
        failed = {"outcome": "failed", "code": "agent_failed", "message": "see the agent's log"}
        changes = failed
        try:
            yield recorder
            changes = {"outcome": "done"}
        except PpnError as error:
            changes = failed | {"code": error.code, "message": str(error)[:MESSAGE_CHARACTERS]}
            raise
        finally:
            recorder.end(recorder.record.model_copy(update=changes))

    def read(self, vm: str) -> Timeline:
        """A VM's timeline; empty when there is none or it cannot be read."""
        try:
            return Timeline.model_validate_json(self._file(vm).read_bytes())
        except (OSError, ValidationError):
            return Timeline(vm=vm)

    def last(self, vm: str) -> OperationRecord | None:
        """A VM's last operation; None when none is known."""
        return next(reversed(self.read(vm).operations), None)

    def forget(self, vm: str) -> None:
        """Remove the timeline of a VM of which nothing else is left."""
        with self._lock:
            self._file(vm).unlink(missing_ok=True)

    def keep(self, vm: str, record: OperationRecord, *, anew: bool = True) -> None:
        """Put a record in place of what was known of the same operation.

        Args:
            vm: whom it changes.
            record: how it is by now.
            anew: also when nothing is known of it.
        """
        key = (record.began, record.correlation_id)
        with self._lock:
            known = {(one.began, one.correlation_id): one for one in self.read(vm).operations}
            if key not in known and not anew:
                return
            known[key] = record
            kept = tuple(known.values())[-OPERATIONS_KEPT:]
            try:
                self._write(vm, Timeline(vm=vm, operations=kept))
            except OSError as error:
                # A full disk may cost the record of an operation, never the operation.
                log.warning("timeline not kept", vm=vm, error=str(error))

    def cut_short(self) -> dict[str, str]:
        """Close every record an earlier agent left open.

        Returns:
            For each VM the operation that was cut short.
        """
        found: dict[str, str] = {}
        for file in self._files():
            record = self.last(file.stem)
            if record is not None and record.outcome == "going":
                found[file.stem] = record.operation
                step = record.steps[-1].name if record.steps else "its first step"
                self.keep(
                    file.stem,
                    record.model_copy(
                        update={
                            "outcome": "cut_short",
                            "code": "agent_ended",
                            "message": f"the agent ended during {step}",
                        }
                    ),
                )
        return found

    def prune(self) -> None:
        """Forget the oldest timelines of VMs that are gone, so that they stay few."""
        files = [file for file in self._files() if not self._paths.vm(file.stem).folder.exists()]
        files.sort(key=lambda file: file.stat().st_mtime)
        for file in files[:-FILES_KEPT]:
            file.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self._paths.timelines.glob("[a-z]*.json"))

    def _file(self, vm: str) -> Path:
        return self._paths.timelines / f"{vm}.json"

    def _write(self, vm: str, timeline: Timeline) -> None:
        self._paths.timelines.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._paths.timelines / f".{vm}.new"
        try:
            temporary.write_text(timeline.model_dump_json())
            os.replace(temporary, self._file(vm))
        finally:
            temporary.unlink(missing_ok=True)
