"""The provisioning image as the lab uses it, and the second medium with a site's settings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pycdlib import PyCdlib

from iso.build import build
from iso.keys import Keys, make
from iso.signing import attach, sign
from iso.stage import inputs_from_lock, tools_from_lock
from iso.times import Times
from iso.trees import building
from lab import firmware, ssh
from lab.errors import LabError
from lab.initrd import MACHINE
from lab.node_vm import address_of
from lab.paths import LabPaths, cache_folder
from lab.topology import LabNode
from ppn import sshsig
from ppn.durable import write_atomic
from ppn.installer.medium import SETTINGS, SIGNATURE, SITE_LABEL
from ppn.installer.published import UNREADABLE
from ppn.installer.signature import NAMESPACE
from ppn.iso9660 import volume

SECTOR = 2048
KEYS = "/ppn/keys"


@dataclass(frozen=True)
class Medium:
    """What a node is installed from.

    Args:
        image: the provisioning image.
        site_key: the private key whose signature on site settings the image trusts.
    """

    image: Path
    site_key: Path


def read_file(image: Path, path: str) -> bytes:
    """The content of a file of an image.

    Raises:
        LabError: the image has no such file, or is none.
    """
    start, length = find_file(image, path)
    with image.open("rb") as file:
        file.seek(start)
        return file.read(length)


def find_file(image: Path, path: str) -> tuple[int, int]:
    """Where on an image a file begins, and its length, both in bytes.

    Raises:
        LabError: the image has no such file, or is none.
    """
    iso = PyCdlib()
    try:
        with image.open("rb") as file:
            iso.open_fp(file)
            record = iso.get_record(rr_path=path)
            return record.extent_location() * SECTOR, record.get_data_length()
    except (*UNREADABLE, OSError) as error:
        raise LabError(
            f"{image} is no provisioning image: it has no {path} ({error})",
            hint="build one with `scripts/iso build`",
        ) from error


def firmware_memory(image: Path, *, enforced: bool) -> bytes:
    """The memory of a firmware that trusts whom an image's own enrolment files name.

    Args:
        image: the provisioning image.
        enforced: whether Secure Boot is on.

    Raises:
        LabError: the image carries none, or there is no firmware.
    """
    lists = {name: read_file(image, f"{KEYS}/{name}.esl") for name in firmware.KEY_VARIABLES}
    return firmware.trusting(lists, enforced=enforced)


def site(node: LabNode, authority: str) -> str:
    """The site settings that make a machine this node.

    Args:
        node: which node.
        authority: public key of the operator's SSH certificate authority.
    """
    link: dict[str, object] = {"mac": address_of(node), "addresses": [f"{node.address}/24"]}
    if node.gateway is not None:
        link["gateway"] = node.gateway
    one = {
        "name": node.name,
        "match": {"macs": [link["mac"]]},
        "network": [link],
        "kernel_options": MACHINE.split(),
    }
    settings = {"version": 1, "nodes": [one], "ssh_ca_keys": [authority.strip()]}
    return json.dumps(settings)


def make_site_medium(lab: LabPaths, node: LabNode, site_key: Path) -> None:
    """Make the second medium of an installation: this node's settings, signed."""
    content = site(node, ssh.public(lab.ssh_authority))
    signed = sshsig.sign(site_key, content, NAMESPACE)
    write_site(lab.node(node.name).site, content, signed)


def write_site(output: Path, content: str, signature: str | None) -> None:
    """Write a second medium with site settings; it appears whole or not at all.

    Args:
        output: the file to make.
        content: the settings.
        signature: of the settings; None to leave it out.
    """
    files = {SETTINGS: content.encode()}
    if signature is not None:
        files[SIGNATURE] = signature.encode()
    write_atomic(output, volume(SITE_LABEL, files))


def throwaway_medium() -> Medium:
    """The image of this checkout, built now and signed with keys that nobody keeps secret.

    Raises:
        PpnError: it cannot be built.
    """
    folder = cache_folder() / "throwaway-image"
    with building(cache_folder(), folder.name):
        keys, tools, times = Keys(folder / "keys"), tools_from_lock(), Times()
        if not keys.folder.exists():
            folder.mkdir(exist_ok=True)
            keys = make(keys.folder, tools, test=True, passphrase=None)
        inputs = inputs_from_lock(
            output=folder / "unsigned", keys=keys.public, site=None, times=times
        )
        unsigned = build(inputs, times)
        signatures = sign(unsigned, keys, tools, folder / "signatures", None)
        image, _ = attach(unsigned, signatures, tools, folder, times)
    return Medium(image, keys.signing_key)
