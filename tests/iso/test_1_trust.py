"""The chain of trust, from the firmware's keys to the last block of the root file system."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from uuid import UUID

import pytest

from lab.firmware import Bus, Drive, trusting
from lab.medium import Medium
from tests.iso import medium as tampered
from tests.iso.machine import booted

STARTING = "ppn: starting from the signed image"
WHOLE = "ppn: the root is whole"
DENIED = "Access Denied"
# To the end of its line, which is read while it is written.
FAILED = r"ppn: FAILED: .*\n"
SECONDS = 1500
X509_CERTIFICATE = UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")


@pytest.mark.fault(
    "the image's boot file is altered, or its signature is taken off",
    "the firmware refuses it with Access Denied, and none of it runs",
)
def test_firmware_refuses_an_altered_image(medium: Medium, enforcing: Path, tmp_path: Path) -> None:
    """ISO-01: with Secure Boot on; it goes on from one to the other, and starts neither."""
    images = [tampered.copy(medium.image, tmp_path / name) for name in ("bit.iso", "bare.iso")]
    tampered.flip_bit(images[0], tampered.root_hash_at(images[0]))
    tampered.remove_signature(images[1])
    with booted(tmp_path, enforcing, [Drive(image, Bus.CD) for image in images]) as machine:
        machine.wait_for(rf"{DENIED}[\s\S]*{DENIED}", STARTING, seconds=SECONDS)
        assert STARTING not in machine.text(), machine.tail()


@pytest.mark.fault(
    "the image is booted where other people's keys are enrolled",
    "the firmware refuses it with Access Denied",
)
def test_firmware_refuses_other_peoples_images(medium: Medium, tmp_path: Path) -> None:
    """ISO-01: a sound signature of somebody whom the machine's owner does not know."""
    theirs = {name: signature_list(certificate(tmp_path, name)) for name in ("PK", "KEK", "db")}
    variables = tmp_path / "theirs.fd"
    variables.write_bytes(trusting(theirs, enforced=True))
    with booted(tmp_path, variables, [Drive(medium.image, Bus.CD)]) as machine:
        assert machine.wait_for(DENIED, STARTING, seconds=SECONDS) == DENIED


@pytest.mark.fault(
    "one bit of the image's root file system is changed",
    "the image says that its medium is damaged, and starts nothing of it",
)
def test_damaged_root_is_not_started(medium: Medium, enforcing: Path, tmp_path: Path) -> None:
    """ISO-01: what the firmware does not read is judged by dm-verity, all of it, before use."""
    image = tampered.copy(medium.image, tmp_path / "damaged.iso")
    tampered.flip_in_root(image)
    with booted(tmp_path, enforcing, [Drive(image, Bus.CD)]) as machine:
        said = machine.wait_for(FAILED, WHOLE, seconds=SECONDS)
        assert "damaged" in said, said
        machine.wait_for("nothing was written to any disk", seconds=SECONDS)
        assert WHOLE not in machine.text()


def certificate(folder: Path, name: str) -> bytes:
    """A certificate of somebody else, in DER."""
    path = folder / f"{name}.der"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-outform", "DER"]
    words += ["-subj", f"/CN=somebody else's {name}", "-keyout", f"{path}.key", "-out", str(path)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    return path.read_bytes()


def signature_list(der: bytes) -> bytes:
    """An EFI signature list with one certificate."""
    one = bytes(16) + der
    head = struct.pack("<16sIII", X509_CERTIFICATE.bytes_le, 28 + len(one), 0, len(one))
    return head + one
