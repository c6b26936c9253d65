"""The same image on two nodes: what the guests see does not tell them where they are."""

from __future__ import annotations

import base64
import gzip
import io
import re
import socket
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from uuid import UUID
from xml.etree.ElementTree import fromstring

import pytest

from lab import guest
from ppn.host.model import Settings, VmView
from ppn.host.network import interface_of
from tests.integration.host.node import Node, wait_for
from tests.integration.mesh.namespaces import Namespace
from tests.unit.test_isolation import DEVICES

# No part of a name is in anything else.
PLACES = {"zanzibar": ("10.8.0.77", "10.9.77.0/24"), "timbuktu": ("10.8.0.113", "10.9.113.0/24")}
VIEW = re.compile(r"^ppn-view (\S+)\r?$", re.MULTILINE)
# What differs from one boot to the next on the very same node.
# The link-local address is there a moment after the device is, and a kernel whose processor was not
# run for 10 ms says that work of its own hogged it.
PASSING = re.compile(rb"MHz|bogomips|Kernel (code|data|bss|rodata)|inet6 LINK|hogged CPU")
# Where it shows what it was given.
MACHINE = (
    b"/sys/class/dmi",
    b"/sys/devices/pci",
    b"/sys/devices/system/cpu",
    b"/sys/devices/virtual/dmi",
    b"/sys/firmware",
)
# What the kernel says of the machine; the rest of its log is about the kernel and time.
HARDWARE = re.compile(
    rb"DMI|SMBIOS|BIOS|ACPI|PCI|pci|Hypervisor|virtio|CPU|fw_cfg|Command line|eth0"
)
WAYS = (
    "virtio-serial",
    "virtserialport",
    "virtio-9p",
    "fsdev",
    "vhost-user",
    "ivshmem",
    "vsock",
    "vnc",
)
NUMBERS = re.compile(rb"\b(0x)?[0-9a-f]+\b")


@dataclass
class Place:
    """A node that a guest is to learn nothing of.

    Args:
        name: its name in the inventory.
        node: itself.
        space: its network.
    """

    name: str
    node: Node
    space: Namespace

    @property
    def mesh_address(self) -> str:
        return PLACES[self.name][0]

    def make(self) -> VmView:
        """Make a VM that shows all it sees."""
        made = self.node.apply(memory_mib=160, vcpus=2, cmdline_extra="ppn.show=1")
        return VmView.model_validate(made["vm"])

    def shown(self) -> dict[str, bytes]:
        """What that VM has shown, by file."""
        ended = re.compile(r"^ppn-view end\r?\n", re.MULTILINE)
        # With two processors that QEMU emulates it takes long.
        wait_for(f"{self.name}'s guest", lambda: ended.search(self.node.serial("web")), 1200)
        lines = [line for line in VIEW.findall(self.node.serial("web")) if line != "end"]
        archive = gzip.decompress(base64.b64decode("".join(lines)))
        return dict(members(archive))


# Per node itself, its VM and what that sees.
Shown = dict[str, tuple[Place, VmView, dict[str, bytes]]]


def members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """The files of a tar archive, and of those in it."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        for member in found:
            content = found.extractfile(member)
            if content is None:
                continue
            if member.name == "seen/firmware":
                yield from members(content.read())
            else:
                yield member.name, content.read()


@contextmanager
def place(name: str) -> Iterator[Place]:
    """A node with a network for its VMs."""
    space = Namespace(name)
    enter = ("nsenter", "-t", str(space.pid), "-n", "--")
    address, vm_range = PLACES[name]
    with tempfile.TemporaryDirectory(prefix="ppn-view-") as root:
        node = Node(Path(root), enter)
        node.prepare(guest.cached())
        (Path(root) / "proc/net").symlink_to("/proc/net")
        space.sh(
            f"ip link add ppn0 type bridge; ip addr add {address}/24 dev ppn0; ip link set ppn0 up"
        )
        settings = Settings(name=name, mesh_address=address, vm_range=vm_range)
        node.paths.settings.parent.mkdir(parents=True, exist_ok=True)
        node.paths.settings.write_text(settings.model_dump_json())
        daemon = node.start()
        try:
            yield Place(name, node, space)
            node.apply(state="absent")
        finally:
            node.stop(daemon)
            space.end()


@pytest.fixture(scope="module")
def shown() -> Iterator[Shown]:
    """Per node its guest and what that sees."""
    with ExitStack() as stack:
        places = [stack.enter_context(place(name)) for name in PLACES]
        made = {one.name: one.make() for one in places}
        yield {one.name: (one, made[one.name], one.shown()) for one in places}


def own(vm: VmView) -> dict[bytes, bytes]:
    """What is a VM's own, and has to differ from any other's, each with a stand-in."""
    assert vm.uuid is not None and vm.lease is not None
    uuid, address = UUID(vm.uuid), vm.lease.address
    network = address.rpartition(".")[0]
    mac = interface_of(vm.uuid).mac
    # What the kernel makes of it for IPv6.
    first, *rest = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]])
    link_local = IPv6Address(b"\xfe\x80" + bytes(6) + interface)
    return {
        str(uuid).encode(): b"UUID",
        uuid.bytes: b"UUID",
        uuid.bytes_le: b"UUID",
        mac.encode(): b"MAC",
        str(link_local).encode(): b"LINK",
        address.encode(): b"ADDRESS",
        f"{network}.".encode(): b"NETWORK.",
    }


def without_own(vm: VmView, content: bytes) -> bytes:
    for mine, stand_in in own(vm).items():
        content = content.replace(mine, stand_in)
    return content


def test_the_guest_saw_what_there_is_to_see(
    shown: Shown,
) -> None:
    """INV-03: else the tests below would prove nothing."""
    for _, vm, seen in shown.values():
        assert vm.uuid is not None and vm.lease is not None
        assert vm.uuid.encode() in seen["seen/seed/meta-data"]
        assert vm.lease.address.encode() in seen["seen/network"]
        assert interface_of(vm.uuid).mac.encode() in seen["seen/sys"]
        assert UUID(vm.uuid).bytes_le in seen["sys/firmware/dmi/tables/DMI"]
        assert b"QEMU" in seen["seen/sys"] and b"Linux version" in seen["seen/dmesg"]
        assert any(name.startswith("sys/firmware/acpi/tables/") for name in seen)
        assert any(name.startswith("sys/firmware/qemu_fw_cfg/by_key/") for name in seen)
        assert b"1 packets received" in seen["seen/ping"]


def test_nothing_a_guest_sees_names_its_node(
    shown: Shown,
) -> None:
    """INV-03: no name, no mesh address, no file, nothing of this machine that a node is."""
    for here, _, seen in shown.values():
        link = here.space.sh("ip -br link show ppn0").split()
        names = {
            *PLACES,
            *(address for address, _ in PLACES.values()),
            str(here.node.root),
            # Too short a name is in other words.
            socket.gethostname() if len(socket.gethostname()) > 5 else "",
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            *(word for word in link if word.count(":") == 5),
            "/var/lib/ppn",
            "ppn0",
        }
        machine_id = Path("/etc/machine-id")
        if machine_id.exists():
            names.add(machine_id.read_text().strip())
        for file, content in seen.items():
            told = [name for name in names if name and name.lower().encode() in content.lower()]
            assert not told, f"{file} of {here.name}'s guest tells {told}"


def test_guests_on_two_nodes_see_the_same(
    shown: Shown,
) -> None:
    """INV-03: firmware, devices, processor and seed differ in what is the VM's own alone."""
    (_, one, first), (_, two, second) = shown.values()
    assert first.keys() == second.keys()
    for name in first.keys() - {"seen/dmesg", "seen/ping"}:
        mine, other = without_own(one, first[name]), without_own(two, second[name])
        if name.startswith("seen/"):
            lines = set(mine.splitlines()) ^ set(other.splitlines())
            differing = {line for line in lines if not PASSING.search(line)}
            # What the kernel found out itself it may have found in another order.
            assert not {
                line
                for line in differing
                if line.startswith(MACHINE) or not line.startswith(b"/sys/")
            }, name
        else:
            assert mine == other, name


def test_the_kernels_of_both_say_the_same_of_the_machine(shown: Shown) -> None:
    """INV-03: but for numbers, which differ from one boot to the next."""
    mine, other = (
        {
            NUMBERS.sub(b"#", line.partition(b"] ")[2])
            for line in without_own(vm, seen["seen/dmesg"]).splitlines()
            if HARDWARE.search(line) and not PASSING.search(line)
        }
        for _, vm, seen in shown.values()
    )
    assert len(mine) > 50
    assert mine ^ other == set()


def test_what_runs_has_no_way_in(shown: Shown) -> None:
    """INV-02, INV-04: neither in what libvirt made of the VM, nor in QEMU's own arguments."""
    for here, _, _ in shown.values():
        devices = fromstring(here.node.virsh("dumpxml", "web")).findall("devices/*")
        # libvirt adds a keyboard and mouse, no sound, and a watchdog.
        others = {"audio", "emulator", "input", "watchdog"}
        assert {device.tag for device in devices} <= DEVICES | others
        pid = here.node.paths.pid_file("web").read_text()
        argv = Path(f"/proc/{pid}/cmdline").read_text().replace(str(here.node.root), "").split("\0")
        assert [word for word in argv for bad in WAYS if bad in word] == []
        # Whoever makes QEMU dump core gets no guest memory with it.
        assert any("dump-guest-core=off" in word for word in argv)
        assert argv[argv.index("-sandbox") + 1].startswith("on,")
        assert argv[argv.index("-display") + 1] == "none"
