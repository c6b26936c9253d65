"""What an operator gives to an image is judged before it is built."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from iso.errors import IsoError
from iso.given import need_fit
from iso.manifest import NAMESPACE
from iso.verify import judge_site
from ppn import sshsig
from ppn.errors import Refusal
from ppn.installer.signature import NAMESPACE as SITE_NAMESPACE

PUBLIC = ("PK.crt", "PK.cer", "PK.esl", "PK.auth", "image_ed25519.pub", "owner.guid", "TEST-KEYS")
PEM = "-----BEGIN {} KEY-----\nAAAA\n-----END {} KEY-----\n"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder as `public` of `ppn iso keys`, with the private key beside it."""
    folder = tmp_path / "keys"
    folder.mkdir()
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")]
    subprocess.run(argv, check=True, timeout=60)
    public = (tmp_path / "key.pub").read_text()
    line = sshsig.allowed_line("ppn", public, (NAMESPACE, SITE_NAMESPACE))
    (folder / "allowed_signers").write_text(line)
    for name in PUBLIC:
        (folder / name).write_text(PEM.format("PUBLIC", "PUBLIC"))
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Site settings, not signed yet."""
    path = tmp_path / "site.json"
    path.write_text('{"version": 1}\n')
    return path


def sign(tmp_path: Path, site: Path, namespace: str = SITE_NAMESPACE) -> None:
    signed = sshsig.sign(tmp_path / "key", site.read_text(), namespace)
    (tmp_path / "site.json.sig").write_text(signed)


def test_public_keys_and_signed_settings_fit(keys: Path, site: Path, tmp_path: Path) -> None:
    sign(tmp_path, site)
    need_fit(keys, site)
    need_fit(keys, None)
    need_fit(None, None)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("db.key", "PRIVATE"),
        # One file for both, as some tools write them.
        ("db.crt", "PRIVATE"),
        ("image_ed25519", "OPENSSH PRIVATE"),
        ("notes.txt", "PUBLIC"),
    ],
)
def test_no_private_key_goes_onto_a_medium(keys: Path, name: str, kind: str) -> None:
    """ISO-01: whatever lies in the folder would be published."""
    (keys / name).write_text(PEM.format(kind, kind))
    with pytest.raises(IsoError, match=name) as refused:
        need_fit(keys, None)
    assert refused.value.code == "keys_unfit"


def test_the_folder_above_is_not_taken_for_the_public_one(keys: Path) -> None:
    with pytest.raises(IsoError, match="allowed_signers") as refused:
        need_fit(keys.parent, None)
    assert refused.value.code == "keys_unfit"
    (keys / "private").mkdir()
    with pytest.raises(IsoError, match="private"):
        need_fit(keys, None)


def test_settings_that_the_installer_would_refuse_are_refused_now(
    keys: Path, site: Path, tmp_path: Path
) -> None:
    """ISO-01: not signed, signed for another purpose, altered, or with nobody to trust."""
    with pytest.raises(Refusal) as refused:
        need_fit(keys, site)
    assert refused.value.code == "settings_unsigned"
    sign(tmp_path, site, NAMESPACE)
    with pytest.raises(Refusal) as refused:
        need_fit(keys, site)
    assert refused.value.code == "settings_namespace_wrong"
    sign(tmp_path, site)
    site.write_text('{"version": 2}\n')
    with pytest.raises(Refusal) as refused:
        need_fit(keys, site)
    assert refused.value.code == "settings_altered"
    with pytest.raises(IsoError) as unfit:
        need_fit(None, site)
    assert unfit.value.code == "site_unfit"


def test_settings_on_an_image_are_judged_like_its_files(
    keys: Path, site: Path, tmp_path: Path
) -> None:
    """ISO-01: they are not in the manifest, and signed for themselves."""
    files = {"ppn/site.json": site, "ppn/site.json.sig": tmp_path / "site.json.sig"}
    sign(tmp_path, site)
    judge_site(files, keys / "allowed_signers")
    judge_site({}, keys / "allowed_signers")
    with pytest.raises(IsoError) as refused:
        judge_site({"ppn/site.json": site}, keys / "allowed_signers")
    assert refused.value.code == "settings_unsigned"
    site.write_text('{"version": 2}\n')
    with pytest.raises(IsoError) as refused:
        judge_site(files, keys / "allowed_signers")
    assert refused.value.code == "settings_altered"


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(IsoError, match="nowhere") as missing:
        need_fit(tmp_path / "nowhere", None)
    assert missing.value.code == "not_found"
