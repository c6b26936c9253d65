"""The media that a lab's node is installed from."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import LabError
from lab.medium import firmware_memory, read_file, site, write_site
from lab.node_installed import plain
from lab.node_vm import address_of
from lab.topology import NODES, LabNode
from ppn.installer.settings import Machine, node_of, parse

CONTENT = '{"version": 1}'
AUTHORITY = f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'A' * 43} lab\n"


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_settings_make_the_machine_with_its_card_this_node(node: LabNode) -> None:
    """Read by the installer itself: name, address and gateway as the lab's network has them."""
    found = node_of(parse(site(node, AUTHORITY).encode()), Machine(macs=(address_of(node),)))
    (link,) = found.node.network
    assert found.node.name == node.name
    assert [str(one) for one in link.addresses] == [f"{node.address}/24"]
    assert (str(link.gateway) if link.gateway else None) == node.gateway
    assert found.ssh_ca_keys == (AUTHORITY.strip(),)


def test_second_medium_holds_what_was_signed(tmp_path: Path) -> None:
    """Byte for byte, for the signature is over the bytes; without one there is no such file."""
    signed, unsigned = tmp_path / "signed.iso", tmp_path / "unsigned.iso"
    write_site(signed, CONTENT, "signature")
    write_site(unsigned, CONTENT, None)
    assert read_file(signed, "/site.json") == CONTENT.encode()
    assert read_file(signed, "/site.json.sig") == b"signature"
    assert read_file(unsigned, "/site.json") == CONTENT.encode()
    with pytest.raises(LabError, match=r"site\.json\.sig"):
        read_file(unsigned, "/site.json.sig")


def test_what_is_no_image_enrols_nothing(tmp_path: Path) -> None:
    """The error names the file and says how to get an image."""
    with pytest.raises(LabError, match="no provisioning image"):
        firmware_memory(tmp_path / "absent.iso", enforced=True)


@pytest.mark.exhaustive
def test_a_damaged_image_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Whichever of the bytes that describe its files is not what it was."""
    image = tmp_path / "image.iso"
    write_site(image, CONTENT, None)
    content = image.read_bytes()
    refused = 0
    for position in (at for at, byte in enumerate(content) if byte and at % 3 == 0):
        image.write_bytes(content[:position] + b"\1" + content[position + 1 :])
        try:
            read_file(image, "/site.json")
        except LabError as error:
            assert str(image) in error.message
            refused += 1
    assert refused


def test_console_is_read_as_a_person_sees_it() -> None:
    """Firmware clears the screen and moves the cursor before each line."""
    assert plain(b"\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: starting\r\n\x1b[?7hppn: a\xff\n") == (
        "BdsDxe: starting\nppn: a�\n"
    )
