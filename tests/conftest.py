"""What holds for all tests: patience with a busy machine, and a table of faults at the end."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("whole", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("whole"), max_examples=10)
settings.load_profile("whole")
# Until all tests are found: what is made meanwhile stays, and looking through it finds nothing.
gc.disable()


def pytest_collection_finish() -> None:
    """Have the collector look from now on, at what tests make and at nothing older."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write what fault a test makes into its report."""
    report = yield
    mark = item.get_closest_marker("fault")
    if mark is not None:
        report.user_properties.append(("fault", mark.args[0]))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """End the run with what was done to the pool and whether it held."""
    held = {
        str(what): outcome == "passed"
        for outcome in ("passed", "failed", "error")
        for report in terminalreporter.getreports(outcome)
        if isinstance(report, pytest.TestReport)
        for what in dict(report.user_properties).values()
    }
    if not held:
        return
    terminalreporter.section("faults")
    for what in sorted(held):
        terminalreporter.write_line(f"{'held  ' if held[what] else 'FAILED'} {what}")
