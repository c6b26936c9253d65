"""A run makes the pool, a second changes nothing, and a dry run tells the truth."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.lab.pool import LabPool, Run, inventory_with

NODES = ("relay", "server", "laptop")


def test_first_dry_run_announces_what_the_first_run_does(
    first_dry_run: Run, first_run: Run
) -> None:
    assert first_dry_run.returncode == 0, first_dry_run.log
    assert first_run.returncode == 0, first_run.log
    assert first_dry_run.announced == first_run.changed
    assert first_run.changed, "a fresh lab needs changes"


def test_second_run_changes_nothing(pool: LabPool) -> None:
    dry = pool.pyinfra("--dry")
    assert dry.announced == set(), dry.log
    run = pool.pyinfra("-y")
    assert run.returncode == 0, run.log
    assert run.changed == set(), run.log


def test_partial_run_needs_no_other_node(pool: LabPool) -> None:
    run = pool.pyinfra("-y", "--limit", "laptop")
    assert run.returncode == 0, run.log
    assert run.changed == set()
    operations = run.report["results"]["operations"]
    assert {host for operation in operations for host in operation["no_change"]} == {"laptop"}


@pytest.mark.parametrize(
    ("change", "host", "code"),
    [
        ('_by_name["server"]["vms"][0]["memory_mib"] = 999999', "server", "memory_exceeds_node"),
        ('_by_name["laptop"]["allow_odd_vcpus"] = False; _by_name["laptop"]["vms"][0]["vcpus"] = 3',
         "laptop", "vcpus_odd"),
        ('_by_name["laptop"]["mesh_address"] = "10.8.0.2"', "laptop", "10.8.0.2"),
        ('_by_name["laptop"]["roles"] = ["hypervisr"]', "laptop", "hypervisr"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_on_its_host_alone(
    pool: LabPool, tmp_path: Path, change: str, host: str, code: str
) -> None:
    """HOST-11: before anything is changed, with object, value and next step."""
    run = pool.pyinfra("-y", inventory=inventory_with(tmp_path, change))
    assert run.returncode == 1
    assert code in run.log
    assert host in run.report["results"]["failed_hosts"]
    assert "relay" not in run.report["results"]["failed_hosts"]
    assert host not in {changed for _, changed in run.changed}


@pytest.mark.fault(
    "kill -9 of ten pyinfra runs at random points",
    "the next run converges, the one after changes nothing",
)
def test_killed_runs_are_made_good(pool: LabPool) -> None:
    """Ten runs cut at random points: the next converges, and no VM is lost or doubled."""
    before = {node: sorted(pool.vms(node)) for node in ("server", "laptop")}
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for node in ("server", "laptop"):
        pool.run(node, "virsh destroy --domain $(virsh list --name | head -n 1) || true")
    for _ in range(10):
        pool.killed_pyinfra(chance.uniform(0.5, 8))
    run = pool.pyinfra("-y")
    assert run.returncode == 0, run.log
    again = pool.pyinfra("-y")
    assert again.changed == set(), again.log
    for node, names in before.items():
        vms = pool.vms(node)
        assert sorted(vms) == names
        assert {vm["state"] for vm in vms.values()} == {"running"}
        domains = pool.run(node, "virsh list --all --name").split()
        assert sorted(domains) == names
