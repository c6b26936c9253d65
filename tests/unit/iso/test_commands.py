"""What an operator mistypes is told by its name, before anything is built."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from iso.__main__ import main
from iso.commands.sign import sign
from iso.commands.verify import verify
from iso.errors import IsoError
from iso.fetch import FetchFailed
from ppn.cli.exits import Exit, exit_of


def test_verify_names_what_is_missing(tmp_path: Path) -> None:
    """ISO-01: keys that are not there are no strangers' signature."""
    with pytest.raises(IsoError, match=r"no file .*ppn\.iso") as refused:
        verify(tmp_path / "ppn.iso", tmp_path)
    assert refused.value.code == "not_found"
    (tmp_path / "ppn.iso").touch()
    with pytest.raises(IsoError, match="allowed_signers") as refused:
        verify(tmp_path / "ppn.iso", tmp_path)
    assert "public" in refused.value.hint
    (tmp_path / "allowed_signers").touch()
    with pytest.raises(IsoError, match=r"db\.crt"):
        verify(tmp_path / "ppn.iso", tmp_path)


def test_sign_wants_the_folder_with_the_private_keys(tmp_path: Path) -> None:
    with pytest.raises(IsoError, match=r"private/db\.key") as refused:
        sign(keys=tmp_path, output=tmp_path)
    assert "private" in refused.value.hint


def test_a_full_disk_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def keys() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/keys")

    monkeypatch.setattr("iso.commands.keys.keys", keys)
    monkeypatch.setattr(sys, "argv", ["iso", "keys"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "No space left on device: '/keys' (file_unusable)" in capsys.readouterr().err


def test_a_silent_mirror_ends_with_the_code_that_the_command_promises() -> None:
    """It may be asked again; a package that is gone may not."""
    assert exit_of(FetchFailed("silent")) is Exit.UNREACHABLE
    assert exit_of(FetchFailed("gone", code="package_gone")) is Exit.FAILED
