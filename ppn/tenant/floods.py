"""Refusals that a caller has again and again: the first have entries, the rest are counted.

Nothing was done in any of them, and without this whoever has a way in could fill the disk of the
audit log. What is done is never counted together: every change has its own entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from ppn.audit.entry import Entry

# Of each caller, code and interval, so many have entries of their own.
FIRST = 20
# A caller has these without a good token, or above its rate: what it asked for says little.
FIRST_OF = {"rate_limited": 5, "token_refused": 5, "too_many_at_once": 5}
SECONDS = 60.0
CALLERS_KEPT = 4096


class Refused(Protocol):
    """A refused request, as far as a flood of them is told apart."""

    @property
    def operation(self) -> str:
        """What it asked for."""

    @property
    def source(self) -> str:
        """Where it came from."""

    @property
    def correlation_id(self) -> str:
        """Stands in the log lines of every service."""

    @property
    def tenant(self) -> str:
        """For whom it spoke; empty for nobody."""


@dataclass(frozen=True)
class Caller:
    """Whose refusals are counted together; an empty source for those beyond `CALLERS_KEPT`."""

    code: str
    tenant: str = ""
    source: str = ""


@dataclass
class Tally:
    """One caller's refusals in one interval.

    Args:
        until: the interval's end, in seconds of the clock.
        operation: that was refused last.
        correlation_id: of that request.
        alone: have entries of their own.
        counted: the others.
    """

    until: float
    operation: str = ""
    correlation_id: str = ""
    alone: int = 0
    counted: int = 0


@dataclass
class Floods:
    """What is refused too often for an entry each.

    Args:
        clock: seconds that never go back.
    """

    clock: Callable[[], float]
    tallies: dict[Caller, Tally] = field(default_factory=dict)

    def stands_alone(self, refused: Refused, code: str) -> bool:
        """Whether a refusal has an entry of its own; if not, it is counted here.

        Args:
            refused: the request.
            code: why.
        """
        caller = Caller(code, refused.tenant, refused.source)
        if caller not in self.tallies and len(self.tallies) >= CALLERS_KEPT:
            caller = Caller(code)
        tally = self.tallies.setdefault(caller, Tally(self.clock() + SECONDS))
        if tally.alone < FIRST_OF.get(code, FIRST):
            tally.alone += 1
            return True
        tally.operation, tally.correlation_id = refused.operation, refused.correlation_id
        tally.counted += 1
        return False

    def due(self, *, now: bool = False) -> Iterator[Entry]:
        """One entry for what each caller's ended interval counted; it is counted no more.

        Args:
            now: end every interval.
        """
        at = self.clock()
        for caller, tally in tuple(self.tallies.items()):
            if not now and at < tally.until:
                continue
            del self.tallies[caller]
            if tally.counted:
                yield Entry(
                    at=datetime.now(UTC),
                    tenant=caller.tenant,
                    vm="",
                    operation=tally.operation,
                    outcome="refused",
                    source=caller.source,
                    token="",
                    correlation_id=tally.correlation_id,
                    code=caller.code,
                    count=tally.counted,
                )
