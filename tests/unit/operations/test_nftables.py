"""The firewall operation: change, no change, absent, unreadable, changed by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pyinfra.api.exceptions import FactProcessError

from facts.nftables import SCRIPT, UNIT, UNIT_FILE, Firewall, FirewallState, parse
from operations import nftables
from operations.systemd import command
from ppn.mesh.firewall import FILE, LISTING, ruleset
from tests.unit.mesh.pools import SMALL
from tests.unit.operations.yielded import refusal, texts, yielded

RULES = ruleset(SMALL, SMALL.node("laptop"))
WANTED = nftables.wanted_files(RULES, "[Unit]\n")
ABSENT = FirewallState({FILE: None, UNIT_FILE: None}, None, False, False, False)
CONVERGED = FirewallState(
    {path: file.status for path, file in WANTED.items()},
    WANTED[FILE].status.sha256,
    True,
    True,
    False,
)


def commands_for(state: FirewallState | None) -> list[str]:
    commands, _ = yielded(nftables.loaded, {Firewall: state}, ruleset=RULES, unit="[Unit]\n")
    return texts(commands)


def test_first_time_it_is_written_checked_enabled_and_started() -> None:
    commands, _ = yielded(nftables.loaded, {Firewall: ABSENT}, ruleset=RULES, unit="[Unit]\n")
    files = json.loads(commands[0].connector_arguments["_stdin"])
    assert [file["path"] for file in files] == [FILE, UNIT_FILE]
    assert files[0]["check"] == ["nft", "-c", "-f", "{}"]
    assert texts(commands[1:]) == [
        "env SYSTEMCTL_SKIP_SYSV=1 systemctl --root=/ --quiet enable ppn-nftables.service",
        *texts([command("settle", "ppn-nftables.service")]),
        "systemctl start ppn-nftables.service",
    ]


def test_second_run_has_no_command() -> None:
    assert commands_for(CONVERGED) == []


def test_changed_rules_are_loaded_without_a_stop() -> None:
    old = {**CONVERGED.files, FILE: replace(WANTED[FILE].status, sha256="0" * 64)}
    assert commands_for(replace(CONVERGED, files=old))[1:] == [
        "systemctl reload ppn-nftables.service"
    ]


@pytest.mark.parametrize("loaded", [None, "0" * 64])
def test_table_changed_or_removed_by_hand_is_loaded_anew(loaded: str | None) -> None:
    assert commands_for(replace(CONVERGED, loaded=loaded)) == [
        "systemctl reload ppn-nftables.service"
    ]


def test_unreadable_state_is_refused() -> None:
    commands, _ = yielded(nftables.loaded, {Firewall: None}, ruleset=RULES, unit="")
    assert "refusing to act on an unknown state" in refusal(commands)


OUTPUT = f"""\
file present 644 root root file {"c" * 64} {FILE}
file absent {UNIT_FILE}
ActiveState=active
UnitFileState=enabled
NeedDaemonReload=no
loaded {"c" * 64}
end"""


def test_fact_reads_everything() -> None:
    state = parse(OUTPUT.splitlines())
    assert state.loaded == "c" * 64
    assert state.enabled and state.active and not state.needs_reload
    assert state.files[UNIT_FILE] is None


@pytest.mark.parametrize("cut", range(len(OUTPUT.splitlines())))
def test_output_that_was_cut_off_is_no_state(cut: int) -> None:
    with pytest.raises(FactProcessError):
        parse(OUTPUT.splitlines()[:cut])


def test_the_unit_and_the_fact_look_at_the_table_alike() -> None:
    """MESH-01: what one wrote down the other compares; a customer's connections are in neither."""
    text = (Path(__file__).parents[3] / "deploys" / "units" / UNIT).read_text()
    assert text.count(f"{LISTING} | sha256sum") == 2
    assert LISTING in SCRIPT and " -t " in LISTING
