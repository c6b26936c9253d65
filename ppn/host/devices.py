"""A domain's devices by what stands behind them, a file or a PCI device of the node: pure."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, tostring

PCI_PARTS = ("domain", "bus", "slot", "function")


def files_of(domain: Element) -> frozenset[str]:
    """Files of a domain's block devices."""
    return frozenset(source.get("file", "") for source in domain.iterfind("devices/disk/source"))


def drives_of(domain: Element) -> frozenset[str]:
    """PCI addresses of the node's devices that a domain has."""
    return frozenset(behind for behind, _ in _passed(domain))


def device_of(domain: Element, behind: str) -> str | None:
    """The device with this file or PCI address behind it, to take it away; None when there is none.

    Args:
        domain: its whole description.
        behind: a path, or a PCI address such as `0000:01:00.0`.
    """
    disks = (
        (source.get("file"), disk)
        for disk in domain.iterfind("devices/disk")
        if (source := disk.find("source")) is not None
    )
    for found, device in (*disks, *_passed(domain)):
        if found == behind:
            return tostring(device, encoding="unicode")
    return None


def _passed(domain: Element) -> Iterator[tuple[str, Element]]:
    for device in domain.iterfind("devices/hostdev[@type='pci']"):
        address = device.find("source/address")
        if address is not None:
            parts = [int(address.get(part, "0"), 16) for part in PCI_PARTS]
            yield "{:04x}:{:02x}:{:02x}.{:x}".format(*parts), device
