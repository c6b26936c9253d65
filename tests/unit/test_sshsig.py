"""What is said of a document's signature, with the real ssh-keygen."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ppn import sshsig
from ppn.sshsig import SignatureWrong, Wrong

TEXT = "what is signed\n"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A signer's private key."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")]
    subprocess.run(argv, check=True, timeout=60)
    return tmp_path / "key"


def signers(key: Path, *namespaces: str) -> Path:
    """A file by which the key's owner may sign for some purposes."""
    path = key.with_name("allowed_signers")
    public = key.with_suffix(".pub").read_text()
    path.write_text(sshsig.allowed_line("ppn", public, namespaces))
    return path


def wrong(content: str, signature: str, trusted: Path, namespace: str = "one") -> Wrong:
    """In which way a signature is wrong."""
    with pytest.raises(SignatureWrong) as found:
        sshsig.judge(content, signature.encode(), trusted, namespace)
    return found.value.wrong


def test_a_signature_is_for_one_text_one_purpose_and_by_one_who_may(key: Path) -> None:
    """ISO-01: each way of being wrong has its name, so that nobody looks for the wrong fault."""
    signature = sshsig.sign(key, TEXT, "one")
    trusted = signers(key, "one", "other")
    assert sshsig.judge(TEXT, signature.encode(), trusted, "one") == "ppn"
    assert wrong("what was altered\n", signature, trusted) is Wrong.ALTERED
    assert wrong(TEXT, signature, trusted, "other") is Wrong.NAMESPACE
    assert wrong(TEXT, "no signature", trusted) is Wrong.DAMAGED
    # Known here, and not for this.
    assert wrong(TEXT, signature, signers(key, "other")) is Wrong.UNKNOWN_SIGNER
    assert wrong("what was altered\n", signature, signers(key, "other")) is Wrong.ALTERED
    trusted.write_text("")
    assert wrong(TEXT, signature, trusted) is Wrong.UNKNOWN_SIGNER
