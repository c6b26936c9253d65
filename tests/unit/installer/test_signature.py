"""Settings that no trusted operator signed are refused, each kind with a code of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ppn.errors import Refusal
from ppn.installer.signature import NAMESPACE, verify

CONTENT = b'{"version": 1}\n'


def keypair(folder: Path, name: str) -> Path:
    """A new key of ssh-keygen's."""
    key = folder / name
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key)]
    subprocess.run(words, check=True, timeout=30)
    return key


def signed(key: Path, content: bytes = CONTENT, namespace: str = NAMESPACE) -> bytes:
    """What ssh-keygen makes of content."""
    words = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", namespace]
    return subprocess.run(words, input=content, capture_output=True, check=True, timeout=30).stdout


@pytest.fixture
def operator(tmp_path: Path) -> Path:
    return keypair(tmp_path, "operator")


@pytest.fixture
def signers(tmp_path: Path, operator: Path) -> Path:
    public = operator.with_suffix(".pub").read_text()
    file = tmp_path / "allowed_signers"
    file.write_text(f'operator@example.org namespaces="{NAMESPACE}" {public}')
    return file


def test_the_operators_signature_is_taken(operator: Path, signers: Path) -> None:
    """ISO-01: the settings are taken as the operator wrote them."""
    assert verify(CONTENT, signed(operator), signers) == "operator@example.org"


@pytest.mark.fault(
    "site settings unsigned, altered, of another signer or for another purpose",
    "the installer refuses, each with a code of its own; nothing is written",
)
def test_every_other_signature_is_refused(tmp_path: Path, operator: Path, signers: Path) -> None:
    """ISO-01: a distinct code for each."""
    other = keypair(tmp_path, "other")
    good = signed(operator)
    cases = {
        "settings_unsigned": (CONTENT, None),
        "settings_signature_damaged": (CONTENT, good[:60]),
        "settings_namespace_wrong": (CONTENT, signed(operator, namespace="ppn-iso")),
        "settings_signer_unknown": (CONTENT, signed(other)),
        "settings_altered": (CONTENT.replace(b"1", b"2"), good),
        "settings_malformed": (b"\xff", good),
    }
    for code, (content, signature) in cases.items():
        with pytest.raises(Refusal) as refused:
            verify(content, signature, signers)
        assert refused.value.code == code


def test_a_flipped_bit_in_the_signature_is_refused(operator: Path, signers: Path) -> None:
    lines = signed(operator).decode().splitlines()
    text = lines[3]
    lines[3] = text[:10] + ("A" if text[10] != "A" else "B") + text[11:]
    with pytest.raises(Refusal):
        verify(CONTENT, "\n".join(lines).encode(), signers)


def test_without_signers_nothing_is_trusted(tmp_path: Path, operator: Path) -> None:
    with pytest.raises(Refusal) as refused:
        verify(CONTENT, signed(operator), tmp_path / "missing")
    assert refused.value.code == "trust_missing"
