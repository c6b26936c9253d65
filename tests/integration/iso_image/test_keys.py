"""Keys and signatures with the real tools."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from iso.errors import IsoError
from iso.keys import DEBIAN_CA, Keys, debian_ca, make, opened, protected
from iso.manifest import NAMESPACE, entry_of
from iso.signing import Signatures, attach, need_fitting, sign
from iso.source import CHECKOUT
from iso.times import Times
from iso.unsigned import Unsigned
from ppn import sshsig
from ppn.errors import Refusal
from tests.integration.iso_image.conftest import Made


def test_keys_are_made_once_and_kept_private(made: Made) -> None:
    for path in made.keys.private.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(made.keys.private.stat().st_mode) == 0o700
    with pytest.raises(Refusal) as refused:
        make(made.keys.folder, made.tools, test=True, passphrase=None)
    assert refused.value.code == "keys_exist"


def test_firmware_gets_our_certificate_and_debians(made: Made) -> None:
    """The installed system is Debian's: its boot loader and kernels must start too."""
    ours = x509.load_pem_x509_certificate(made.keys.certificate("db").read_bytes())
    listed = (made.keys.public / "db.esl").read_bytes()
    for certificate in ((made.keys.public / "db.cer").read_bytes(), debian_ca(made.tools)):
        assert certificate in listed
    assert "TEST" in ours.subject.rfc4514_string()
    for name in ("PK", "KEK", "db"):
        # An update: its time, its signature, and the list that it sets.
        update = (made.keys.public / f"{name}.auth").read_bytes()
        assert update.endswith((made.keys.public / f"{name}.esl").read_bytes())


def test_another_certificate_of_debian_is_refused(tmp_path: Path, made: Made) -> None:
    place = tmp_path / DEBIAN_CA
    place.parent.mkdir(parents=True)
    place.write_bytes(debian_ca(made.tools)[:-1] + b"\0")
    with pytest.raises(IsoError, match="SHA-256") as refused:
        debian_ca(tmp_path)
    assert refused.value.code == "certificate_refused"


def test_protected_keys_sign_with_their_passphrase_alone(made: Made, tmp_path: Path) -> None:
    keys = make(tmp_path / "keys", made.tools, test=False, passphrase="correct horse")
    assert protected(keys) and not keys.test and not protected(made.keys)
    for wrong in (None, "battery staple"):
        with pytest.raises(IsoError) as refused:
            opened(keys.key("db"), wrong)
        assert refused.value.code == "key_unusable"
    assert b"ENCRYPTED" not in opened(keys.key("db"), "correct horse")
    assert b"OPENSSH" in opened(keys.signing_key, "correct horse", ssh=True)


def test_an_image_is_signed_only_with_the_keys_it_bears(made: Made, tmp_path: Path) -> None:
    others = make(tmp_path / "others", made.tools, test=True, passphrase=None)
    with pytest.raises(IsoError) as refused:
        sign(made.unsigned, others, made.tools, tmp_path / "signatures", None)
    assert refused.value.code == "other_keys"
    assert not (tmp_path / "signatures").exists()


def test_nothing_is_published_without_its_signatures(made: Made, tmp_path: Path) -> None:
    with pytest.raises(IsoError) as refused:
        attach(made.unsigned, Signatures(tmp_path), made.tools, tmp_path, Times())
    assert refused.value.code == "signature_missing"


@pytest.mark.fault(
    "a signature of an earlier build lies where the new one's is looked for", "refused"
)
def test_signatures_of_another_build_are_refused(made: Made, tmp_path: Path) -> None:
    """ISO-01: with the same manifest too, when the boot file is another one."""
    need_fitting(made.unsigned, made.signatures, made.tools)
    parts = Unsigned(tmp_path / "parts")
    shutil.copytree(made.unsigned.folder, parts.folder)
    content = bytearray(parts.uki.read_bytes())
    content[5000] ^= 1
    parts.uki.write_bytes(content)
    with pytest.raises(IsoError, match="boot file") as refused:
        need_fitting(parts, made.signatures, made.tools)
    assert refused.value.code == "signature_unfit"


def test_published_signatures_give_the_published_image(made: Made, tmp_path: Path) -> None:
    """ISO-02: the signature is an input like any other."""
    again, _ = attach(made.unsigned, made.signatures, made.tools, tmp_path, Times())
    assert again.read_bytes() == made.image.read_bytes()


@pytest.mark.parametrize(
    ("content", "namespace", "wrong"),
    [
        ("altered\n", NAMESPACE, sshsig.Wrong.ALTERED),
        ("text\n", "ppn-site", sshsig.Wrong.NAMESPACE),
    ],
)
def test_a_signature_is_for_one_text_and_purpose(
    made: Made, content: str, namespace: str, wrong: sshsig.Wrong
) -> None:
    signature = sshsig.sign(made.keys.signing_key, "text\n", NAMESPACE).encode()
    signers = made.keys.allowed_signers
    assert sshsig.judge("text\n", signature, signers, NAMESPACE) == "ppn-test"
    with pytest.raises(sshsig.SignatureWrong) as found:
        sshsig.judge(content, signature, signers, namespace)
    assert found.value.wrong is wrong


def test_what_is_no_signature_is_damaged(made: Made) -> None:
    for signature in (b"", b"\xff", sshsig.BEGIN.encode() + b"\nAAAA\n" + sshsig.END.encode()):
        with pytest.raises(sshsig.SignatureWrong) as found:
            sshsig.judge("text\n", signature, made.keys.allowed_signers, NAMESPACE)
        assert found.value.wrong is sshsig.Wrong.DAMAGED


def iso(*words: str) -> dict[str, object]:
    """What a command of the builder says as JSON."""
    argv = [sys.executable, "-m", "iso", *words, "--json"]
    done = subprocess.run(
        argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_the_commands_make_keys_and_sign_with_them(made: Made, tmp_path: Path) -> None:
    """Signatures made elsewhere, in hardware for example, are taken like our own."""
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    words = ("keys", str(tmp_path / "keys"), "--passphrase-file", str(secret))
    assert iso(*words)["test"] is False
    assert protected(Keys(tmp_path / "keys"))
    output = tmp_path / "out"
    shutil.copytree(made.unsigned.folder, output / "unsigned")
    signed = iso("sign", "--keys", str(made.keys.folder), "--output", str(output))
    assert signed["test_keys"] is True
    shutil.copytree(made.signatures.folder, output / "signatures", dirs_exist_ok=True)
    again = iso("sign", "--output", str(output))
    assert again["sha256"] == entry_of(made.image).sha256
