"""What facts make of the text a node prints, and of text it should never print."""

from __future__ import annotations

import pytest
from pyinfra.api.exceptions import FactProcessError

from facts.files import FileStatus, Statuses
from facts.hardware import NodeHardware
from facts.host_state import Hypervisor, HypervisorState
from facts.images import ImageDigests
from facts.packages import Installed
from facts.software import InstalledSoftware, NodePlatform, Software
from facts.systemd import UnitStatuses
from facts.users import KnownUsers

UNIT = """Id=ssh.service
Names=ssh.service sshd.service
LoadState=loaded
ActiveState=active
UnitFileState=enabled
NeedDaemonReload=no
ActiveEnterTimestamp=Thu 1970-01-01 00:16:40.500000 UTC
"""


def test_files() -> None:
    output = [
        "absent /a b",
        "present 600 root adm file 00ff /c d",
        "present 755 root root other - /d",
    ]
    assert Statuses().process(output) == {
        "/a b": None,
        "/c d": FileStatus("0600", "root", "adm", "00ff"),
        "/d": FileStatus("0755", "root", "root", None),
    }


def test_files_garbage() -> None:
    with pytest.raises(FactProcessError):
        Statuses().process(["stat: cannot statx"])


def test_units() -> None:
    found = UnitStatuses().process([*UNIT.splitlines(), "", "---", "12.5 /etc/x"])
    assert found is not None
    assert found.units["sshd.service"].entered == 1000.5
    assert found.units["ssh.service"].enabled == "enabled"
    assert found.modified == {"/etc/x": 12.5}


@pytest.mark.parametrize("output", [["nonsense"], ["Id=a", "", "---"]])
def test_units_garbage(output: list[str]) -> None:
    with pytest.raises(FactProcessError):
        UnitStatuses().process(output)


def test_packages_half_installed_ones_do_not_count() -> None:
    output = ["start", "installed nftables 1.1", "config-files qemu-utils 9"]
    assert Installed().process(output) == {"nftables": "1.1"}


def test_users() -> None:
    assert KnownUsers().process(["start", "root:x:0:0:root:/root:/bin/bash"]) == frozenset({"root"})


def test_images() -> None:
    line = "00ff  /var/lib/ppn/images/tiny/manifest.json"
    assert ImageDigests().process(["start", line]) == {"tiny": "00ff"}
    with pytest.raises(FactProcessError):
        ImageDigests().process(["start", "00ff  /etc/passwd"])


def test_platform() -> None:
    platform = NodePlatform().process(["debian 13 x86_64 6.12.48 198.51.100.250"])
    assert platform is not None
    assert (platform.distribution, platform.release) == ("debian", "13")
    with pytest.raises(FactProcessError):
        NodePlatform().process(["debian"])


def test_software_with_a_layer_that_a_power_cut_left() -> None:
    fact = InstalledSoftware()
    marks = [
        "/opt/ppn/venv/INSTALLED 5f0c",
        "/opt/ppn/dependencies-77ab/INSTALLED 77ab",
        "/opt/ppn/dependencies-91cd/INSTALLED ",
    ]
    assert fact.process(["2560 4096", *marks]) == Software("5f0c", frozenset({"77ab"}), 10)
    assert fact.process(["2560 4096"]) == Software("", frozenset(), 10)
    with pytest.raises(FactProcessError):
        fact.process(["stat: cannot read"])


def test_hardware_with_two_sockets() -> None:
    lines = ["0,0,0", "1,0,0", "2,1,1", "3,1,1", "---", "2097152", "  900  800", "cpu"]
    hardware = NodeHardware().process(lines)
    assert hardware is not None
    assert hardware.topology.cpus == 4
    assert [socket.cpus for socket in hardware.topology.sockets] == [(0, 1), (2, 3)]
    assert [socket.cores for socket in hardware.topology.sockets] == [1, 1]
    assert hardware.topology.memory_mib == 2048
    assert hardware.disk.free_mib == 800
    assert hardware.cpu_controller


@pytest.mark.parametrize("lines", [[], ["---"], ["0,0,0", "---", "x", "1 2", "cpu"]])
def test_hardware_garbage(lines: list[str]) -> None:
    with pytest.raises(FactProcessError):
        NodeHardware().process(lines)


def test_hypervisor_without_ppn_is_not_an_unknown_one() -> None:
    assert HypervisorState().process(["absent"]) == Hypervisor(None)
    assert HypervisorState.default() is None


def test_hypervisor_garbage() -> None:
    with pytest.raises(FactProcessError):
        HypervisorState().process(["Traceback"])
