"""Units: compared before they are touched; a newer file restarts, once."""

from __future__ import annotations

from dataclasses import replace

from facts.files import Statuses
from facts.systemd import Units, UnitStatus, UnitStatuses
from operations import systemd
from operations.files import File
from operations.systemd import Unit, plan
from tests.unit.operations.yielded import refusal, texts, yielded

CONF = "/etc/agent.conf"
AGENT = Unit("agent.service", restart_after=(CONF,))
RUNNING = UnitStatus(frozenset({"agent.service"}), "loaded", "active", "enabled", False, 1000.0)
NOTHING: frozenset[str] = frozenset()


def units(status: UnitStatus, **modified: float) -> Units:
    return Units({name: status for name in status.names}, {CONF: modified.get("conf", 500.0)})


def test_running_unit_is_left_alone() -> None:
    commands, host = yielded(systemd.units, {UnitStatuses: units(RUNNING)}, units=(AGENT,))
    assert commands == []
    assert host.noops == ["1 units are as declared"]


def test_unknown_unit_is_enabled_and_started() -> None:
    assert plan((AGENT,), Units({}, {}), NOTHING) == (
        ("enable", "agent.service"),
        ("settle", "agent.service"),
        ("start", "agent.service"),
    )


def test_newer_file_restarts() -> None:
    assert plan((AGENT,), units(RUNNING, conf=1000.5), NOTHING) == (("restart", "agent.service"),)


def test_file_of_the_same_moment_does_not_restart() -> None:
    assert plan((AGENT,), units(RUNNING, conf=1000.0), NOTHING) == ()


def test_file_about_to_change_is_announced() -> None:
    assert plan((AGENT,), units(RUNNING), frozenset({CONF})) == (("restart", "agent.service"),)


def test_unit_file_about_to_change_reloads_and_restarts() -> None:
    assert plan((AGENT,), units(RUNNING), frozenset({AGENT.path})) == (
        ("settle", "agent.service"),
        ("restart", "agent.service"),
    )


def test_drop_in_about_to_change_reloads_alone() -> None:
    """What runs is not restarted for what its next start is to do."""
    drop_in, other = f"{AGENT.path}.d/ppn.conf", "/etc/systemd/system/agent.service.dx"
    assert plan((AGENT,), units(RUNNING), frozenset({drop_in})) == (("settle", "agent.service"),)
    assert plan((AGENT,), units(RUNNING), frozenset({other})) == ()


def test_stale_unit_is_reloaded() -> None:
    assert plan((AGENT,), units(replace(RUNNING, needs_reload=True)), NOTHING) == (
        ("settle", "agent.service"),
    )


def test_alias_matches() -> None:
    status = replace(RUNNING, names=frozenset({"ssh.service", "sshd.service"}))
    assert plan((Unit("sshd.service"),), units(status), NOTHING) == ()


def test_static_unit_needs_no_enabling() -> None:
    assert plan((AGENT,), units(replace(RUNNING, enabled="static")), NOTHING) == ()


def test_stopped_and_disabled() -> None:
    off = replace(AGENT, enabled=False, running=False)
    assert plan((off,), units(RUNNING), NOTHING) == (
        ("disable", "agent.service"),
        ("settle", "agent.service"),
        ("stop", "agent.service"),
    )


def test_failed_unit_is_started() -> None:
    assert plan((AGENT,), units(replace(RUNNING, active="failed")), NOTHING) == (
        ("start", "agent.service"),
    )


def test_unreadable_state_is_refused() -> None:
    commands, _ = yielded(systemd.units, {UnitStatuses: None}, units=(AGENT,))
    assert "cannot read the state of agent.service" in refusal(commands)


def test_unreadable_files_are_refused() -> None:
    commands, _ = yielded(
        systemd.units,
        {UnitStatuses: units(RUNNING), Statuses: None},
        units=(AGENT,),
        files={CONF: File("")},
    )
    assert "refusing to act" in refusal(commands)


def test_commands() -> None:
    commands, _ = yielded(systemd.units, {UnitStatuses: Units({}, {})}, units=(AGENT,))
    assert texts(commands) == [
        "env SYSTEMCTL_SKIP_SYSV=1 systemctl --root=/ --quiet enable agent.service",
        texts([systemd.command("settle", "agent.service")])[0],
        "systemctl start agent.service",
    ]


def test_units_enabled_together_are_looked_at_once() -> None:
    wanted = (AGENT, replace(AGENT, name="other.service", running=False))
    calls = plan(wanted, Units({}, {}), NOTHING)
    assert [call[0] for call in calls] == ["enable", "enable", "settle", "start"]
    assert calls[2] == ("settle", "agent.service", "other.service")


def test_what_a_timer_starts_is_read_anew_and_otherwise_left_alone() -> None:
    """Neither started nor stopped in its midst, whatever state it is in."""
    started = Unit("agent.service", enabled=None, running=None)
    for active in ("active", "activating", "inactive", "failed"):
        status = replace(RUNNING, active=active, enabled="static")
        assert plan((started,), units(status), NOTHING) == ()
        about_to_change = frozenset({started.path})
        assert plan((started,), units(status), about_to_change) == (("settle", "agent.service"),)
    assert plan((started,), Units({}, {}), NOTHING) == ()
