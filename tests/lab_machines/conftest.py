"""One pool for all tests of this folder: its server is a machine that the image installed.

The other nodes are containers, for each emulated machine more takes the processors of the one that
is judged.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lab.medium import Medium, throwaway_medium
from lab.node_installed import DISK_SIZE
from lab.process import recorded, send
from tests.iso.machine import blank_disk
from tests.lab.pool import LabPool, Run, Unreachable, eventually, inventory_with
from tests.lab_machines.disks import MAKERS, layer
from tests.lab_machines.inquest import last_words
from tests.lab_machines.installation import (
    INSTALLED,
    TARGET,
    Installation,
    console,
    cut_short,
    prefer,
)
from tests.lab_machines.pluggable import STICK, PluggableMachine, plugged
from tests.lab_machines.sites import make_sites

# Where the power is cut, as a part of the whole. Each is a boot of minutes: the first in every run,
# all ten when asked for. After 0.9 it may have come to its end.
POINTS = (0.3, 0.5, 0.1, 0.9, 0.7, 0.2, 0.4, 0.6, 0.8, 0.85)
ROUNDS = int(os.environ.get("PPN_ISO_ROUNDS", "1"))
# Two guests in the place of the lab's own; the node has two vCPUs. They beat seldom, for under
# emulated virtualisation each byte that a guest prints is a switch between it and the node.
# They are declared stopped, and so is the laptop's: the runs that make the pool are slow enough.
# For the same reason the server serves nobody: a service takes it half a minute to start.
TWO_GUESTS = """
_by_name["server"]["roles"] = ["hypervisor"]
_by_name["laptop"]["roles"] = ["hypervisor", "witness"]
_tiny = {"image": "tiny", "vcpus": 1, "memory_mib": 160, "minimum_mib": 96,
         "cmdline_extra": "ppn.beat=5", "state": "stopped"}
_by_name["server"]["vms"] = [
    {**_tiny, "name": "heavy", "weight": 300},
    {**_tiny, "name": "light", "weight": 100},
]
_by_name["laptop"]["vms"][0]["state"] = "stopped"
"""
ANSWER_SECONDS = 240
# The first test waits for a part of an installation, for a whole one, and for the first run.
TEST_SECONDS = 7200
# QEMU's emulation dies of an assertion of its own now and then, and that of nested virtualisation
# has hung: a processor that ran a guest all the time had interrupts pending and took none.
LOST = (
    *("Unreachable", "exit_status=255", "iotlb_to_section", "IO-APIC .+ timer"),
    # It has mixed up the registers of node and guest, which `ensure_running` starts anew then.
    "not within .+ s: the balloon is at",
    # What another node says whose request it took along, and pyinfra.
    *("node server was asked to .+ and did not answer", "No route to host", "Socket exception"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests time; one that has lost its machine runs once more: `standing` starts it anew."""
    here = os.path.dirname(__file__)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.flaky(reruns=2, only_rerun=list(LOST)))
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))


@pytest.fixture(scope="package")
def bare() -> Iterator[LabPool]:
    """The name of a lab that is not up yet; it is gone afterwards."""
    pool = LabPool(f"vm-{os.getpid()}")
    try:
        yield pool
    finally:
        pool.lab("destroy")


@pytest.fixture(scope="package")
def medium() -> Medium:
    """The image, signed with throwaway keys, and the key that may sign its site settings."""
    return throwaway_medium()


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is plugged in."""
    return tmp_path_factory.mktemp("plugged")


@pytest.fixture(scope="package")
def layers(medium: Medium, folder: Path) -> dict[str, Path]:
    """A layer over each disk on which nothing must be written, by serial number."""
    bases = {serial: make(folder / serial) for serial, make in MAKERS.items()}
    bases[STICK] = medium.image
    return {serial: layer(folder, serial, base) for serial, base in bases.items()}


@pytest.fixture(scope="package")
def target(bare: LabPool) -> Path:
    """The disk of the node that is to be installed."""
    path = bare.paths.node(INSTALLED).installing
    path.parent.mkdir(parents=True)
    return blank_disk(path, DISK_SIZE)


@pytest.fixture(scope="package")
def sites(medium: Medium, folder: Path) -> dict[str, Path]:
    """Media with site settings, by the code they are refused with; those of `sound` are not."""
    return make_sites(folder, medium.site_key)


@pytest.fixture(scope="package")
def machine(
    medium: Medium, folder: Path, layers: dict[str, Path], target: Path
) -> Iterator[PluggableMachine]:
    """A machine that refuses to install, until its power is cut while it installs."""
    with plugged(medium, folder, {**layers, TARGET: target}) as running:
        yield running


@pytest.fixture(scope="package")
def cuts(
    machine: PluggableMachine, medium: Medium, folder: Path, sites: dict[str, Path]
) -> tuple[str, ...]:
    """What the console had said each time the power was cut."""
    said = [cut_short(machine, sites["sound"], POINTS[0])]
    for point in POINTS[1:ROUNDS]:
        with plugged(medium, folder, machine.layers) as again:
            said.append(cut_short(again, sites["sound"], point))
    return tuple(said)


@pytest.fixture(scope="package")
def installation(bare: LabPool, medium: Medium, cuts: tuple[str, ...]) -> Installation:
    """A lab whose server is made of what was left when the power was cut."""
    iso, key = str(medium.image), str(medium.site_key)
    bare.lab("up", "--from-image", INSTALLED, "--iso", iso, "--site-key", key)
    prefer(bare)
    return Installation(cuts, console(bare.paths.node(INSTALLED).install_log))


@pytest.fixture(scope="package")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the lab is first made into."""
    return inventory_with(tmp_path_factory.mktemp("two-guests"), TWO_GUESTS)


@pytest.fixture(scope="package")
def first_run(bare: LabPool, installation: Installation, inventory: str) -> Run:
    """The run that turned the lab with the installed node into a pool."""
    run = bare.pyinfra("-y", inventory=inventory)
    if run.returncode != 0 and revived(bare):
        run = bare.pyinfra("-y", inventory=inventory)
    return run


@pytest.fixture(scope="package")
def pool(bare: LabPool, first_run: Run) -> LabPool:
    """A pool one node of which was made by the image."""
    assert first_run.returncode == 0, first_run.log
    return bare


@pytest.fixture(autouse=True)
def standing(pool: LabPool) -> None:
    """Start the machine anew when the test before has lost it."""
    revived(pool)


def revived(pool: LabPool) -> bool:
    """Whether the machine was lost; it is started anew then."""
    if stands(pool):
        return False
    paths = pool.paths.node(INSTALLED)
    print(f"the machine is started anew, its last words were:\n{last_words(paths)}")
    if process := recorded(paths.process):
        send(process, signal.SIGKILL)
    eventually(lambda: recorded(paths.process) is None, "the machine is off")
    pool.lab("up")
    prefer(pool)
    return True


def stands(pool: LabPool) -> bool:
    """Whether the machine answers: a busy one after a while, one whose QEMU has ended never."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while recorded(pool.paths.node(INSTALLED).process) and time.monotonic() < deadline:
        with suppress(Unreachable):
            pool.run(INSTALLED, "true", seconds=ANSWER_SECONDS)
            return True
    return False
