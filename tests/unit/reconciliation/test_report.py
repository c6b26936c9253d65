"""Reports: signed, one encoding, kept in a chain, pruned."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ppn import lock
from ppn.errors import PpnError, Refusal
from ppn.fleet.reconciliation.model import Gap
from ppn.fleet.reconciliation.notices import State
from ppn.fleet.reconciliation.policy import findings
from ppn.fleet.reconciliation.report import ReportDamaged, canonical, decode, encode, report_of
from ppn.fleet.reconciliation.store import MOST_PRUNED, Kept, Store, read_report
from ppn.pool.keys import KeyUnusable
from tests.unit.reconciliation.builders import NOW, POOL, in_store

GHOSTLY = in_store(POOL, 0, *POOL.stores[0].allocations, POOL.stores[0].allocations[0].model_copy(
    update={"vm": "vm-lost"}
))  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A folder as the first run makes it."""
    made = Store(tmp_path / "state")
    made.prepare()
    return made


def keep(store: Store, now: datetime = NOW) -> Kept:
    """One more report, of a pool with a ghost."""
    views = replace(GHOSTLY, at=now, gaps=(Gap("node", "attic", "no answer"),))
    found = findings(GHOSTLY)
    report = report_of(views, found, by="relay", began=now, previous=store.last_digest())
    return store.keep(report, now)


def test_the_key_is_born_here_and_is_private(store: Store) -> None:
    """REC-04."""
    assert stat.S_IMODE(store.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    before = store.key.read_bytes()
    store.prepare()
    assert store.key.read_bytes() == before
    store.key.chmod(0o644)
    with pytest.raises(KeyUnusable):
        store.private()


def test_a_kill_between_the_two_files_of_a_key_is_mended(store: Store) -> None:
    store.key.unlink()
    store.prepare()
    store.private()


def test_a_report_says_what_was_compared_and_found(store: Store) -> None:
    """REC-04."""
    report = read_report(keep(store).path, store.public())
    assert [one.code for one in report.findings] == ["ghost_record"]
    assert [gap.name for gap in report.not_judged] == ["attic"]
    assert report.compared.nodes == ("server", "laptop") and report.compared.vms == 2
    assert not report.is_clean


def test_every_changed_byte_is_found(store: Store) -> None:
    """REC-04: also where another text would mean the same."""
    content, key = keep(store).path.read_bytes(), store.public()
    decode(content, key, "it")
    for index in range(len(content)):
        for bit in (0x01, 0x20):
            changed = bytearray(content)
            changed[index] ^= bit
            with pytest.raises(ReportDamaged):
                decode(bytes(changed), key, "it")
    for other in (content[:-1], content + b"\n", b"", b"[]", b"{}", content.replace(b":", b": ")):
        with pytest.raises(ReportDamaged):
            decode(other, key, "it")
    more = json.loads(content) | {"note": "added"}
    with pytest.raises(ReportDamaged):
        decode(canonical(more) + b"\n", key, "it")


def test_the_kinds_of_damage_have_codes(store: Store, tmp_path: Path) -> None:
    content, key = keep(store).path.read_bytes(), store.public()
    cases = {
        "report_damaged": b"no JSON",
        "report_not_canonical": json.dumps(json.loads(content)).encode(),
        "report_signature_wrong": content.replace(b"vm-lost", b"vm-lest"),
    }
    for code, changed in cases.items():
        with pytest.raises(ReportDamaged) as caught:
            decode(changed, key, "it")
        assert caught.value.code == code
    other = Store(tmp_path / "other")
    other.prepare()
    with pytest.raises(ReportDamaged) as caught:
        decode(content, other.public(), "it")
    assert caught.value.code == "report_signature_wrong"


def test_a_report_that_is_taken_away_is_missed(store: Store) -> None:
    """REC-04."""
    kept = [keep(store, NOW + timedelta(days=day)) for day in range(4)]
    assert store.verify() == tuple(kept) == store.kept()
    kept[2].path.unlink()
    with pytest.raises(ReportDamaged) as caught:
        store.verify()
    assert caught.value.code == "report_missing" and kept[3].path.name in caught.value.message


def test_reports_that_cannot_be_read_are_not_called_sound(store: Store) -> None:
    """REC-04: what keeps the folder from being listed is said, or none would seem to be there."""
    store.reports.rmdir()
    assert store.verify() == ()
    store.reports.write_text("no folder")
    with pytest.raises(PpnError) as caught:
        store.verify()
    assert caught.value.code == "file_failed" and str(store.reports) in caught.value.message


def test_old_reports_go_and_the_rest_still_verifies(store: Store) -> None:
    """REC-04: kept for a stated time."""
    for day in range(6):
        keep(store, NOW + timedelta(days=day))
    (store.reports / "notes.json").write_text("a person's own file is left alone")
    assert store.prune(NOW + timedelta(days=5), keep_days=2) == 3
    assert [one.made.day for one in store.verify()] == [24, 25, 26]
    assert store.prune(NOW + timedelta(days=5000), keep_days=2) == 2
    assert len(store.kept()) == 1


@pytest.mark.fault(
    "the clock is ahead while a reconciliation writes its report",
    "later reports go on after it and all of them verify; the journal and `verify` say so",
)
def test_a_clock_that_was_ahead_breaks_no_chain(store: Store) -> None:
    """REC-04: reports go on after the one of a time to come, and all of them verify."""
    days = (0, 9000, 1, 2)
    kept = [keep(store, NOW + timedelta(days=day)) for day in days]
    assert store.verify() == tuple(kept) and store.find(None) == kept[-1]
    content = kept[2].path.read_bytes()
    kept[2].path.unlink()
    with pytest.raises(ReportDamaged) as caught:
        store.verify()
    assert caught.value.code == "report_missing"
    kept[2].path.write_bytes(content)
    # Nor is anything kept for longer than is stated.
    assert store.prune(NOW + timedelta(days=500), keep_days=400) == 3
    assert store.verify() == (kept[-1],)


@pytest.mark.fault(
    "the clock is years ahead during a reconciliation",
    "of the reports that seem too old it removes 31, the oldest, and the rest is still there",
)
def test_a_clock_that_is_ahead_does_not_end_all_reports(store: Store) -> None:
    """REC-04: kept for a stated time; one run of a wrong clock takes a month of it at most."""
    for day in range(40):
        keep(store, NOW + timedelta(days=day))
    assert store.prune(NOW + timedelta(days=20000), keep_days=400) == MOST_PRUNED == 31
    assert len(store.verify()) == 9


def test_reports_are_found_by_name(store: Store) -> None:
    with pytest.raises(Refusal) as caught:
        store.find(None)
    assert caught.value.code == "report_unknown"
    first, last = keep(store), keep(store, NOW + timedelta(seconds=1))
    assert store.find(None) == last and store.find(first.name) == first
    with pytest.raises(Refusal):
        store.find("../alerts")


def test_one_run_at_a_time(store: Store) -> None:
    with store.running():
        with pytest.raises(Refusal) as caught, store.running():
            pass
        assert caught.value.code == "reconciliation_going"
        # The watch over alerts goes on meanwhile.
        with store.alerting():
            store.write_state(State())
    assert store.read_state() == State()


def test_a_damaged_state_is_put_aside(store: Store) -> None:
    """REC-03: silence would be worse than telling what stands once more."""
    store.state.write_bytes(b"{")
    assert store.read_state() == State()
    assert store.state.with_suffix(".damaged").read_bytes() == b"{"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PpnError) as caught:
        Store(tmp_path / "file/state").prepare()
    assert caught.value.code == "file_failed"


def test_encoding_is_one_line_and_stable(store: Store) -> None:
    report = report_of(POOL, (), by="relay", began=datetime(2026, 1, 1, tzinfo=UTC), previous="")
    assert report.is_clean
    content = encode(report, store.private())
    assert content == encode(report, store.private()) and content.count(b"\n") == 1


def test_a_watch_that_waits_for_a_controller_holds_up_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REC-01: to make the folder ready takes no lock once it has its key."""
    store = Store(tmp_path / "state")
    store.prepare()

    def taken(*_: object, **__: object) -> bool:
        return False

    monkeypatch.setattr(lock, "take", taken)
    store.prepare()
