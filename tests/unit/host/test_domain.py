"""Domain XML: the whole document, and that no value breaks out of its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.host.devices import device_of, drives_of, files_of
from ppn.host.domain import DirectBoot, DomainInput, disk_xml, domain_xml, free_target
from ppn.host.model import Accelerator, Pins
from ppn.host.network import Interface, interface_of
from ppn.host.numa import GuestCell
from ppn.host.paths import Paths
from ppn.host.spec import PCI_PATTERN
from tests.unit.host.builders import UUID, make_spec

GOLDEN = Path(__file__).with_name("golden")
FILES = Paths(Path("/")).vm("web")
TINY = DirectBoot(Path("/images/tiny/kernel"), Path("/images/tiny/initrd"), "console=ttyS0")


def given_input(
    accelerator: Accelerator = "tcg",
    weight: int | None = None,
    boot: DirectBoot | None = TINY,
    pins: Pins | None = None,
    interface: Interface | None = None,
    drives: tuple[str, ...] = (),
) -> DomainInput:
    return DomainInput(UUID, FILES, boot, accelerator, weight, pins, interface, drives)


@pytest.mark.parametrize(
    ("name", "given_as"),
    [
        ("tcg-direct-boot", given_input()),
        ("kvm-disk-boot-weight", given_input("kvm", 300, None, interface=interface_of(UUID))),
        ("kvm-pinned", given_input("kvm", 300, None, Pins(cpus=(8, 9), nodes=(1,)))),
    ],
)
def test_golden(name: str, given_as: DomainInput) -> None:
    """HOST-04, BAL-04, CPU-07, NUMA-02: the whole domain as it is handed to libvirt."""
    spec = make_spec(
        disks=[{"name": "data", "size_gib": 2}],
        cmdline_extra="ppn.burn=1" if given_as.boot else "",
    )
    assert domain_xml(spec, given_as) + "\n" == (GOLDEN / f"{name}.xml").read_text()


def test_weight_is_left_out_where_it_cannot_be_enforced() -> None:
    """CPU-01: a domain that asks for what the node has not would not start."""
    assert "cputune" not in domain_xml(make_spec(), given_input(weight=None))
    assert "<shares>1</shares>" in domain_xml(make_spec(), given_input(weight=1))


def test_pins_alone_and_over_several_numa_nodes() -> None:
    """NUMA-02."""
    pins = Pins(cpus=(3, 16), nodes=(0, 2))
    domain = fromstring(domain_xml(make_spec(), given_input(pins=pins)))
    assert [pin.attrib for pin in domain.iterfind("cputune/vcpupin")] == [
        {"vcpu": "0", "cpuset": "3"},
        {"vcpu": "1", "cpuset": "16"},
    ]
    memory = domain.find("numatune/memory")
    assert memory is not None and memory.attrib == {"mode": "preferred", "nodeset": "0,2"}
    without = fromstring(domain_xml(make_spec(), given_input(pins=Pins(cpus=(3, 16)))))
    assert without.find("numatune") is None and without.find("cputune/shares") is None


def test_a_guest_on_several_numa_nodes_sees_as_many() -> None:
    """NUMA-01, NUMA-02: with memory of its own from each, and no socket over two of them."""
    pins = Pins(cpus=(0, 1, 2, 3, 8, 9), nodes=(0, 2))
    cells = (GuestCell((0, 1, 2, 3), 257, 0), GuestCell((4, 5), 256, 2))
    given_as = replace(given_input(pins=pins), cells=cells)
    domain = fromstring(domain_xml(make_spec(vcpus=6, memory_mib=513), given_as))
    assert [cell.attrib for cell in domain.iterfind("cpu/numa/cell")] == [
        {"id": "0", "cpus": "0,1,2,3", "memory": "257", "unit": "MiB"},
        {"id": "1", "cpus": "4,5", "memory": "256", "unit": "MiB"},
    ]
    assert [node.attrib for node in domain.iterfind("numatune/memnode")] == [
        {"cellid": "0", "mode": "preferred", "nodeset": "0"},
        {"cellid": "1", "mode": "preferred", "nodeset": "2"},
    ]
    topology = domain.find("cpu/topology")
    assert topology is not None
    assert topology.attrib == {"sockets": "3", "cores": "2", "threads": "1"}


def test_places_for_disks_are_found_around_taken_ones() -> None:
    """DISK-01: after a detach the places of a running VM are no longer in order."""
    assert free_target({"vda", "vdc", "vdz"}) == "vdb"


def test_guest_has_no_agent_channel_and_a_network_only_where_it_is_given_one() -> None:
    devices = fromstring(domain_xml(make_spec(), given_input())).find("devices")
    assert devices is not None
    for kind in ("channel", "interface", "graphics", "filesystem", "hostdev"):
        assert devices.find(kind) is None


@given(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=80),
    st.text(st.sampled_from("abc<>&\"']]> -"), max_size=40),
)
def test_no_value_becomes_structure(label: str, extra: str) -> None:
    spec = make_spec(label=label, cmdline_extra=extra)
    plain = make_spec()
    tree, usual = (fromstring(domain_xml(each, given_input())) for each in (spec, plain))
    assert [element.tag for element in tree.iter()] == [element.tag for element in usual.iter()]
    cmdline = tree.findtext("os/cmdline") or ""
    assert cmdline == ("console=ttyS0 " + extra if extra else "console=ttyS0")


def test_hot_added_disk_is_the_one_of_the_whole_domain() -> None:
    spec = make_spec(disks=[{"name": "data", "size_gib": 2}])
    whole = fromstring(domain_xml(spec, given_input()))
    alone = fromstring(disk_xml(FILES, "data", "vdb"))
    attributes = [
        {child.tag: (child.attrib, (child.text or "").strip()) for child in disk}
        for disk in (whole.findall("devices/disk")[1], alone)
    ]
    assert attributes[0] == attributes[1]


ADDRESSES = st.from_regex(PCI_PATTERN, fullmatch=True).map(str.strip)


@given(st.lists(ADDRESSES, max_size=4, unique=True))
def test_its_drives_are_in_the_domain_and_found_there_again(drives: list[str]) -> None:
    """DISK-02: a VM that starts has its drives, and each takes a root port of its own."""
    domain = fromstring(domain_xml(make_spec(), given_input(drives=tuple(drives))))
    bare = fromstring(domain_xml(make_spec(), given_input()))
    assert drives_of(domain) == set(drives) and files_of(domain) == files_of(bare)
    ports = "devices/controller[@model='pcie-root-port']"
    assert len(domain.findall(ports)) == len(bare.findall(ports)) + len(drives)
    for drive in drives:
        device = fromstring(device_of(domain, drive) or "")
        assert device.tag == "hostdev" and device.get("managed") == "no"
    assert device_of(bare, "0000:01:00.0") is None


def test_a_disk_is_found_by_its_file() -> None:
    """DISK-01: to take it away."""
    domain = fromstring(domain_xml(make_spec(), given_input()))
    disk = fromstring(device_of(domain, str(FILES.root_disk)) or "")
    assert (disk.tag, disk.findtext("serial")) == ("disk", "root")
