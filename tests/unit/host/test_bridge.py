"""The record of the VM network decides which rules are in force."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppn.host import bridge
from ppn.host.bridge import network_change
from ppn.host.paths import Paths
from tests.unit.host.builders import make_spec

UUID = "11111111-2222-4333-8444-555555555555"
SETTINGS = {"vm_range": "10.9.2.0/24", "mesh_address": "10.8.0.2", "mesh_interface": "ppn0"}


def test_rules_for_a_record_that_was_not_written_are_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: what its sidecar does not say, no VM has, and what it says, it keeps."""
    (tmp_path / "proc").symlink_to("/proc")
    paths = Paths(tmp_path)
    paths.settings.parent.mkdir(parents=True)
    paths.settings.write_text(json.dumps(SETTINGS))
    loaded: list[int] = []
    monkeypatch.setattr(bridge, "_load", lambda _, guests: loaded.append(len(list(guests))))
    with pytest.raises(OSError), network_change(paths) as change:
        change.grant(make_spec(), UUID, None)
        raise OSError(28, "No space left on device")
    assert loaded == [1, 0]
    with network_change(paths) as change:
        change.grant(make_spec(), UUID, None)
    assert loaded == [1, 0, 1]
