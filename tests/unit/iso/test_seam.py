"""`ppn iso` reaches the builder of its own checkout, from wherever it is typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ppn
from ppn.cli.iso import checkout
from ppn.errors import Refusal

PPN = Path(sys.executable).with_name("ppn")


def test_the_builder_answers_from_any_folder(tmp_path: Path) -> None:
    """Another package called `iso` in the current folder is not taken for ours."""
    (tmp_path / "iso").mkdir()
    (tmp_path / "iso" / "__init__.py").write_text("raise SystemExit('the wrong one')\n")
    (tmp_path / "iso" / "__main__.py").touch()
    done = subprocess.run(
        [PPN, "iso", "lock", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "ppn iso lock [OPTIONS]" in done.stdout
    assert "--json" in done.stdout


def test_an_installed_ppn_has_no_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel holds `ppn` alone: the refusal says where the builder is."""
    monkeypatch.setattr(ppn, "__file__", str(tmp_path / "ppn" / "__init__.py"))
    with pytest.raises(Refusal) as refused:
        checkout.hand_over("build", [], as_json=False)
    assert refused.value.code == "checkout_needed"
    assert "scripts/iso build" in refused.value.hint
