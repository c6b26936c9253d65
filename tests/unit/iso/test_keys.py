"""Private keys are in one place, and in none when it went wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import NoEncryption

from iso import keys as keyring
from iso.commands.passphrase import passphrase_of
from iso.errors import IsoError
from iso.keys import MEMORY, RSA_BITS, VARIABLES, Keys, make

CLEAR = b"-----BEGIN PRIVATE KEY-----"


def test_what_failed_leaves_no_key_behind(tmp_path: Path) -> None:
    """ISO-01: tools that lack Debian's certificate are found out when the keys are made already."""
    with pytest.raises(IsoError, match="shim-unsigned"):
        make(tmp_path / "new/keys", tmp_path, test=False, passphrase="correct horse")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_key_without_its_passphrase_is_on_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ISO-01: the tools get it in memory."""
    seen = []

    def tool(_: Path, argv: tuple[str, ...], *, binds: Mapping[Path, str], **__: Any) -> None:
        places = {place: outside for outside, place in binds.items()}
        if argv[0] == "cert-to-efi-sig-list":
            (places["/mnt/work"] / argv[-1].rsplit("/", 1)[1]).write_bytes(b"list")
            return
        holders = [p for folder in binds for p in folder.rglob("*") if CLEAR in p.read_bytes()]
        seen.extend(holders)
        os.close(os.open(places["/mnt/public"] / Path(argv[-1]).name, os.O_CREAT, mode=0o600))

    keys = Keys(tmp_path / "keys")
    keys.public.mkdir(parents=True)
    keys.private.mkdir()
    made = {name: generate_private_key(65537, RSA_BITS) for name in VARIABLES}
    for name, key in made.items():
        keyring.write_pair(keys, name, key, name, NoEncryption())
    certificate = (keys.public / "db.cer").read_bytes()
    monkeypatch.setattr(keyring, "debian_ca", lambda _: certificate)
    monkeypatch.setattr(keyring, "run_in", tool)
    keyring.enrol(keys, tmp_path, made)
    assert len(seen) == len(VARIABLES)
    assert {path.parents[1] for path in seen} == {MEMORY}
    assert not any(path.exists() for path in seen)
    assert {path.stat().st_mode & 0o777 for path in keys.public.iterdir()} == {0o644}


@pytest.mark.parametrize(
    "content", [b"correct horse\n", b"correct horse\r\nmore", b"correct horse"]
)
def test_a_passphrase_is_the_first_line(tmp_path: Path, content: bytes) -> None:
    """However it ends; typed at a prompt it is the same."""
    (tmp_path / "secret").write_bytes(content)
    assert passphrase_of(tmp_path / "secret", needed=True, new=True) == "correct horse"


@pytest.mark.parametrize("content", [b"", b"\nbelow\n", b"\xff", None])
def test_no_passphrase_is_not_taken_for_an_empty_one(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(IsoError, match="secret") as refused:
        passphrase_of(tmp_path / "secret", needed=False, new=True)
    assert refused.value.code == "passphrase_unusable"
