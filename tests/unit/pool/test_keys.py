"""The operator's key files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ppn.pool import keys
from ppn.pool.keys import KeyUnusable
from tests.unit.pool.samples import OTHER_KEY


def made(folder: Path) -> Path:
    """A fresh key pair."""
    path = folder / "operator.key"
    keys.generate(path, keys.public_path(path))
    return path


def code_of(error: pytest.ExceptionInfo[KeyUnusable]) -> str:
    """The code of a refusal, which must name a next step."""
    assert error.value.hint
    return error.value.code


def test_a_pair_is_made_private_and_fits(tmp_path: Path) -> None:
    """LED-01: mode 0600, nothing left beside it, and both halves belong together."""
    path = made(tmp_path)
    assert (
        path.stat().st_mode & 0o7777,
        (tmp_path / "operator.key.pub").stat().st_mode & 0o7777,
    ) == (
        0o600,
        0o644,
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["operator.key", "operator.key.pub"]
    public = keys.load_public(tmp_path / "operator.key.pub")
    public.verify(keys.load_private(path).sign(b"x"), b"x")
    assert "PRIVATE" not in (tmp_path / "operator.key.pub").read_text()


def test_the_hint_for_a_lost_public_key_is_true(tmp_path: Path) -> None:
    """The public key can be made again with common tools, byte for byte."""
    path = made(tmp_path)
    public = keys.public_path(path)
    before = public.read_bytes()
    public.unlink()
    with pytest.raises(KeyUnusable) as missing:
        keys.load_public(public)
    command = missing.value.hint.split("`")[1].split()
    assert command[0] == "openssl" and shutil.which("openssl")
    subprocess.run(command, check=True, timeout=30)
    assert public.read_bytes() == before


@pytest.mark.parametrize("taken", ["operator.key", "operator.key.pub"])
@pytest.mark.parametrize("dangling", [False, True])
def test_nothing_is_overwritten(tmp_path: Path, taken: str, dangling: bool) -> None:
    """A key is never replaced, not even through a dangling link."""
    if dangling:
        (tmp_path / taken).symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / taken).write_bytes(b"mine")
    with pytest.raises(KeyUnusable) as refused:
        made(tmp_path)
    assert code_of(refused) == "key_exists"
    assert [p.name for p in tmp_path.iterdir()] == [taken]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644, 0o601, 0o777])
def test_a_loose_mode_is_refused(tmp_path: Path, mode: int) -> None:
    """Whatever others may do with the private key, it is refused."""
    path = made(tmp_path)
    path.chmod(mode)
    with pytest.raises(KeyUnusable) as refused:
        keys.load_private(path)
    assert code_of(refused) == "key_loose_mode"
    assert f"{mode:04o}" in refused.value.message


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    """Missing, rubbish, another kind, the wrong half, another pair's public key."""
    path = made(tmp_path)
    public = keys.public_path(path)
    wrong = tmp_path / "wrong"
    elliptic = ["openssl", "genpkey", "-quiet", "-algorithm", "X25519", "-out", str(wrong)]
    subprocess.run([word for word in elliptic if word != "-quiet"], check=True, timeout=30)
    wrong.chmod(0o600)
    for bad in (wrong, public):
        public.chmod(0o600)
        with pytest.raises(KeyUnusable) as refused:
            keys.load_private(bad)
        assert code_of(refused) == "key_wrong_kind"
    for bad in (wrong, path):
        with pytest.raises(KeyUnusable) as refused:
            keys.load_public(bad)
        assert code_of(refused) == "key_wrong_kind"
    with pytest.raises(KeyUnusable) as refused:
        keys.load_private(tmp_path / "none")
    assert code_of(refused) == "key_missing"
    with pytest.raises(KeyUnusable) as refused:
        keys.load_private(tmp_path)
    assert code_of(refused) in ("key_unreadable", "key_loose_mode")
    public.write_bytes(keys.public_pem(OTHER_KEY.public_key()))
    with pytest.raises(KeyUnusable) as refused:
        keys.load_private(path)
    assert code_of(refused) == "key_mismatch"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The next step makes it."""
    with pytest.raises(KeyUnusable) as refused:
        made(tmp_path / "none")
    assert code_of(refused) == "key_unwritable"
