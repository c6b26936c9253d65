"""A log and its witness, each as it really runs: over HTTP, killed, away, lied to (TEN-12)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from ppn.audit import log as log_module
from ppn.audit import pusher as pusher_module
from ppn.audit.checkpoint import Checkpoint, signed
from ppn.audit.log import Log, vkey_path
from ppn.audit.metrics import LogCollector
from ppn.audit.note import Signer, Verifier, parse_verifier
from ppn.audit.pusher import PushStatus
from ppn.audit.witness.settings import WitnessAt, WitnessSettings
from ppn.pool.keys import load_private
from tests.integration.audit import parts
from tests.integration.fleet.edges import free_port
from tests.unit.audit.places import Place, wait_until
from tests.unit.audit.samples import ORIGIN, entry

PPN = Path(sys.executable).parent / "ppn"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish and push without the usual pauses."""
    monkeypatch.setattr(log_module, "PUBLISH_SECONDS", 0.05)
    monkeypatch.setattr(pusher_module, "PUSH_SECONDS", 0.05)
    monkeypatch.setattr(pusher_module, "MOST_SECONDS", 0.5)


@pytest.fixture
def told(tmp_path: Path) -> WitnessSettings:
    """A witness's settings, with a port that is free."""
    return parts.settings(tmp_path / "witness", free_port(), ORIGIN)


class Witnessed(Place):
    """A log that has a witness."""

    def __init__(self, root: Path, told: WitnessSettings) -> None:
        super().__init__(root)
        self.witness = WitnessAt(parts.NAME, parts.url(told))

    def open(self) -> Log:
        """The log, opened once more."""
        return Log.open(self.folder, ORIGIN, self.key, [self.witness])


def pushed(log: Log) -> PushStatus:
    """How far the one witness is."""
    (found,) = log.status().witnesses
    return found


def ppn(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """The real command."""
    words = [str(word) for word in (PPN, "audit", *argv)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.fault(
    "a witness of the audit log is away, and is killed and started again",
    "appends go on; it is sent what it missed once it is back, and has forgotten nothing",
)
def test_a_witness_follows_and_survives(tmp_path: Path, told: WitnessSettings) -> None:
    """TEN-12: its lag is visible; what it signed before kill -9 it knows after."""
    place = Witnessed(tmp_path, told)
    with place.open() as log:
        log.append(entry(0))
        wait_until(lambda: pushed(log).code == "witness_silent")
        assert pushed(log).size == 0 and log.size == 1
        figures = CollectorRegistry()
        figures.register(LogCollector(log.status))
        silent = {"witness": parts.NAME, "code": "witness_silent"}
        assert figures.get_sample_value("ppn_audit_entries") == 1
        assert figures.get_sample_value("ppn_audit_witness_trouble", silent) == 1
        with parts.witness(told):
            wait_until(lambda: pushed(log) == PushStatus(parts.NAME, 1))
            own = {"witness": parts.NAME}
            assert figures.get_sample_value("ppn_audit_witnessed", own) == 1
            assert figures.get_sample_value("ppn_audit_witness_trouble", silent) is None
            log.append(entry(2))
            wait_until(lambda: pushed(log).size == 2)
        for _ in range(5):
            log.append(entry(2))
        wait_until(lambda: pushed(log).trouble != "" and log.status().published == 7)
        with parts.witness(told):
            (kept,) = httpx.get(f"{parts.url(told)}/v1/logs", trust_env=False).json()
            # It may have been sent the rest already, and nothing else than what it knew goes there.
            assert int(kept["checkpoint"].splitlines()[1]) in (2, 7)
            wait_until(lambda: pushed(log) == PushStatus(parts.NAME, 7))
    # A log that is opened again knows what was signed.
    with place.open() as log:
        assert pushed(log).size == 7


@pytest.mark.fault(
    "an audit log is cut short, rewritten or deleted by its own host, checkpoint and tiles too",
    "its witnesses show it: `audit_rollback`, `audit_fork`",
)
def test_what_the_host_hides_the_witness_shows(tmp_path: Path, told: WitnessSettings) -> None:
    """TEN-12: an older copy of all files is sound in itself; only the witness knows better."""
    place, older = Witnessed(tmp_path, told), tmp_path / "older"
    with parts.witness(told):
        with place.open() as log:
            log.append(entry(0))
            wait_until(lambda: pushed(log).size == 1)
        shutil.copytree(place.folder, older)
        with place.open() as log:
            log.append(entry(2))
            wait_until(lambda: pushed(log).size == 2)
        answer = tmp_path / "witness-answer.json"
        answer.write_text(httpx.get(f"{parts.url(told)}/v1/logs", trust_env=False).text)
        key = vkey_path(place.key)
        assert ppn("verify", place.folder, "--key", key, "--witness-file", answer).returncode == 0
        shutil.rmtree(place.folder)
        shutil.move(older, place.folder)
        assert ppn("verify", place.folder, "--key", key).returncode == 0
        done = ppn("verify", place.folder, "--key", key, "--witness-file", answer, "--json")
        assert done.returncode == 1
        assert [one["code"] for one in json.loads(done.stdout)["findings"]] == ["audit_rollback"]
        with place.open() as log:
            wait_until(lambda: pushed(log).code == "audit_rollback")
            # The host goes on from there: another history of the same size, and a longer one.
            log.append(entry(5))
            wait_until(lambda: pushed(log).code == "audit_fork")
            log.append(entry(8))
            wait_until(lambda: log.status().published == 3)
            wait_until(lambda: pushed(log).code == "audit_fork")
        (kept,) = httpx.get(f"{parts.url(told)}/v1/logs", trust_env=False).json()
        assert kept["forks"] >= 1 and "\n2\n" in kept["checkpoint"]
    done = ppn("verify", place.folder, "--key", key, "--witness-file", answer, "--json")
    assert [one["code"] for one in json.loads(done.stdout)["findings"]] == ["audit_fork"]


def test_a_witness_that_forgot_says_so_until_an_operator_has_looked(
    tmp_path: Path, told: WitnessSettings
) -> None:
    """TEN-12, CLI-01: the proxy logs why, and the command is refused while the witness runs."""
    place = Witnessed(tmp_path, told)
    with parts.witness(told), place.open() as log:
        log.append(entry(0))
        wait_until(lambda: pushed(log).size == 1)
    (memory,) = told.folder.glob("logs/*.json")
    memory.unlink()
    with parts.witness(told):
        with place.open() as log:
            wait_until(lambda: pushed(log).code == "witness_forgot")
        running = ppn("forget", ORIGIN, "--folder", told.folder)
        assert running.returncode == 1 and "folder_locked" in running.stderr
    done = ppn("forget", ORIGIN, "--folder", told.folder)
    assert done.returncode == 0 and "is forgotten" in done.stdout
    with parts.witness(told), place.open() as log:
        log.append(entry(2))
        wait_until(lambda: pushed(log) == PushStatus(parts.NAME, 2))
    shutil.rmtree(told.folder / "logs")
    (told.folder / "known").unlink()
    argv = [sys.executable, "-m", "ppn.audit.witness", "--settings"]
    argv.append(str(told.folder.with_suffix(".json")))
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1 and "witness_forgot" in ended.stderr


def test_it_speaks_the_protocol_of_c2sp(tmp_path: Path, told: WitnessSettings) -> None:
    """Statuses, media types and bodies as tlog-witness has them."""
    place = Place(tmp_path)
    with place.open() as log:
        log.append(entry(0))
    note = (place.folder / "checkpoint").read_bytes()
    key = {"Ppn-Log-Key": vkey_path(place.key).read_text().strip()}
    with parts.witness(told), httpx.Client(base_url=parts.url(told), trust_env=False) as client:

        def add(body: bytes, **headers: str) -> httpx.Response:
            return client.post("/add-checkpoint", content=body, headers=headers)

        assert add(b"old 0\n\n" + note).status_code == 403
        answer = add(b"old 0\n\n" + note, **key)
        assert answer.status_code == 200 and answer.text.startswith(f"— {parts.NAME} ")
        assert answer.text.endswith("=\n") and answer.text.count("\n") == 1
        answer = add(b"old 0\n\n" + note)
        assert (answer.status_code, answer.text) == (409, "1\n")
        assert answer.headers["content-type"].startswith("text/x.tlog.size")
        assert add(b"old 1\n\n" + note).status_code == 200
        assert add(b"old 2\n\n" + note).status_code == 400
        assert add(b"nonsense").status_code == 400
        assert add(b"old 1\n" + b"A" * 43 + b"=\n\n" + note).status_code == 422
        other = Signer("ppn/audit/other", load_private(place.key))
        foreign = signed(Checkpoint("ppn/audit/other", 1, bytes(32)), other).encode()
        assert add(b"old 0\n\n" + foreign).status_code == 404
        assert add(b"x" * 200_000).status_code == 413
        assert client.get("/add-checkpoint").status_code == 405
        verifier: Verifier = parse_verifier(client.get("/vkey").text)
        assert verifier.name == parts.NAME


def test_two_processes_cannot_have_one_memory(told: WitnessSettings) -> None:
    """TEN-12: two witnesses with one key could sign two histories."""
    with parts.witness(told):
        other = told.model_copy(update={"port": told.port + 1})
        path = told.folder.with_suffix(".json")
        path.write_text(other.model_dump_json())
        argv = [sys.executable, "-m", "ppn.audit.witness", "--settings", str(path)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1 and "folder_locked" in done.stderr


def test_it_listens_on_the_mesh_alone(told: WitnessSettings) -> None:
    """MESH-01: a wildcard address is refused, and loopback without the switch for development."""
    for changes in ({"address": "0.0.0.0"}, {"development": False, "mesh_range": "10.8.0.0/24"}):
        path = told.folder.with_suffix(".json")
        path.write_text(json.dumps({**json.loads(told.model_dump_json()), **changes}))
        argv = [sys.executable, "-m", "ppn.audit.witness", "--settings", str(path)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1 and "address_not_mesh" in done.stderr
