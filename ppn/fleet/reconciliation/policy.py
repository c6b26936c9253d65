"""Compares what the parts of the pool say: pure, and silent where a part could not be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ppn.fleet.reconciliation import classes
from ppn.fleet.reconciliation.model import (
    ControllerLook,
    Finding,
    Gap,
    Key,
    Views,
)
from ppn.fleet.reconciliation.pairs import in_flight, on_the_way, places
from ppn.fleet.reconciliation.records import record_findings
from ppn.wire.heartbeat import Alert


def findings(views: Views) -> tuple[Finding, ...]:
    """Everything that differs between the parts of the pool, each class and subject once (REC-02).

    Args:
        views: what the parts say.

    Returns:
        By class, subject and node; empty if, and only if, all that was read agrees and nothing
        was left unread.
    """
    found: dict[Key, Finding] = {}
    for finding in _all(views):
        # What an agent or controller says itself comes first, and the watch follows that.
        found.setdefault(finding.key, finding)
    return tuple(sorted(found.values(), key=lambda one: one.key))


def confirmed(first: Iterable[Finding], second: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings of a second look that the first one had too.

    The parts are read one after the other, so that a VM that is made or removed meanwhile looks
    wrong for a moment.
    """
    known = {finding.key for finding in first}
    return tuple(finding for finding in second if finding.key in known)


def read_twice(first: Views, second: Views) -> Views:
    """The second of two looks, without what only it could read: nothing of that is confirmed.

    Args:
        first: the look whose findings are confirmed.
        second: the look that confirms them.
    """
    said = {(gap.kind, gap.name) for gap in second.gaps}
    late = tuple(gap for gap in first.gaps if (gap.kind, gap.name) not in said)
    missed = {(gap.kind, gap.name) for gap in late}
    return replace(
        second,
        nodes=tuple(one for one in second.nodes if ("node", one.name) not in missed),
        controllers=tuple(
            one for one in second.controllers if ("controller", one.name) not in missed
        ),
        stores=tuple(one for one in second.stores if ("tenant proxy", one.name) not in missed),
        gaps=(*second.gaps, *late),
    )


def due(made: Iterable[datetime], now: datetime) -> bool:
    """Whether a run is owed: none has ended on this day yet, by UTC (REC-01).

    Asked every hour, so that a run that a machine slept through or that failed is caught up. A
    report of a day to come, of a clock that was ahead, ends no run.

    Args:
        made: when the reports were made.
        now: the time.
    """
    today = now.astimezone(UTC).date()
    return all(one.astimezone(UTC).date() != today for one in made)


def outdated(made: Sequence[datetime], now: datetime, keep_days: int) -> int:
    """How many reports have been kept for long enough; the newest is always kept (REC-04).

    From the oldest on, so that none is missing between two that are kept. A report of a time to
    come, of a clock that was ahead, goes with the one after it.

    Args:
        made: when each was made, in the order in which they were written.
        now: the time.
        keep_days: how long each is kept.
    """
    end, count = now - timedelta(days=keep_days), 0
    for number, one in enumerate(made[:-1], start=1):
        if end <= one <= now:
            break
        if one < end:
            count = number
    return count


def chained(links: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    """The names of reports in the order in which they were written, whatever the clock said.

    Args:
        links: of each report its SHA-256, and that of the report that it says was before it.
    """
    known = {digest for digest, _ in links.values()}
    after: dict[str, list[str]] = {}
    for name in sorted(links, reverse=True):
        before = links[name][1]
        after.setdefault(before if before in known else "", []).append(name)
    ordered, waiting = [], after.pop("", [])
    while waiting:
        ordered.append(waiting.pop())
        waiting += after.pop(links[ordered[-1]][0], [])
    return tuple(ordered)


def _all(views: Views) -> Iterator[Finding]:
    for node in views.nodes:
        yield from (told_of(alert, node.name) for alert in node.alerts)
    yield from pool_findings(views.controllers)
    yield from _gaps(views)
    yield from _doubled(views)
    yield from _registries(views)
    yield from _intents(views)
    yield from record_findings(views)


def told_of(alert: Alert, node: str) -> Finding:
    """An alert that an agent or a controller raised, as a finding."""
    return Finding(alert.code, alert.subject, node, alert.message, alert.hint, "alert")


def pool_findings(controllers: tuple[ControllerLook, ...]) -> Iterator[Finding]:
    """What controllers say of the pool by themselves: one finding, however many say it.

    Args:
        controllers: those that answered.
    """
    silent: dict[str, list[str]] = {}
    for controller in controllers:
        for alert in controller.alerts:
            if alert.code == classes.NODE_STALE.code:
                silent.setdefault(alert.subject, []).append(controller.name)
            else:
                yield told_of(alert, "")
    for node, names in sorted(silent.items()):
        hearing = [
            one.name
            for one in controllers
            if any(report.name == node and not report.stale for report in one.nodes)
        ]
        if hearing:
            text = f"{_list(hearing)} hears node {node}, {_list(names)} does not"
            yield classes.NODE_UNHEARD.of(node, node, text)
        else:
            stale = classes.NODE_STALE.of(node, node, f"node {node} is not heard")
            yield replace(stale, told_by="alert")


def _gaps(views: Views) -> Iterator[Finding]:
    silent = {one.subject for one in pool_findings(views.controllers) if one.told_by == "alert"}
    for gap in views.gaps:
        if gap.kind == "controller":
            yield silence(gap)
        elif gap.kind == "node" and (gap.name in silent or not views.controllers):
            continue  # said already; and without a controller, no node is at fault
        else:
            where = gap.name if gap.kind == "node" else ""
            yield classes.SOURCE_UNREADABLE.of(f"{gap.kind} {gap.name}", where, gap.reason)
    known = frozenset(views.known)
    for controller in views.controllers:
        for name in sorted({report.name for report in controller.nodes} - known):
            text = f"controller {controller.name} knows node {name}, which is not in our settings"
            yield classes.INVENTORY_DIFFERS.of(name, name, text)


def silence(gap: Gap) -> Finding:
    """A controller that does not answer, as the watch over alerts says it too."""
    return replace(classes.CONTROLLER_SILENT.of(gap.name, "", gap.reason), told_by="alert")


def _doubled(views: Views) -> Iterator[Finding]:
    moving = in_flight(views)
    for vm, held in places(views).items():
        if len(held) > 1 and vm not in moving:
            names = _list(sorted(node for node, _ in held))
            yield classes.VM_DOUBLED.of(vm, "", f"vm {vm} is on {names}")


def _registries(views: Views) -> Iterator[Finding]:
    moving = in_flight(views)
    believed: dict[tuple[str, str], list[str]] = {}
    for controller in views.controllers:
        placed: dict[str, dict[str, str]] = {}
        for one in controller.placed:
            placed.setdefault(one.node, {})[one.vm.id] = one.vm.owner
        # What it believes of a node it does not hear is old, and no wonder.
        hears = {one.name for one in controller.nodes if not one.stale}
        for node in views.nodes:
            if node.name not in hears:
                continue
            actual = {vm.id: vm.owner for vm in node.vms}
            owners = placed.get(node.name, {})
            for vm in (actual.keys() | owners.keys()) - moving:
                if owners.get(vm) != actual.get(vm):
                    believed.setdefault((vm, node.name), []).append(controller.name)
    for (vm, name), controllers in sorted(believed.items()):
        text = f"controller {_list(controllers)} does not believe of vm {vm} what its node says"
        yield classes.REGISTRY_DIFFERS.of(vm, name, text)


def _intents(views: Views) -> Iterator[Finding]:
    nodes = {node.name: node for node in views.nodes}
    moving = on_the_way(views)
    for controller in views.controllers:
        for intent in controller.intents:
            node = nodes.get(intent.node)
            if node is not None and intent.id not in node.going | moving:
                text = f"controller {controller.name} has not ended its intent for vm {intent.id}"
                yield classes.INTENT_STUCK.of(intent.id, intent.node, text)


def _list(names: Iterable[str]) -> str:
    return " and ".join(names)
