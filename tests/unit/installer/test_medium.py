"""What the boot left, and which of two settings go first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ppn.errors import PpnError, Refusal
from ppn.installer import medium
from ppn.installer.medium import Boot, find_settings, read_boot, read_machine
from tests.unit.installer.samples import IMAGE, site
from tests.unit.installer.test_disks import entry
from tests.unit.installer.test_signature import keypair, signed

SECOND = entry(name="sdb", path="/dev/sdb", label="PPN-SITE", fstype="iso9660")


def test_the_boot_is_read(tmp_path: Path) -> None:
    (tmp_path / "boot.env").write_text("MEDIUM_DEVICE=/dev/sr0\n")
    boot = read_boot(tmp_path, f"quiet ppn.roothash={IMAGE} ppn.on_failure=poweroff")
    assert (boot.image, boot.medium, boot.root) == (IMAGE, "sr0", tmp_path / "root")
    assert boot.power_off


@pytest.mark.parametrize("words", ["quiet", "ppn.roothash=$(reboot)"])
def test_another_boot_is_refused(tmp_path: Path, words: str) -> None:
    (tmp_path / "boot.env").write_text("MEDIUM_DEVICE=sr0\n")
    with pytest.raises(PpnError, match="not started from ppn's image"):
        read_boot(tmp_path, words)


def test_a_machine_is_known_by_its_hardware(tmp_path: Path) -> None:
    dmi = tmp_path / "class/dmi/id"
    dmi.mkdir(parents=True)
    (dmi / "product_serial").write_text(" S-1\x07 \n")
    for name, hardware in (("eth0", True), ("lo", False)):
        (tmp_path / "class/net" / name).mkdir(parents=True)
        (tmp_path / "class/net" / name / "address").write_text("52:54:00:00:00:03\n")
        if hardware:
            (tmp_path / "class/net" / name / "device").mkdir()
    machine = read_machine(tmp_path)
    assert (machine.macs, machine.serial, machine.uuid) == (("52:54:00:00:00:03",), "S-1", "")


@pytest.fixture
def boot(tmp_path: Path) -> Boot:
    """A boot whose medium holds settings of the node `one`."""
    key = keypair(tmp_path, "operator")
    signers = tmp_path / "allowed_signers"
    signers.write_text(f"operator {key.with_suffix('.pub').read_text()}")
    for folder, name in (("medium/ppn", "one"), ("second", "two")):
        nodes = [{"name": name, "match": {"default": True}, "mesh_address": "10.8.0.9"}]
        content = json.dumps(site(nodes=nodes)).encode()
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "site.json").write_bytes(content)
        (tmp_path / folder / "site.json.sig").write_bytes(signed(key, content))
    return Boot(IMAGE, Path("/dev/null"), "sr0", tmp_path / "medium", signers)


@pytest.fixture(autouse=True)
def no_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second medium is a folder here: mounting one is for a machine's test."""

    @contextmanager
    def in_place(device: str, where: Path) -> Iterator[Path]:
        yield tmp_path / "second"

    monkeypatch.setattr(medium, "mounted", in_place)


def test_the_image_s_own_settings_are_taken(boot: Boot, tmp_path: Path) -> None:
    found = find_settings(boot, [entry()], tmp_path)
    assert (found.site.nodes[0].name, found.signer, found.passed_over) == ("one", "operator", "")


def test_a_second_medium_goes_first_and_is_no_target(boot: Boot, tmp_path: Path) -> None:
    found = find_settings(boot, [entry(), SECOND], tmp_path)
    assert found.site.nodes[0].name == "two"
    assert found.devices == {"sdb"}
    assert "image's medium" in found.passed_over


def test_an_untrusted_second_medium_is_not_passed_over(boot: Boot, tmp_path: Path) -> None:
    """Nobody's settings are taken silently in place of those that were put in."""
    (tmp_path / "second" / "site.json.sig").unlink()
    with pytest.raises(Refusal) as refused:
        find_settings(boot, [SECOND], tmp_path)
    assert refused.value.code == "settings_unsigned"


def test_two_second_media_are_one_too_many(boot: Boot, tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        find_settings(boot, [SECOND, {**SECOND, "name": "sdc", "path": "/dev/sdc"}], tmp_path)
    assert refused.value.code == "settings_ambiguous"


def test_without_settings_it_is_said_where_they_belong(boot: Boot, tmp_path: Path) -> None:
    (boot.folder / "ppn/site.json").unlink()
    with pytest.raises(Refusal) as refused:
        find_settings(boot, [entry()], tmp_path)
    assert refused.value.code == "settings_missing"
