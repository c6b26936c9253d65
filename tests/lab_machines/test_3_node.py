"""From a blank disk to a node of the pool: what the image made is judged as any other node is."""

from __future__ import annotations

from tests.lab.pool import LabPool, Run, eventually
from tests.lab.test_2_nodes import (
    test_every_pair_of_nodes_reaches_each_other,
    test_file_modes,
    test_hypervisor_units_run,
    test_listeners_are_on_mesh_addresses,
    test_no_private_key_leaves_its_node,
    test_path_keeper_is_confined,
    test_peers_and_ranges_equal_the_inventory,
    test_units_run,
)
from tests.lab.test_3_spawn import Api
from tests.lab_machines.installation import INSTALLED

# The nodes' own tests, on a pool one node of which was installed.
__all__ = [
    "test_every_pair_of_nodes_reaches_each_other",
    "test_file_modes",
    "test_hypervisor_units_run",
    "test_listeners_are_on_mesh_addresses",
    "test_no_private_key_leaves_its_node",
    "test_path_keeper_is_confined",
    "test_peers_and_ranges_equal_the_inventory",
    "test_units_run",
]


def test_it_starts_with_secure_boot_from_its_own_disk(pool: LabPool) -> None:
    """ISO-01, ISO-03: the firmware still trusts the owner's keys alone."""
    variable = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    read = f"od -An -t u1 -j 4 /sys/firmware/efi/efivars/{variable}"
    assert pool.run(INSTALLED, read).split() == ["1"]
    assert pool.run(INSTALLED, "findmnt -no FSTYPE,LABEL /").split() == ["ext4", "ppn-root"]


def test_console_shows_what_the_operator_compares(pool: LabPool) -> None:
    """ISO-04: the fingerprints, before anybody has logged in."""
    fingerprint = pool.run(INSTALLED, "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key").split()[1]
    key = pool.run(INSTALLED, "wg pubkey </etc/wireguard/ppn0.key").strip()

    def shown() -> bool:
        console = pool.paths.node(INSTALLED).console_log.read_text(errors="replace")
        return fingerprint in console and key in console

    # A machine that was just started anew may let us in a little sooner.
    eventually(shown, "both are on the console")


def test_onboarding_finds_its_software_there(first_run: Run) -> None:
    """ISO-03: the image of this commit has the software of this commit."""
    assert first_run.returncode == 0, first_run.log
    changed = {operation for operation, node in first_run.changed if node == INSTALLED}
    assert changed, "a node with a bare system needs changes"
    assert not [name for name in changed if name.endswith("| ppn")], changed


def test_second_run_changes_nothing(pool: LabPool, inventory: str) -> None:
    run = pool.pyinfra("-y", inventory=inventory)
    assert run.returncode == 0, run.log
    assert run.changed == set(), run.log


def test_its_heartbeats_arrive(pool: LabPool) -> None:
    """HOST-08, ISO-03: at the pool's controller, with its own name."""
    api = Api(pool)
    eventually(api.live, "the controller hears every hypervisor")
    nodes = {node["name"]: node for node in api.get("/nodes")}
    assert INSTALLED in nodes
