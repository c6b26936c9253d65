"""What holds for all tests: patience with a busy machine, and a table of faults at the end."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# What was done, and whether its outcome was the promised one, by test.
seen = pytest.StashKey[dict[str, tuple[str, bool]]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note how a test of a fault ended."""
    report = yield
    mark = item.get_closest_marker("fault")
    if mark is not None and (report.when == "call" or report.failed):
        known = item.config.stash.setdefault(seen, {})
        known[item.nodeid] = (mark.args[0], report.passed)
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """End the run with what was done to the pool and whether it held."""
    found = config.stash.get(seen, {})
    if not found:
        return
    terminalreporter.section("faults")
    for what, held in found.values():
        terminalreporter.write_line(f"{'held  ' if held else 'FAILED'} {what}")
