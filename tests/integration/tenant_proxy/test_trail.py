"""The trail that changes leave, in the audit log above all, whoever asks and whatever fails."""

from __future__ import annotations

import fcntl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from ppn.audit.journal import NAME
from ppn.tenant.store import Store
from tests.integration.proxy.parts import wait_for
from tests.integration.tenant_proxy.parts import ORDER, allocate, provision, recording
from tests.integration.tenant_proxy.stand import Stand
from tests.logged import logged


@pytest.mark.fault(
    "the audit log cannot be written",
    "every change is refused with 503 before the pool is asked, and takes nothing",
)
def test_without_the_audit_log_nothing_is_done(stand: Stand) -> None:
    """TEN-10: and once it can be written again, changes are made again."""
    allocate(stand.store, stand.tenant, "vm-there")
    stand.recorder.hold("vm-there", stand.tenant)
    before = stand.used
    with (stand.proxy.audit / NAME).open("rb") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        answers = [
            stand.create("k"),
            stand.ask("PATCH", "/vms/vm-there", json={"memory_mib": 512}),
            stand.ask("POST", "/vms/vm-there/stop"),
            stand.ask("DELETE", "/vms/vm-there"),
            stand.ask("DELETE", "/vms/vm-of-nobody"),
        ]
    assert {(one.status_code, one.json()["code"]) for one in answers} == {
        (503, "audit_unavailable")
    }
    assert stand.recorder.seen == [] and stand.used == before
    assert stand.store.allocation(stand.tenant, "vm-there").pending is None
    assert stand.ask("DELETE", "/vms/vm-there").is_success


@pytest.mark.fault(
    "the audit log is lost between an effect and its outcome",
    "the answer is the true one, and the outcome is written once the log takes it",
)
def test_an_outcome_is_owed_and_paid(stand: Stand) -> None:
    """TEN-10."""
    stand.recorder.stuck = {stand.tenant}
    with stand.proxy.client(stand.token) as client, (stand.proxy.audit / NAME).open("rb") as log:
        with ThreadPoolExecutor(1) as pool:
            going = pool.submit(client.post, "/v1/vms", json=ORDER)
            wait_for(lambda: bool(stand.recorder.seen), "the order")
            fcntl.flock(log, fcntl.LOCK_EX)
            stand.recorder.unstick()
            assert going.result(60).status_code == 201
        assert [what for _, what, _ in stand.trail()] == ["allowed"]
    wait_for(lambda: [what for _, what, _ in stand.trail()] == ["allowed", "done"], "the outcome")


HOSTILE = [
    'vm"},{"tenant":"other',
    "vm\n{}",
    "vm\r\nX: y",
    "vm\u2028x",
    "vm\x00x",
    "'; drop table allocations; --",
    "..%2f..%2fetc",
    "vm" * 2000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_a_stranger_sends_stays_inside_one_line(stand: Stand, text: str) -> None:
    """TEN-11: one entry, in one line, whatever the id; the pool hears nothing of it."""
    before = len(stand.proxy.entries())
    refused = stand.ask("DELETE", f"/vms/{quote(text, safe='')}")
    assert refused.status_code in (400, 404), refused.text
    entries = stand.proxy.entries()
    if refused.json()["code"] == "vm_unknown":
        assert len(entries) == before + 1
        assert entries[-1].vm == text[:256] or "%2f" in text
        assert (entries[-1].operation, entries[-1].code) == ("destroy", "vm_unknown")
        assert entries[-1].source == "127.0.0.1" and entries[-1].token in stand.token
    assert stand.recorder.seen == []


def test_the_correlation_id_goes_all_the_way(stand: Stand) -> None:
    """FLEET-18: in the answer, to the controller, in the audit log and in the service's log."""
    sent = "from-the-client-1"
    with stand.proxy.client(stand.token) as client:
        made = client.post("/v1/vms", json=ORDER, headers={"Ppn-Correlation-Id": sent})
    assert made.headers["ppn-correlation-id"] == sent
    assert stand.recorder.seen[0].headers["ppn-correlation-id"] == sent
    found = [one for one in stand.proxy.entries() if one.correlation_id == sent]
    assert [one.outcome for one in found] == ["allowed", "done"]
    # It is logged once it is answered.
    line = {"event": "request", "correlation_id": sent}
    wait_for(lambda: bool(logged(stand.proxy.log, **line)), "the line of the request")


@pytest.mark.parametrize("code", ["rate_limited", "token_refused"])
def test_a_flood_is_refused_and_does_not_fill_the_log(code: str, tmp_path: Path) -> None:
    """TEN-10: the first ones have an entry each, the rest one together, and none is lost."""
    # So low a rate that none is let in after the burst, however slow the machine.
    limits = {"rate": 0.001, "burst": 5} if code == "rate_limited" else {}
    with recording(tmp_path, settings={"limits": limits}) as (proxy, recorder):
        store = Store.open(proxy.store)
        token = provision(store, "acme")
        store.close()
        with proxy.client(token if code == "rate_limited" else "nonsense") as client:
            answers = [client.post("/v1/vms", json=ORDER) for _ in range(30)]
        refused = [one.json().get("code") for one in answers].count(code)
        let_in = [one.status_code for one in answers].count(201)
        assert refused > 20 and refused + let_in == 30
        assert len(recorder.asked("POST")) == let_in
        written = [one for one in proxy.entries() if one.code == code]
        assert len(written) == 5 and {one.count for one in written} == {1}
        assert proxy.end() == 0
        written = [one for one in proxy.entries() if one.code == code]
        assert len(written) == 6 and sum(one.count for one in written) == refused
