"""The machine starts again from its own disk: the medium it was installed from is long gone."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from lab.process import recorded
from tests.lab.pool import LabPool, eventually
from tests.lab.test_3_spawn import Api
from tests.lab_machines.installation import INSTALLED as SERVER
from tests.lab_machines.installation import prefer
from tests.lab_machines.test_4_sharing import boot_ids, ensure_running

HOST_KEY = "cat /etc/ssh/ssh_host_ed25519_key.pub"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"

Views = dict[str, dict[str, Any]]


@pytest.mark.fault(
    "a node is rebooted",
    "the agent starts the VMs that ran and leaves stopped ones alone; nothing is forgotten",
)
def test_a_reboot_brings_back_what_ran(pool: LabPool) -> None:
    """HOST-07, ISO-03: with the identity it and each VM had, and no run of the operator's."""
    ensure_running(pool, "light")
    pool.run("relay", "ppn vm stop heavy")
    before: Views = eventually(partial(vms, pool), "the server tells of its VMs")
    assert {name: vm["state"] for name, vm in before.items()} == {
        "heavy": "stopped",
        "light": "running",
    }
    host_key, boot_id = pool.run(SERVER, HOST_KEY), pool.run(SERVER, BOOT_ID)
    boots = boot_ids(pool)
    record = pool.paths.node(SERVER).process
    pool.node(SERVER).run("systemctl reboot")
    eventually(lambda: recorded(record) is None, "the server is down")
    pool.lab("up")
    prefer(pool)
    assert pool.run(SERVER, HOST_KEY) == host_key
    assert pool.run(SERVER, BOOT_ID) != boot_id
    eventually(lambda: boot_ids(pool) - boots, "the VM that ran starts again")
    eventually(lambda: pool.node("laptop").run("ping -c 1 -W 1 10.8.0.2").rc == 0, "in the mesh")
    eventually(Api(pool).live, "every hypervisor is heard")

    def run_again() -> Views | None:
        found = vms(pool) or {}
        return found if found.get("light", {}).get("state") == "running" else None

    after: Views = eventually(run_again, "its agent says that it runs")
    assert after["heavy"]["state"] == "stopped"
    # A node that starts is busy, and must not take its KVM for broken because of that.
    assert after["light"]["accelerator"] == "kvm"
    assert {name: vm["uuid"] for name, vm in after.items()} == {
        name: vm["uuid"] for name, vm in before.items()
    }


def vms(pool: LabPool) -> Views | None:
    """The server's VMs by name, as its agent tells them; nothing while its node proxy starts."""
    status, _, found = Api(pool).ask("GET", f"/nodes/{SERVER}/report")
    return {vm["id"]: vm for vm in found["node"]["vms"]} if status == 200 else None
