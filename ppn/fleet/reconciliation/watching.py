"""What the watch over alerts makes of the controllers' answers: pure (HLT-06)."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ppn.fleet.reconciliation.classes import NODE_UNHEARD
from ppn.fleet.reconciliation.model import ControllerLook, Finding, Gap, Key, Views
from ppn.fleet.reconciliation.policy import pool_findings, silence, told_of
from ppn.wire.fleet import NodeReport


def watched(controllers: tuple[ControllerLook, ...], gaps: tuple[Gap, ...]) -> tuple[Finding, ...]:
    """Every alert that agents and controllers have raised by themselves.

    Args:
        controllers: those that answered.
        gaps: those that did not.
    """
    return tuple(_watched(controllers, gaps))


def _watched(controllers: tuple[ControllerLook, ...], gaps: tuple[Gap, ...]) -> Iterator[Finding]:
    for report in heard(controllers).values():
        yield from (told_of(alert, report.name) for alert in report.alerts)
    yield from pool_findings(controllers)
    yield from (silence(gap) for gap in gaps)


def heard(controllers: tuple[ControllerLook, ...]) -> dict[str, NodeReport]:
    """The newest report of each node that some controller hears, by name."""
    found: dict[str, NodeReport] = {}
    for controller in controllers:
        for report in controller.nodes:
            known = found.get(report.name)
            if not report.stale and (known is None or _age(report) < _age(known)):
                found[report.name] = report
    return found


def watch_judges(
    key: Key,
    controllers: tuple[ControllerLook, ...],
    gaps: tuple[Gap, ...],
    known: Collection[str],
) -> bool:
    """Whether the watch could see that an alert is over.

    Args:
        key: of the alert.
        controllers: those that answered.
        gaps: those that did not.
        known: the nodes of the inventory.
    """
    if key.code == "controller_silent":
        return True
    if key.node in known and key.code != NODE_UNHEARD.code:
        return key.node in heard(controllers)
    # It may be the word of one controller alone, and that one may be silent.
    return bool(controllers) and not gaps


def run_judges(key: Key, views: Views) -> bool:
    """Whether a reconciliation could see that a discrepancy is over: better late than wrong.

    Args:
        key: of the discrepancy.
        views: what it compared.
    """
    if key.code == "source_unreadable":
        return True
    if key.node in views.known:
        read = {node.name for node in views.nodes}
        return key.node in read and not any(gap.kind != "node" for gap in views.gaps)
    return not views.gaps


def _age(report: NodeReport) -> float:
    return report.age_seconds if report.age_seconds is not None else float("inf")
