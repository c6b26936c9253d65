"""The proxy's settings: an address of the mesh, or no door at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ppn.host.proxy.settings import read_settings
from ppn.settings import SettingsDamaged
from ppn.wire.listen import AddressNotMesh

SOUND: dict[str, Any] = {
    "node": "server",
    "listen": "10.8.0.2",
    "mesh_range": "10.8.0.0/24",
    "allowed": ["10.8.0.1/32"],
}


def read(tmp_path: Path, **changed: Any) -> Any:
    path = tmp_path / "proxy.json"
    path.write_text(json.dumps(SOUND | changed))
    return read_settings(path)


def test_a_mesh_address_is_taken(tmp_path: Path) -> None:
    assert str(read(tmp_path).listen) == "10.8.0.2"
    assert read(tmp_path, listen="127.0.0.1", development=True).port == 9204


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "192.168.1.1", "10.8.1.2"])
def test_any_other_address_is_refused(tmp_path: Path, address: str) -> None:
    """NP-02: a wildcard would open the door to the underlay."""
    with pytest.raises(AddressNotMesh):
        read(tmp_path, listen=address)


def test_a_wildcard_is_refused_whatever_the_switch(tmp_path: Path) -> None:
    with pytest.raises(AddressNotMesh):
        read(tmp_path, listen="0.0.0.0", mesh_range="0.0.0.0/0", development=True)


@pytest.mark.parametrize(
    "changed", [{"allowed": "10.8.0.1"}, {"port": "9204"}, {"more": 1}, {"allowed": ["x"]}]
)
def test_damaged_settings_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(SettingsDamaged, match=next(iter(changed))):
        read(tmp_path, **changed)


def test_missing_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsDamaged, match="No such file"):
        read_settings(tmp_path / "proxy.json")
