"""What the lab makes of an installer's words."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from lab import node_installed
from lab.errors import LabError
from lab.medium import Medium
from lab.node_installed import install
from lab.paths import NodePaths
from lab.steps import step
from lab.topology import NODES


@pytest.mark.parametrize(
    ("said", "well"),
    [
        ("INSTALLED node laptop on vda", True),
        ("ALREADY INSTALLED: vda is node laptop, from this image and these settings", True),
        ("[13/13] Mark vda as installed", False),
    ],
)
def test_an_installation_that_was_done_before_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, well: bool
) -> None:
    """The lab was interrupted while the machine waited to be restarted."""
    paths = NodePaths(tmp_path, tmp_path, "laptop")
    paths.install_log.write_text(said)
    # In the place of QEMU: a program that says this and ends.
    program = ["sh", "-c", f"echo 'ppn-installer: {said}'"]
    monkeypatch.setattr(node_installed, "machine", lambda *_: program)
    medium = Medium(tmp_path / "image", tmp_path / "key")
    with step("Install") as shown, nullcontext() if well else pytest.raises(LabError):
        install(NODES[0], paths, medium, shown)
