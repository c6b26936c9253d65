"""Puts reconciliation together: a run, the watch over alerts, and the delivery of notices."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from threading import Thread

from ppn.errors import PpnError
from ppn.fleet.reconciliation import notices
from ppn.fleet.reconciliation.model import Finding, Key, Views
from ppn.fleet.reconciliation.notices import Notice, Seer, State
from ppn.fleet.reconciliation.policy import confirmed, due, findings, read_twice
from ppn.fleet.reconciliation.reading import Sources, read
from ppn.fleet.reconciliation.report import Report, report_of
from ppn.fleet.reconciliation.settings import ReconcileSettings, Sink
from ppn.fleet.reconciliation.sinks import SinkFailed, deliver
from ppn.fleet.reconciliation.store import Kept, Store
from ppn.fleet.reconciliation.watching import run_judges, watch_judges, watched
from ppn.log import get_logger

# All sinks of one cycle together; one that is not done by then has failed.
DELIVERY_SECONDS = 30.0
# The watch comes every minute: who has not answered by then is silent.
WATCH_SECONDS = 20.0

log = get_logger("reconciliation")


class NothingRead(PpnError):
    """No controller answered: there is nothing to compare, and the run is still owed."""

    code = "nothing_read"


def run(settings: ReconcileSettings, store: Store, *, if_due: bool = False) -> Kept | None:
    """Compare the parts of the pool, keep the report, and raise what was found.

    Args:
        settings: who is asked, and who is told.
        store: where the report goes.
        if_due: do nothing when the day has had its run (REC-01).

    Returns:
        The report; None when none was due.

    Raises:
        Refusal: `reconciliation_going`.
        NothingRead: no controller answered.
        PpnError: the report could not be kept.
    """
    store.prepare()
    with store.running():
        began = datetime.now(UTC)
        kept = store.kept()
        if if_due and not due((one.made for one in kept), began):
            return None
        if ahead := [one.name for one in kept if one.made > began]:
            log.warning("reports are of a time to come: the clock was ahead", reports=ahead)
        views, found = _compare(settings)
        previous = store.last_digest()
        report = report_of(views, found, by=settings.name, began=began, previous=previous)
        own = tuple(one for one in found if one.told_by == "comparison")
        # Told first: killed before the report is kept, the run is still owed and tells no more.
        tell(settings, store, "reconciliation", lambda: (own, lambda key: run_judges(key, views)))
        made = store.keep(report, views.at)
        pruned = store.prune(views.at, settings.keep_days)
        _log(report, made, pruned)
    return made


def watch(settings: ReconcileSettings, store: Store) -> State:
    """Pass on what agents and controllers raise by themselves: once each, and once when it is over.

    Args:
        settings: who is asked, and who is told.
        store: where the alerts are kept.

    Returns:
        What stands now, and what sinks are still owed.

    Raises:
        PpnError: the state could not be kept.
    """
    store.prepare()

    def look() -> tuple[tuple[Finding, ...], Callable[[Key], bool]]:
        controllers, gaps = read(settings, Sources.told, WATCH_SECONDS)
        found = watched(controllers, gaps)
        return found, lambda key: watch_judges(key, controllers, gaps, settings.nodes)

    return tell(settings, store, "watch", look)


def tell(
    settings: ReconcileSettings,
    store: Store,
    seer: Seer,
    look: Callable[[], tuple[tuple[Finding, ...], Callable[[Key], bool]]],
) -> State:
    """Take a look, remember what is new and what is over, and deliver what sinks are owed.

    Args:
        settings: the sinks.
        store: where the alerts are kept; what sinks are owed is there before the first delivery.
        seer: who looks.
        look: gives what is wrong, and whether a thing could be judged; taken under the lock, so
            that an older look never follows a newer one.
    """
    with store.alerting():
        found, judged = look()
        now = datetime.now(UTC).isoformat()
        before = store.read_state()
        known = notices.with_sinks(before, (sink.name for sink in settings.sinks), now)
        state = notices.told(known, seer, found, judged, now)
        if state != before:
            store.write_state(state)
        return _deliver_all(settings, store, state)


def _compare(settings: ReconcileSettings) -> tuple[Views, tuple[Finding, ...]]:
    """Look, and look again at what differs: a VM may have been on its way."""
    views = read(settings, Sources.views)
    found = findings(views)
    if found:
        time.sleep(settings.settle_seconds)
        again = read(settings, Sources.views)
        views, found = read_twice(views, again), confirmed(found, findings(again))
    if not views.controllers:
        reasons = "; ".join(gap.reason for gap in views.gaps if gap.kind == "controller")
        raise NothingRead(
            f"no controller answers: {reasons}",
            hint="see ppn-fleet.service; the run is tried again within the hour",
        )
    return views, found


def _deliver_all(settings: ReconcileSettings, store: Store, state: State) -> State:
    """Give each sink what it is owed, all of them at once; one that hangs holds up no other."""
    outcomes: SimpleQueue[tuple[str, int, str]] = SimpleQueue()
    going: set[str] = set()
    for sink in settings.sinks:
        owed = state.sinks[sink.name]
        if given := notices.batch(owed, time.time()):
            arguments = (sink, given, owed.dropped, settings.name, outcomes)
            # A daemon: what hangs past the deadline ends with the process.
            Thread(target=_attempt, args=arguments, daemon=True).start()
            going.add(sink.name)
    end = time.monotonic() + DELIVERY_SECONDS
    while going:
        try:
            name, count, error = outcomes.get(timeout=max(end - time.monotonic(), 0.001))
        except Empty:
            name, count = going.pop(), 0
            error = f"it took nothing within {DELIVERY_SECONDS:g} s"
        going.discard(name)
        state = _settled(state, name, count, error)
        store.write_state(state)
    return state


def _attempt(
    sink: Sink,
    given: tuple[Notice, ...],
    dropped: int,
    by: str,
    outcomes: SimpleQueue[tuple[str, int, str]],
) -> None:
    try:
        deliver(sink, given, dropped, by)
    except SinkFailed as error:
        outcomes.put((sink.name, 0, error.message))
    else:
        outcomes.put((sink.name, len(given), ""))


def _settled(state: State, name: str, count: int, error: str) -> State:
    """The state after a sink took so many notices, or none for a reason."""
    owed = state.sinks[name]
    if error:
        log.warning("notices not delivered", sink=name, owed=len(owed.pending), error=error)
        owed = notices.failed(owed, error, time.time())
    else:
        log.info("notices delivered", sink=name, count=count)
        owed = notices.delivered(owed, count)
    return state.model_copy(update={"sinks": {**state.sinks, name: owed}})


def _log(report: Report, made: Kept, pruned: int) -> None:
    log.info(
        "reconciled",
        report=made.name,
        findings=len(report.findings),
        not_judged=len(report.not_judged),
        vms=report.compared.vms,
        pruned=pruned,
    )
