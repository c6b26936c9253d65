"""`ppn iso write` onto real block devices, and `ppn iso config` into real volumes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pycdlib import PyCdlib

from ppn.errors import PpnError, Refusal
from ppn.installer import published, stick
from ppn.installer.medium import judged
from ppn.sshsig import allowed_line, sign
from tests.integration.installer.conftest import Attach
from tests.unit.installer.samples import site
from tests.unit.installer.test_signature import keypair

PPN = Path(sys.executable).with_name("ppn")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """What stands for an image: bytes that do not end where a block does."""
    file = tmp_path / "image.iso"
    file.write_bytes(bytes(range(256)) * 20_001)
    return file


def ppn(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`ppn iso` with words, which ends with this exit code."""
    argv = [str(PPN), "iso", *(str(word) for word in words)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done


def test_an_image_is_written_and_read_back(attach: Attach, image: Path) -> None:
    device = attach(16)
    words = ("write", image, device, "--fixed-disk", "--yes-erase", device.name, "--json")
    done = ppn(*words)
    size = image.stat().st_size
    assert json.loads(done.stdout)["bytes"] == size
    assert device.read_bytes()[:size] == image.read_bytes()
    assert "not verified" in done.stderr
    assert f"{device.name} 16 MiB" in done.stderr


@pytest.mark.parametrize(
    ("mib", "words", "code"),
    [
        (16, ["--yes-erase", "NAME"], "device_fixed"),
        (16, ["--fixed-disk"], "not_confirmed"),
        (16, ["--fixed-disk", "--yes-erase", "sdz"], "not_confirmed"),
        (4, ["--fixed-disk", "--yes-erase", "NAME"], "device_too_small"),
    ],
)
def test_what_was_not_asked_for_is_not_written_to(
    attach: Attach, image: Path, mib: int, words: list[str], code: str
) -> None:
    device = attach(mib)
    said = [device.name if word == "NAME" else word for word in words]
    done = ppn("write", image, device, *said, "--json", code=3)
    assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == code
    assert not any(device.read_bytes())


def test_a_read_only_device_is_refused(attach: Attach, image: Path) -> None:
    device = attach(16, "--read-only")
    done = ppn("write", image, device, "--fixed-disk", "--yes-erase", device.name, code=3)
    assert "device_read_only" in done.stderr


def test_a_mounted_device_is_refused(attach: Attach, image: Path, tmp_path: Path) -> None:
    device = attach(16)
    subprocess.run(["mke2fs", "-q", "-F", str(device)], check=True, timeout=60)
    where = tmp_path / "mounted"
    where.mkdir()
    subprocess.run(["mount", str(device), str(where)], check=True, timeout=60)
    try:
        done = ppn("write", image, device, "--fixed-disk", "--yes-erase", device.name, code=3)
    finally:
        subprocess.run(["umount", str(where)], check=True, timeout=60)
    assert f"in use: {where} (device_in_use)" in done.stderr


def test_a_device_that_took_the_name_of_another_is_not_written_to(attach: Attach) -> None:
    """While the name is typed, a stick may be pulled out and another device be plugged in."""
    device = attach(16)
    shown = stick.read_target(device)
    stick.check_unchanged(shown, device)
    other = replace(shown, disk=replace(shown.disk, serial="another"))
    with pytest.raises(Refusal) as refused:
        stick.check_unchanged(other, device)
    assert refused.value.code == "device_changed"


def test_a_device_that_the_kernel_knows_to_be_in_use_is_refused(
    attach: Attach, image: Path
) -> None:
    """As one of several disks of a file system is, of which lsblk names the first alone."""
    device = attach(16)
    holder = os.open(device, os.O_RDONLY | os.O_EXCL)
    try:
        done = ppn("write", image, device, "--fixed-disk", "--yes-erase", device.name, code=3)
    finally:
        os.close(holder)
    assert "device_in_use" in done.stderr
    assert not any(device.read_bytes())


@pytest.mark.parametrize("words", [["no.iso"], ["image.iso", "--signers", "no"]])
def test_a_file_that_is_not_there_is_named(
    attach: Attach, image: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Not the device is at fault, and not the signer."""
    monkeypatch.chdir(image.parent)
    done = ppn("write", *words, attach(16), code=2)
    assert f"'{words[-1]}' does not exist" in " ".join(done.stderr.split())


def test_a_file_is_no_device(image: Path) -> None:
    assert "device_unknown" in ppn("write", image, image, "--yes-erase", "x", code=3).stderr


def test_a_stick_that_holds_something_else_is_found_out(attach: Attach, image: Path) -> None:
    """What was read back is what the device holds, not what this system remembers."""
    device = attach(16)
    written = stick.write(image, device, lambda count: None)
    size = image.stat().st_size
    stick.compare(written, stick.read_back(device, size, lambda count: None), device)
    with device.open("r+b") as opened:
        opened.seek(size - 1)
        opened.write(b"!")
    with pytest.raises(PpnError) as refused:
        stick.compare(written, stick.read_back(device, size, lambda count: None), device)
    assert refused.value.code == "device_lies"


def test_settings_are_signed_for_the_installer(tmp_path: Path) -> None:
    """ISO-01: what the command signs is what the installer takes, from files and from a volume."""
    key = keypair(tmp_path, "operator")
    signers = tmp_path / "allowed_signers"
    public = key.with_suffix(".pub").read_text()
    signers.write_text(allowed_line("operator", public, ("ppn-site",)))
    plain = tmp_path / "plain.json"
    # As an editor of another system ends lines: signed and written byte for byte.
    plain.write_bytes(json.dumps(site(), indent=1).encode().replace(b"\n", b"\r\n"))
    medium = tmp_path / "site.iso"
    out = tmp_path / "out"
    done = ppn("config", plain, "--key", key, "--output", out, "--medium", medium, "--json")
    assert [node["name"] for node in json.loads(done.stdout)["nodes"]] == ["laptop", "spare"]
    settings, signer = judged(out, signers)
    assert (settings.nodes[0].name, signer) == ("laptop", "operator")
    assert (out / "site.json").read_bytes() == plain.read_bytes()
    assert medium.read_bytes()[0x8028:0x8030] == b"PPN-SITE"


def test_settings_of_one_node_come_from_options(tmp_path: Path) -> None:
    key = keypair(tmp_path, "operator")
    authority = keypair(tmp_path, "ca").with_suffix(".pub")
    done = ppn(
        *("config", "--key", key, "--output", tmp_path, "--node", "n", "--ssh-ca", authority),
        *("--mac", "52:54:00:00:00:03"),
    )
    assert "52:54:00:00:00:03" in done.stdout
    content = json.loads((tmp_path / "site.json").read_text())
    assert content["nodes"][0]["match"] == {"macs": ["52:54:00:00:00:03"]}


@pytest.mark.parametrize("content", [json.dumps(site(nodes=[])).encode(), b"\xff\xfe{}"])
def test_what_the_installer_would_refuse_is_not_signed(tmp_path: Path, content: bytes) -> None:
    key = keypair(tmp_path, "operator")
    plain = tmp_path / "plain.json"
    plain.write_bytes(content)
    done = ppn("config", plain, "--key", key, "--output", tmp_path / "out", code=3)
    assert "settings_malformed" in done.stderr
    assert not (tmp_path / "out").exists()


def small_image(folder: Path, key: Path) -> Path:
    """An ISO with a signed manifest and one file that it names."""
    content = b"all of the root"
    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = json.dumps({"files": {"ppn/root.squashfs": entry}}) + "\n"
    files = {
        "root.squashfs": content,
        "manifest.json": manifest.encode(),
        "manifest.json.sig": sign(key, manifest, published.NAMESPACE).encode(),
    }
    made = PyCdlib()
    made.new(interchange_level=3, rock_ridge="1.09")
    made.add_directory("/PPN", rr_name="ppn")
    for number, (name, text) in enumerate(files.items()):
        made.add_fp(io.BytesIO(text), len(text), f"/PPN/F{number}.;1", rr_name=name)
    file = folder / "small.iso"
    made.write(str(file))
    made.close()
    return file


def test_only_a_trusted_image_is_written(attach: Attach, tmp_path: Path) -> None:
    """ISO-01: with signers named, an altered image or a stranger's is not put onto a stick."""
    key, other = keypair(tmp_path, "operator"), keypair(tmp_path, "other")
    image = small_image(tmp_path, key)
    device = attach(16)
    words = ("write", image, device, "--fixed-disk", "--yes-erase", device.name, "--signers")
    for name, signer in (("mine", key), ("theirs", other)):
        public = signer.with_suffix(".pub").read_text()
        (tmp_path / name).write_text(allowed_line(name, public, (published.NAMESPACE,)))
    assert "image_signer_unknown" in ppn(*words, tmp_path / "theirs", code=3).stderr
    content = image.read_bytes()
    for was, code in (
        (b"all of the root", "image_damaged"),
        (b"squashfs", "image_content_altered"),
    ):
        image.write_bytes(content.replace(was, was.upper()))
        assert code in ppn(*words, tmp_path / "mine", code=3).stderr
    image.write_bytes(content[:40000])
    assert "image_damaged" in ppn(*words, tmp_path / "mine", code=3).stderr
    assert not any(device.read_bytes())
    image.write_bytes(content)
    assert "signed by mine" in ppn(*words, tmp_path / "mine").stderr
