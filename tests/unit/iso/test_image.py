"""The pure parts of an image: what is said about it, and the commands that make it."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iso import esp, medium, pe, provenance, sbom, squash, uki, verity
from iso.errors import IsoError
from iso.lock import Lock
from iso.manifest import UNLISTED, Entry, Manifest, parse, render
from iso.rebuild import need_same_source
from iso.source import CHECKOUT, Source
from iso.stage import at_least, components, superseded
from iso.unsigned import image_name
from ppn.errors import Refusal

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
ENTRIES = st.builds(Entry, size=st.integers(0, 2**40), sha256=HEX)
MANIFESTS = st.builds(
    Manifest,
    version=st.text(),
    commit=HEX,
    source_date_epoch=st.integers(0, 2**32),
    lock_sha256=HEX,
    root_hash=HEX,
    test_keys=st.booleans(),
    uki=ENTRIES,
    files=st.dictionaries(st.text(min_size=1), ENTRIES),
)
SOURCE = Source("0.1.0", "c0ffee", 1_790_000_000)
SAID = f"VERITY header information for root.verity\nSalt: 00\nRoot hash:      \t{'ab' * 32}\n"


@given(MANIFESTS)
def test_a_manifest_is_read_as_it_was_written(manifest: Manifest) -> None:
    assert parse(render(manifest)) == manifest
    assert render(manifest).isascii()


@given(MANIFESTS, st.data())
def test_a_manifest_does_not_depend_on_the_order_of_its_files(
    manifest: Manifest, data: st.DataObject
) -> None:
    """ISO-02."""
    order = data.draw(st.permutations(list(manifest.files.items())))
    assert render(manifest) == render(Manifest(**{**vars(manifest), "files": dict(order)}))


@given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(lambda it: json.dumps(it)))
def test_what_is_no_manifest_is_refused(content: bytes | str) -> None:
    raw = content.encode() if isinstance(content, str) else content
    with pytest.raises(IsoError) as refused:
        parse(raw)
    assert refused.value.code == "manifest_malformed"


@given(HEX, st.integers(1, 2**40), HEX)
def test_the_command_line_says_what_the_initial_ram_disk_needs(
    root_hash: str, blocks: int, salt: str
) -> None:
    wanted = verity.Verity(root_hash, blocks, salt)
    line = uki.command_line(wanted)
    assert verity.read(line) == wanted
    assert "systemd.unit=ppn-installer.target" in line.split()
    assert verity.read(line.replace("ppn.verity=sha256", "ppn.verity=md5")) is None
    assert verity.read(line.replace(root_hash, root_hash[1:])) is None


@given(st.text())
def test_any_other_command_line_says_nothing(line: str) -> None:
    assert verity.read(line) is None


def test_a_hash_tree_is_named_by_its_maker() -> None:
    made = verity.made(SAID, 8192, "00")
    assert made == verity.Verity("ab" * 32, 2, verity.salt_of("00"))
    with pytest.raises(IsoError, match="named no root hash"):
        verity.made("nothing", 8192, "00")
    with pytest.raises(IsoError, match="no multiple"):
        verity.made(SAID, 8193, "00")


def test_everything_that_could_be_random_follows_from_the_lock() -> None:
    """ISO-02: other locks give other salts and numbers, the same lock the same ones."""
    for made in (verity.salt_of, verity.uuid_of, esp.serial_of, medium.disk_guid):
        assert made("one") == made("one") != made("other")
    assert "1790000000" in squash.command("/a", "/b", SOURCE.epoch)


@given(st.integers(0, 31 << 20))
def test_the_boot_file_fits_its_file_system(size: int) -> None:
    whole = esp.size_for(size)
    assert size + esp.OVERHEAD <= whole < esp.MOST_BYTES
    assert whole % 1024 == 0
    # Two tables of two bytes for each cluster, and what stands before and after them.
    assert whole - size >= 2 * 2 * (whole // 2048) + (100 << 10)


def test_a_boot_file_that_firmware_would_not_find_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        esp.size_for(32 << 20)
    assert refused.value.code == "boot_image_too_large"
    assert (refused.value.wanted or 0) > (refused.value.free or 0)


def test_files_lie_on_the_medium_in_one_order() -> None:
    """ISO-02: whatever order the paths come in, each has a weight of its own."""
    given = {"folder": "/f", "esp": "/e", "output": "/o", "digest": "00", "epoch": 1}
    one = medium.command(**given, paths=("ppn/b", "ppn/a"))  # type: ignore[arg-type]
    other = medium.command(**given, paths=("ppn/a", "ppn/b"))  # type: ignore[arg-type]
    assert one == other
    assert one[one.index("/ppn/a") - 1] == "2" and one[one.index("/ppn/b") - 1] == "1"


def test_the_bill_of_materials_has_every_package_of_the_lock() -> None:
    parts = components(Lock.read())
    bill = sbom.document(SOURCE, "00" * 32, parts)
    ids = [package["SPDXID"] for package in bill["packages"]]
    assert len(ids) == len(set(ids)) == len(parts) + 1
    assert bill["spdxVersion"] == "SPDX-2.3"
    assert bill == sbom.document(SOURCE, "00" * 32, parts[::-1])
    related = {one["relatedSpdxElement"] for one in bill["relationships"]}
    assert related == set(ids)
    purls = [
        reference["referenceLocator"]
        for package in bill["packages"][1:]
        for reference in package["externalRefs"]
    ]
    assert any(purl.startswith("pkg:deb/debian/systemd@") for purl in purls)
    assert any(purl.startswith("pkg:pypi/cryptography@") for purl in purls)


def test_provenance_names_lock_commit_and_what_was_made() -> None:
    made = {"root.squashfs": Entry(1, "aa"), "ppn.efi": Entry(2, "bb")}
    found = provenance.statement(SOURCE, "cc", made, {"ppn/keys/db.cer": Entry(3, "dd")})
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    assert [one["name"] for one in found["subject"]] == ["ppn.efi", "root.squashfs"]
    build = found["predicate"]["buildDefinition"]
    assert {"sha256": "cc"} in [one["digest"] for one in build["resolvedDependencies"]]
    assert build["externalParameters"]["commit"] == "c0ffee"
    assert found["predicate"]["runDetails"]["builder"]["id"]


def test_an_image_with_test_keys_is_called_so() -> None:
    entry = Entry(1, "00")
    manifest = Manifest("0.1.0", "c0ffee", 1, "00", "00", False, entry, {})
    assert image_name(manifest, signed=True) == "ppn-0.1.0.iso"
    tested = Manifest(**{**vars(manifest), "test_keys": True})
    assert image_name(tested, signed=True) == "ppn-TEST-KEYS-0.1.0.iso"
    assert image_name(tested, signed=False) == "ppn-TEST-KEYS-0.1.0-unsigned.iso"


def test_no_file_is_older_than_its_source() -> None:
    assert at_least(SOURCE, SOURCE.epoch - 1) == SOURCE
    assert at_least(SOURCE, SOURCE.epoch + 1).epoch == SOURCE.epoch + 1


def test_an_image_is_built_again_from_its_own_source_alone() -> None:
    manifest = Manifest("0.1.0", "c0ffee", 1, "11", "00", False, Entry(1, "00"), {})
    need_same_source(manifest, SOURCE, "11")
    for source, lock in ((Source("0.1.0", "decade", 1), "11"), (SOURCE, "22")):
        with pytest.raises(IsoError) as refused:
            need_same_source(manifest, source, lock)
        assert refused.value.code == "checkout_differs"
        assert "git checkout c0ffee" in refused.value.hint


@given(st.binary(max_size=400))
def test_what_is_no_program_is_refused(content: bytes) -> None:
    for read in (pe.without_checksum, lambda it: pe.section(it, ".cmdline")):
        with pytest.raises(ValueError):
            read(content)


def test_a_section_is_found_and_the_check_sum_taken_out() -> None:
    start, options = 64, 128
    table = start + pe.HEADER + options
    place = table + pe.SECTION.size
    program = bytearray(place + 5)
    program[:2] = b"MZ"
    struct.pack_into("<I", program, 60, start)
    program[start : start + 4] = b"PE\0\0"
    struct.pack_into("<H", program, start + 6, 1)
    struct.pack_into("<H", program, start + 20, options)
    struct.pack_into("<8sIIII", program, table, b".cmdline", 5, 0, 8, place)
    program[place:] = b"words"
    struct.pack_into("<I", program, start + pe.HEADER + pe.CHECKSUM, 4711)
    assert pe.section(bytes(program), ".cmdline") == b"words"
    with pytest.raises(ValueError, match="no section"):
        pe.section(bytes(program), ".linux")
    plain = pe.without_checksum(bytes(program))
    assert plain != program and pe.without_checksum(plain) == plain


def test_signatures_and_settings_alone_are_in_no_list() -> None:
    """Site settings are signed for themselves, so that one image serves every pool."""
    assert {path.rsplit("/", 1)[1] for path in UNLISTED} == {
        "manifest.json",
        "manifest.json.sig",
        "site.json",
        "site.json.sig",
    }


def test_the_newest_packed_roots_are_kept(tmp_path: Path) -> None:
    paths = [tmp_path / f"packed-{number}.squashfs" for number in range(6)]
    for number, path in enumerate(paths):
        path.touch()
        os.utime(path, (number, number))
    assert superseded(reversed(paths)) == [paths[1], paths[0]]


def test_every_code_of_a_wrong_image_is_documented() -> None:
    text = (CHECKOUT / "docs/iso.md").read_text()
    source = "".join((CHECKOUT / "iso" / name).read_text() for name in ("verify.py", "reading.py"))
    codes = set(re.findall(r'"((?:iso|manifest|file|boot_file|root)_[a-z_]+)"', source))
    assert len(codes) > 15
    assert {code for code in codes if f"`{code}`" not in text} == set()
