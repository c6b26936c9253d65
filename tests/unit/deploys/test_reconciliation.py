"""The files that make the first controller reconcile the pool."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploys.pool import read_pool
from deploys.reconciliation import (
    SERVICES,
    TIMERS,
    reconciler,
    reconciliation_files,
    sink_problems,
)
from ppn.fleet.reconciliation.settings import PATH, LinesFile, ReconcileSettings, Webhook
from ppn.inventory import pool_from_data
from tests.unit.deploys.test_services import NODES

POOL = pool_from_data({}, NODES)[0]
HOOK = {"kind": "webhook", "name": "chat", "url": "https://chat.example/hook/secret"}
LINES = {"kind": "file", "name": "log", "path": "/var/log/ppn-alerts/alerts.jsonl"}


def test_the_first_controller_reconciles() -> None:
    """REC-01."""
    assert reconciler(POOL) == "relay"
    assert reconciler(pool_from_data({}, {"laptop": NODES["laptop"]})[0]) == ""


def test_it_knows_who_to_ask_and_whom_to_tell() -> None:
    """REC-02, REC-03, REC-04."""
    data = {"alert_sinks": [HOOK, LINES], "report_days": 30}
    file = reconciliation_files(POOL, "server", data)[PATH]
    settings = ReconcileSettings.model_validate_json(file.content)
    # Its own controller first, so that a mesh that is cut hides no more than it has to.
    assert settings.controllers == ("http://10.8.0.2:9203", "http://10.8.0.1:9203")
    assert settings.nodes == ("server", "laptop") and settings.keep_days == 30
    assert [type(sink) for sink in settings.sinks] == [Webhook, LinesFile]
    assert file.mode == "0640" and file.group == "ppn-reconcile" and file.secret
    plain = reconciliation_files(POOL, "relay", {})[PATH]
    assert ReconcileSettings.model_validate_json(plain.content).keep_days == 400


def test_tenant_proxies_of_the_inventory_are_asked() -> None:
    """REC-02."""
    relay = {**NODES["relay"], "roles": ["relay", "controller", "tenant-proxy"]}
    pool, problems = pool_from_data({}, {**NODES, "relay": relay})
    assert not problems
    settings = json.loads(reconciliation_files(pool, "server", {})[PATH].content)
    assert settings["tenant_proxies"] == ["https://10.8.0.1:9221"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"alert_sinks": [HOOK | {"url": "ftp://chat"}]}, "alert_sinks_invalid"),
        ({"alert_sinks": [HOOK | {"colour": "red"}]}, "alert_sinks_invalid"),
        ({"alert_sinks": [{"kind": "pager"}]}, "alert_sinks_invalid"),
        ({"alert_sinks": [HOOK, HOOK]}, "alert_sinks_invalid"),
        ({"report_days": 0}, "report_days_invalid"),
        ({"report_days": True}, "report_days_invalid"),
    ],
)
def test_bad_sinks_are_refused_before_anything_is_changed(data: dict[str, Any], code: str) -> None:
    """REC-03: on the node that would tell, and the secret of a URL is not in the text."""
    problems = read_pool({name: node | data for name, node in NODES.items()}).problems
    assert code in problems["relay"][0] and problems["server"] == []
    assert "secret" not in problems["relay"][0]
    assert list(sink_problems({})) == []


@pytest.mark.parametrize("unit", SERVICES)
def test_systemd_rates_the_units(tmp_path: Path, unit: str) -> None:
    path = tmp_path / unit
    path.write_text(reconciliation_files(POOL, "relay", {})[f"/etc/systemd/system/{unit}"].content)
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found and float(found[1]) <= 2.0, done.stdout


def test_timers_catch_up_and_start_what_is_there(tmp_path: Path) -> None:
    """REC-01: systemd makes up for an hour that was slept through, and reads what we wrote."""
    files = reconciliation_files(POOL, "relay", {})
    for name in (*SERVICES, *TIMERS):
        content = files[f"/etc/systemd/system/{name}"].content
        # What is verified here is our text, not the machine this runs on.
        (tmp_path / name).write_text(content.replace("/opt/ppn/venv/bin/ppn", "/bin/true"))
    argv = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in TIMERS)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert ours == [], done.stderr
    timer = files["/etc/systemd/system/ppn-reconcile.timer"].content
    assert "Persistent=true" in timer and "RandomizedDelaySec=" in timer
