"""Who was let in and who was turned away: one JSON line each, and no flood can fill the disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

WINDOW_SECONDS = 60.0
# Kept apart by name up to here; what comes from more addresses than that is counted together.
MOST_SOURCES = 1024
OTHERS = "others"
# A VM's disks come in half a MiB at a time: the first piece of a window is a line, then a count.
PIECES = "deliver"


class Log(Protocol):
    """What is written to."""

    def info(self, event: str, **fields: object) -> object:
        """Write a line."""

    def warning(self, event: str, **fields: object) -> object:
        """Write a line that someone should look at."""


@dataclass
class Entry:
    """One request, as the audit log will have it.

    Args:
        client: the node its certificate names.
        ip: where it comes from.
        operation: what it asks for; `unknown` until that is known.
        vm: what it is about.
        correlation_id: stands in the log lines of every service the request passed.
        status: of HTTP; 0 while there is none.
        code: of the refusal or failure; empty on success.
    """

    client: str
    ip: str
    correlation_id: str
    operation: str = "unknown"
    vm: str = ""
    status: int = 0
    code: str = ""

    @property
    def outcome(self) -> str:
        """Let in, turned away for what it was, or let in and failed."""
        if not self.code:
            return "accepted"
        return "refused" if self.status < 500 else "failed"


@dataclass
class Audit:
    """The audit log.

    Args:
        log: where lines go.
        began: when the present window began, seconds of a monotonic clock.
        counts: turned away before there was a request: by reason, detail and address, in this
            window.
        pieces: of moving VMs that were let in: by node, address, VM and correlation id, in this
            window.
    """

    log: Log
    began: float = 0.0
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    pieces: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)

    def request(self, entry: Entry, seconds: float) -> None:
        """Write the line of one request; of a moving VM's pieces the first of a window (NP-03)."""
        if entry.operation == PIECES and entry.outcome == "accepted":
            key = (entry.client, entry.ip, entry.vm, entry.correlation_id)
            self.pieces[key] += 1
            if self.pieces[key] > 1:
                return
        self.log.info(
            "request",
            client=entry.client,
            ip=entry.ip,
            operation=entry.operation,
            vm=entry.vm,
            outcome=entry.outcome,
            status=entry.status,
            code=entry.code,
            correlation_id=entry.correlation_id,
            milliseconds=round(seconds * 1000, 1),
        )

    def turned_away(self, reason: str, ip: str, now: float, detail: str = "") -> None:
        """Note a connection that came to no request; the first of a kind at once, then a count.

        Args:
            reason: a stable word.
            ip: where it came from.
            now: seconds of the monotonic clock.
            detail: what was wrong, one of a few texts.
        """
        self.flush(now)
        known = (reason, detail, ip) in self.counts or len(self.counts) < MOST_SOURCES
        key = (reason, detail, ip if known else OTHERS)
        self.counts[key] += 1
        if self.counts[key] == 1:
            self.log.warning(
                "connection refused",
                client="",
                ip=key[2],
                operation="connect",
                outcome="refused",
                code=reason,
                detail=detail,
            )

    def flush(self, now: float, *, ending: bool = False) -> None:
        """When the window is over, write how many more there were of each kind.

        Args:
            now: seconds of the monotonic clock.
            ending: the window is over now, whatever the clock says.
        """
        if now - self.began < WINDOW_SECONDS and not ending:
            return
        for (reason, detail, ip), count in self.counts.items():
            if count > 1:
                self.log.warning(
                    "connections refused",
                    client="",
                    ip=ip,
                    operation="connect",
                    outcome="refused",
                    code=reason,
                    detail=detail,
                    more=count - 1,
                )
        for (client, ip, vm, correlation_id), count in self.pieces.items():
            if count > 1:
                self.log.info(
                    "requests",
                    client=client,
                    ip=ip,
                    operation=PIECES,
                    vm=vm,
                    outcome="accepted",
                    correlation_id=correlation_id,
                    more=count - 1,
                )
        self.counts.clear()
        self.pieces.clear()
        self.began = now
