"""What a lab was made as."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import LabError
from lab.image import Image
from lab.medium import Medium
from lab.network import plan
from lab.paths import LabPaths
from lab.settings import Settings, made_as
from lab.topology import NODES, Kind, kinds_of

MEDIUM = Medium(Path("/x/ppn.iso"), Path("/x/key"))
IMAGE = Image(Path("/cache/node-abc"), "abc")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabPaths:
    """A lab that has nothing but a folder."""
    monkeypatch.setenv("PPN_LAB_HOME", str(tmp_path))
    found = LabPaths("unit")
    found.state_dir.mkdir()
    return found


@pytest.mark.parametrize("kind", [Kind.CONTAINER, Kind.VM])
@pytest.mark.parametrize("installed", [(), ("laptop",)], ids=["plain", "installed"])
def test_settings_are_read_as_they_were_written(
    lab: LabPaths, kind: Kind, installed: tuple[str, ...]
) -> None:
    """What a later command finds is what the first one chose."""
    made = Settings(kinds_of(kind, (), installed), IMAGE, MEDIUM if installed else None)
    lab.settings.write_bytes(made.record())
    assert made_as(lab) == made


@pytest.mark.parametrize(
    "text", ["", "[]", '{"kinds": {}}', '{"kinds": {"relay": "vm"}, "image": "/x"}']
)
def test_damaged_settings_are_refused(lab: LabPaths, text: str) -> None:
    """With the way out, and not taken for a lab that is not there."""
    lab.settings.write_text(text)
    with pytest.raises(LabError, match="damaged"):
        made_as(lab)


@pytest.mark.parametrize("kind", [Kind.VM, Kind.INSTALLED])
def test_one_node_is_a_machine_among_containers(kind: Kind) -> None:
    """It has a tap behind the same router; the others have their addresses as before."""
    machines, installed = (["laptop"], []) if kind is Kind.VM else ([], ["laptop"])
    made = Settings(kinds_of(Kind.CONTAINER, machines, installed), IMAGE)
    kinds = {node.name: made.kind_of(node) for node in NODES}
    assert kinds == {"relay": "container", "server": "container", "laptop": kind}
    spaces = {space.name: space for space in plan(made.kinds).namespaces}
    assert spaces["laptop"].tap
    plain = {space.name: space for space in plan(kinds_of(Kind.CONTAINER)).namespaces}
    changed = {name for name in plain if plain[name] != spaces[name]}
    assert changed == {"laptop"}
