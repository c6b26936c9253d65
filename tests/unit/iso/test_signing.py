"""Signatures are put to what they were made over, and to nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from iso.errors import IsoError
from iso.manifest import NAMESPACE
from iso.signing import Signatures, need_fitting
from iso.unsigned import Unsigned
from ppn import sshsig

NO_TOOLS = Path("/nonexistent")


@pytest.fixture
def unsigned(tmp_path: Path) -> Unsigned:
    """Parts that bear a key of ours."""
    made = Unsigned(tmp_path / "unsigned")
    bears = made.medium / "ppn/keys"
    bears.mkdir(parents=True)
    made.manifest_file.write_text("what was built\n")
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")]
    subprocess.run(argv, check=True, timeout=60)
    line = sshsig.allowed_line("ppn", (tmp_path / "key.pub").read_text(), (NAMESPACE,))
    (bears / "allowed_signers").write_text(line)
    (bears / "db.cer").write_bytes(b"")
    return made


@pytest.fixture
def signatures(tmp_path: Path, unsigned: Unsigned) -> Signatures:
    """Of the manifest that was built; the boot file's is not looked at before that."""
    made = Signatures(tmp_path / "signatures")
    made.folder.mkdir()
    text = unsigned.manifest_file.read_text()
    made.manifest.write_text(sshsig.sign(tmp_path / "key", text, NAMESPACE))
    made.uki.write_bytes(b"")
    return made


def code_of(unsigned: Unsigned, signatures: Signatures) -> str:
    """Under which code signatures are refused."""
    with pytest.raises(IsoError) as refused:
        need_fitting(unsigned, signatures, NO_TOOLS)
    assert refused.value.hint
    return refused.value.code


def test_a_signature_of_an_earlier_build_is_refused(
    unsigned: Unsigned, signatures: Signatures
) -> None:
    """ISO-01: it lies where the next build's is looked for."""
    unsigned.manifest_file.write_text("what was built later\n")
    assert code_of(unsigned, signatures) == "signature_unfit"


def test_a_signature_of_somebody_else_is_refused(
    unsigned: Unsigned, signatures: Signatures, tmp_path: Path
) -> None:
    """ISO-01: the image's own keys say who signs it."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")]
    subprocess.run(argv, check=True, timeout=60)
    text = unsigned.manifest_file.read_text()
    signatures.manifest.write_text(sshsig.sign(tmp_path / "other", text, NAMESPACE))
    assert code_of(unsigned, signatures) == "signature_unfit"


def test_an_image_that_bears_no_keys_is_not_signed(
    unsigned: Unsigned, signatures: Signatures
) -> None:
    (unsigned.medium / "ppn/keys/db.cer").unlink()
    assert code_of(unsigned, signatures) == "other_keys"


def test_both_signatures_are_needed(unsigned: Unsigned, signatures: Signatures) -> None:
    signatures.uki.unlink()
    assert code_of(unsigned, signatures) == "signature_missing"


def test_what_was_interrupted_is_not_signed(tmp_path: Path) -> None:
    """The manifest is written last."""
    with pytest.raises(IsoError, match="holds no whole image") as refused:
        Unsigned(tmp_path).manifest()
    assert refused.value.code == "not_built"
