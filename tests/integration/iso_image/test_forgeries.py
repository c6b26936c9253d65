"""Whatever is changed on an image is found, and each kind of change under a name of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pycdlib import PyCdlib

from iso import pe, uki, verity
from iso.enter import run_in
from iso.errors import IsoError
from iso.keys import SITE_NAMESPACE, Keys, make
from iso.manifest import NAMESPACE, PATH, SIGNATURE_PATH, document, entry_of, render
from iso.reading import take_apart
from iso.signing import Signatures, attach, sign
from iso.times import Times
from iso.unsigned import Unsigned, assemble
from iso.verify import Verified, take_boot_file, verify
from ppn import sshsig
from tests.integration.iso_image.conftest import Made

BLOCK = 2048


def judged(made: Made, image: Path, keys: Keys | None = None) -> Verified:
    """What `ppn iso verify` makes of an image."""
    ring = keys or made.keys
    return verify(
        image,
        signers=ring.allowed_signers,
        certificate=ring.certificate("db"),
        tools=made.tools,
        times=Times(),
    )


def code_of(made: Made, image: Path, keys: Keys | None = None) -> str:
    """The code under which an image is refused."""
    with pytest.raises(IsoError) as refused:
        judged(made, image, keys)
    assert refused.value.hint
    return refused.value.code


def places(image: Path) -> dict[str, int]:
    """Where each file of an ISO begins, in bytes."""
    iso = PyCdlib()
    iso.open(str(image))
    found = {}
    for parent, _, names in iso.walk(rr_path="/"):
        for name in names:
            path = f"{parent.rstrip('/')}/{name}"
            found[path[1:]] = iso.get_record(rr_path=path).extent_location() * BLOCK
    iso.close()
    return found


def flipped(image: Path, target: Path, place: int) -> Path:
    """A copy of an image in which one bit is another one."""
    shutil.copyfile(image, target)
    with target.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    return target


def resigned(made: Made, folder: Path, namespace: str = NAMESPACE) -> Path:
    """A signature over the manifest of a folder's parts, by the right key."""
    manifest = Unsigned(folder).manifest_file
    text = sshsig.sign(made.keys.signing_key, manifest.read_text(), namespace)
    (folder / "signature").write_text(text)
    return folder / "signature"


def copied(made: Made, folder: Path) -> Unsigned:
    """The parts of the image, to be changed."""
    shutil.copytree(made.unsigned.folder, folder)
    return Unsigned(folder)


def signed_uki(made: Made, work: Path) -> Path:
    """The boot file with its signature, as it is in the image."""
    work.mkdir()
    take_apart(made.image, work)
    take_boot_file(work, made.tools)
    return work / "signed"


def test_an_image_as_it_was_published_is_believed(made: Made) -> None:
    """ISO-01: signature, files, boot file and root are judged, and all is right."""
    found = judged(made, made.image)
    assert found.signer == "ppn-test"
    assert found.manifest == made.unsigned.manifest()
    assert found.manifest.test_keys
    assert "TEST-KEYS" in made.image.name


@pytest.mark.fault("one bit of any file of the image is flipped", "`verify` refuses it")
def test_one_flipped_bit_of_any_file_is_found(made: Made, tmp_path: Path) -> None:
    """ISO-01: every file that the manifest names, one after the other."""
    begins = places(made.image)
    for path in made.unsigned.manifest().files:
        image = flipped(made.image, tmp_path / "image", begins[path])
        assert code_of(made, image) == "file_altered", path


@pytest.mark.parametrize(
    ("path", "offset", "code"),
    [
        (PATH, 40, "manifest_altered"),
        # In its frame.
        (SIGNATURE_PATH, 3, "manifest_signature_damaged"),
    ],
)
def test_one_flipped_bit_of_manifest_or_signature_is_found(
    made: Made, tmp_path: Path, path: str, offset: int, code: str
) -> None:
    place = places(made.image)[path] + offset
    assert code_of(made, flipped(made.image, tmp_path / "image", place)) == code


def test_another_signature_of_the_right_form_is_found(made: Made, tmp_path: Path) -> None:
    """A letter becomes its neighbour, so that the file still reads well."""
    content = made.signatures.manifest.read_bytes()
    proper = content.index(b"-----END")
    letter = max(content.rfind(bytes([one]), 0, proper) for one in b"BCDEFGHIJKLMNOPQRSTUVWX")
    place = places(made.image)[SIGNATURE_PATH] + letter
    assert code_of(made, flipped(made.image, tmp_path / "image", place)) == "manifest_altered"


def test_one_flipped_bit_of_the_boot_file_is_found(made: Made, tmp_path: Path) -> None:
    esp = made.image.read_bytes().find(made.unsigned.uki.read_bytes()[4096:8192])
    assert esp > 0
    for offset in (0, 1 << 20):
        image = flipped(made.image, tmp_path / "image", esp + offset)
        assert code_of(made, image) == "boot_file_altered"


def test_other_peoples_keys_are_not_believed(made: Made, tmp_path: Path) -> None:
    """ISO-01: neither their manifest nor their boot file."""
    others = make(tmp_path / "others", made.tools, test=True, passphrase=None)
    assert code_of(made, made.image, others) == "manifest_signer_unknown"
    mixed = make(tmp_path / "mixed", made.tools, test=True, passphrase=None)
    shutil.copyfile(made.keys.allowed_signers, mixed.allowed_signers)
    assert code_of(made, made.image, mixed) == "boot_file_signer_wrong"


def test_a_signature_for_settings_is_none_for_a_manifest(made: Made, tmp_path: Path) -> None:
    parts = copied(made, tmp_path / "parts")
    signature = resigned(made, parts.folder, SITE_NAMESPACE)
    attach(
        parts,
        _with(made.signatures, tmp_path / "signatures", signature),
        made.tools,
        tmp_path,
        Times(),
    )
    assert code_of(made, tmp_path / made.image.name) == "manifest_namespace_wrong"


def _with(signatures: Signatures, folder: Path, manifest: Path) -> Signatures:
    shutil.copytree(signatures.folder, folder)
    shutil.copyfile(manifest, folder / "manifest.json.sig")
    return Signatures(folder)


def test_an_unsigned_image_is_not_believed(made: Made, tmp_path: Path) -> None:
    """ISO-01: not without the manifest's signature, and not without that of the boot file."""
    image = tmp_path / "image"
    assemble(made.tools, made.unsigned, uki=made.unsigned.uki, signature=None, output=image)
    assert code_of(made, image) == "manifest_unsigned"
    signature = made.signatures.manifest
    assemble(made.tools, made.unsigned, uki=made.unsigned.uki, signature=signature, output=image)
    assert code_of(made, image) == "boot_file_unsigned"


def add_file(parts: Unsigned) -> None:
    (parts.medium / "ppn/extra").write_text("not of ours\n")


def remove_file(parts: Unsigned) -> None:
    (parts.medium / "ppn/sbom.spdx.json").unlink()


@pytest.mark.parametrize(
    ("change", "code"), [(add_file, "file_unnamed"), (remove_file, "file_missing")]
)
def test_the_image_holds_what_the_manifest_names(
    made: Made, tmp_path: Path, change: Callable[[Unsigned], None], code: str
) -> None:
    parts = copied(made, tmp_path / "parts")
    change(parts)
    attach(parts, made.signatures, made.tools, tmp_path, Times())
    assert code_of(made, tmp_path / made.image.name) == code


def test_a_manifest_that_cannot_be_read_is_refused(made: Made, tmp_path: Path) -> None:
    parts = copied(made, tmp_path / "parts")
    fields = json.loads(parts.manifest_file.read_bytes())
    parts.manifest_file.write_bytes(document({**fields, "files": ["none"]}))
    signature = resigned(made, parts.folder)
    # Assembled by hand: our own tool reads the manifest too, and refuses.
    parts.manifest_file.rename(tmp_path / "wrong")
    shutil.copyfile(made.unsigned.manifest_file, parts.manifest_file)
    image = tmp_path / "image"
    uki_file = signed_uki(made, tmp_path / "opened")
    _assemble_with(made, parts, uki_file, signature, image, tmp_path / "wrong")
    assert code_of(made, image) == "manifest_malformed"


def _assemble_with(
    made: Made, parts: Unsigned, uki_file: Path, signature: Path, image: Path, manifest: Path
) -> None:
    class Other(Unsigned):
        def files(self) -> dict[str, Path]:
            return {**super().files(), PATH: manifest}

    assemble(made.tools, Other(parts.folder), uki=uki_file, signature=signature, output=image)


def test_the_boot_file_of_another_build_is_found(made: Made, tmp_path: Path) -> None:
    """A boot file that the right key signed, and that is not the one of this image."""
    parts = copied(made, tmp_path / "parts")
    other_boot_file(made, parts, made.unsigned.manifest().root_hash[::-1])
    again = sign(parts, made.keys, made.tools, tmp_path / "signatures", None)
    shutil.copyfile(made.signatures.manifest, again.manifest)
    attach(parts, again, made.tools, tmp_path, Times())
    assert code_of(made, tmp_path / made.image.name) == "boot_file_altered"


def other_boot_file(made: Made, parts: Unsigned, root_hash: str) -> None:
    """Give an image a boot file that wants another root."""
    (text,) = [word for word in _words(parts) if word.startswith("ppn.verity=")]
    _, blocks, salt = text.removeprefix("ppn.verity=").split(":")
    wanted = verity.Verity(root_hash, int(blocks), salt)
    old = uki.command_line(_verity(parts)).encode()
    new = uki.command_line(wanted).encode()
    content = parts.uki.read_bytes()
    assert content.count(old) == 1
    parts.uki.write_bytes(content.replace(old, new))


def _words(parts: Unsigned) -> list[str]:
    return pe.section(parts.uki.read_bytes(), ".cmdline").decode().rstrip("\0").split()


def _verity(parts: Unsigned) -> verity.Verity:
    found = verity.read(" ".join(_words(parts)))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("manifest_too", "code"), [(False, "root_hash_mismatch"), (True, "root_altered")]
)
def test_boot_file_manifest_and_root_must_agree(
    made: Made, tmp_path: Path, manifest_too: bool, code: str
) -> None:
    """Even the right keys cannot make an image believed whose parts do not belong together."""
    parts = copied(made, tmp_path / "parts")
    wrong = made.unsigned.manifest().root_hash[::-1]
    other_boot_file(made, parts, wrong)
    manifest = replace(parts.manifest(), uki=entry_of(parts.uki))
    if manifest_too:
        manifest = replace(manifest, root_hash=wrong)
    parts.manifest_file.write_bytes(render(manifest))
    again = sign(parts, made.keys, made.tools, tmp_path / "signatures", None)
    image, _ = attach(parts, again, made.tools, tmp_path, Times())
    assert code_of(made, image) == code


@pytest.mark.fault(
    "the image's start code or partition table leads elsewhere", "`verify` refuses it"
)
@pytest.mark.parametrize(
    ("what", "place"),
    [
        ("start code of the legacy BIOS", 0),
        ("beginning of the boot partition", 2 * 512 + 128 + 32),
        ("name of the volume", 16 * BLOCK + 40),
        ("what no file and no table takes", 15 * BLOCK),
    ],
)
def test_what_stands_around_the_files_is_judged_too(
    made: Made, tmp_path: Path, what: str, place: int
) -> None:
    """ISO-01: firmware follows it before any file, and it is in no list of files."""
    image = flipped(made.image, tmp_path / "image", place)
    assert code_of(made, image) == "iso_frame_altered", what


@pytest.mark.parametrize("hidden", [False, True])
def test_another_file_for_firmware_is_found(made: Made, tmp_path: Path, hidden: bool) -> None:
    """Firmware would read it, hidden or not, and it is in no list of files."""
    opened = take_apart(made.image, tmp_path)
    before = opened.esp.read_bytes()
    (tmp_path / "extra").write_text("not of ours\n")
    argv = ["mcopy", "-i", "/mnt/w/esp", "/mnt/w/extra", "::/EFI/BOOT/EXTRA.EFI"]
    run_in(made.tools, argv, binds={tmp_path: "/mnt/w"}, timeout=60)
    if hidden:
        argv = ["mattrib", "-i", "/mnt/w/esp", "+h", "::/EFI/BOOT/EXTRA.EFI"]
        run_in(made.tools, argv, binds={tmp_path: "/mnt/w"}, timeout=60)
    content = made.image.read_bytes()
    place = content.index(before)
    image = tmp_path / "image"
    after = opened.esp.read_bytes()
    image.write_bytes(content[:place] + after + content[place + len(after) :])
    assert code_of(made, image) == "boot_file_unnamed"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda content: content[: len(content) // 2], "iso_truncated"),
        (lambda content: content[:-1], "iso_truncated"),
        (lambda content: content + bytes(512), "iso_trailing_data"),
        (lambda content: b"", "iso_unreadable"),
        (lambda content: bytes(len(content)), "iso_unreadable"),
        (lambda content: content[:32768] + bytes(65536) + content[98304:], "iso_unreadable"),
    ],
)
def test_a_file_that_is_no_whole_image_is_refused(
    made: Made, tmp_path: Path, change: Callable[[bytes], bytes], code: str
) -> None:
    (tmp_path / "image").write_bytes(change(made.image.read_bytes()))
    assert code_of(made, tmp_path / "image") == code


STOCK = r"""set -e
cd /mnt/work
xorriso -osirrox on -indev image.iso -extract_boot_images boot -extract / medium
ssh-keygen -Y verify -n ppn-iso -I ppn-test -f allowed_signers -s medium/ppn/manifest.json.sig \
    < medium/ppn/manifest.json
python3 -c 'import json
for path, entry in json.load(open("medium/ppn/manifest.json"))["files"].items():
    print(entry["sha256"] + "  medium/" + path)' | sha256sum --check
veritysetup verify medium/ppn/root.squashfs medium/ppn/root.verity "$1"
mcopy -i boot/eltorito_img1_uefi.img ::/EFI/BOOT/BOOTX64.EFI . && sbverify --cert db.crt BOOTX64.EFI
"""


def test_stock_tools_come_to_the_same_verdict(made: Made, tmp_path: Path) -> None:
    """ISO-01: what docs/iso.md tells to type, without any program of ours."""
    shutil.copyfile(made.image, tmp_path / "image.iso")
    for path in (made.keys.allowed_signers, made.keys.certificate("db")):
        shutil.copyfile(path, tmp_path / path.name)
    root_hash = made.unsigned.manifest().root_hash
    argv = ["sh", "-c", STOCK, "sh", root_hash]
    said = run_in(made.tools, argv, binds={tmp_path: "/mnt/work"}, timeout=120).stdout
    assert 'Good "ppn-iso" signature for ppn-test' in said
    assert "medium/ppn/root.squashfs: OK" in said
    assert "Signature verification OK" in said
