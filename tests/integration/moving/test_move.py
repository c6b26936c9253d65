"""A VM goes to another node with all it is and has, and what cannot go stays as it was."""

from __future__ import annotations

import re
from contextlib import suppress

import httpx

from ppn.host.disk import disk_info
from ppn.host.sidecar import Sidecar
from ppn.run import run
from tests.integration.host.node import figures, wait_for
from tests.integration.moving.controllers import NODES
from tests.integration.moving.parts import Machine, Site

KEEP = {"disks": [{"name": "keep", "size_gib": 1}]}
# What the base of the image `based` holds.
BASE = {"5a"}
SAYS = re.compile(r"^ppn-guest data (.*?)\r?\n", re.MULTILINE)


def says(machine: Machine, vm: str, after: int = 0) -> dict[str, str]:
    """What the guest says of its own data, once it has booted there more than so many times."""

    def look() -> dict[str, str] | None:
        machine.node.wait_ready(vm)
        said = figures(SAYS.findall(machine.node.serial(vm))[-1])
        return said if int(said["boots"]) > after else None

    found: dict[str, str] = wait_for(f"the guest of {vm}", look)
    return found


def sidecar_of(machine: Machine, vm: str) -> Sidecar:
    """What a machine's disk says of its VM."""
    found = machine.sidecar(vm)
    assert found is not None
    return found


def pool_figures(site: Site, name: str) -> dict[str, int]:
    """What the controller says is free on a node."""
    report = site.first.ask("GET", f"/nodes/{name}").json()
    return {key: report[key] for key in ("vms", "free_vcpus", "free_memory_mib")}


def test_a_vm_takes_all_it_is_and_has_with_it(pool: Site) -> None:
    """MIG-01, MIG-02, MIG-03: identity and data, room on either node, no base left behind."""
    vm = pool.create(image="based", label="web", ports=[{"guest": 80}], **KEEP)
    source, there = pool.place(vm), pool.other(pool.place(vm))
    before = says(source, vm)
    assert before["check"] == "new"
    was = sidecar_of(source, vm)
    free = {name: pool_figures(pool, name) for name in ("a", "b")}
    pool.begin(vm, there.name)
    ended = pool.ended(vm)
    assert (ended["outcome"], ended["problem"]) == ("done", None), ended
    now = sidecar_of(there, vm)
    kept = ("uuid", "created", "order", "drives")
    assert [getattr(now, name) for name in kept] == [getattr(was, name) for name in kept]
    given = {"address", "ports"}
    assert now.spec.model_dump(exclude=given) == was.spec.model_dump(exclude=given)
    after = says(there, vm)
    assert (after["machine_id"], after["check"]) == (before["machine_id"], "ok")
    assert int(after["boots"]) == int(before["boots"]) + 1
    # The node's own: an address of its own range, and a port that leads there.
    assert was.lease is not None and now.lease is not None
    assert now.lease.address.startswith(f"10.9.{2 if there.name == 'a' else 3}.")
    assert ended["vm"]["address"] == now.lease.address
    assert [port["guest"] for port in ended["vm"]["ports"]] == [80]
    assert _answers(pool, there, ended["vm"]["ports"][0]["host"])
    for disk in there.node.paths.vm(vm).disk_names():
        assert disk_info(there.node.paths.vm(vm).disk(disk)).base is None
    assert _first_bytes(there, vm) == BASE
    # The one has its room again, and the other one has given it.
    wait_for("heartbeats", lambda: pool_figures(pool, source.name)["vms"] == 0)
    assert pool_figures(pool, source.name) == free[there.name]
    assert pool_figures(pool, there.name) == free[source.name]
    assert source.node.nothing_is_left() and not list(source.node.paths.vms.glob(".*"))
    listed = [one for one in pool.first.ask("GET", "/vms").json() if one["vm"]["id"] == vm]
    assert [one["node"] for one in listed] == [there.name]


def _answers(pool: Site, machine: Machine, port: int) -> bool:
    """Whether the guest's web server answers where its node says."""
    url = f"http://{NODES[machine.name]}:{port}/"

    def look() -> bool:
        with suppress(httpx.HTTPError):
            return pool.first.reach.submit(httpx.get, url, timeout=3).result().is_success
        return False

    return bool(wait_for("the guest's port", look, 30))


def _first_bytes(machine: Machine, vm: str) -> set[str]:
    """What a VM's root disk begins with."""
    file = machine.node.paths.vm(vm).root_disk
    said = run(["qemu-io", "-U", "-r", "-c", "read -v 0 512", file], timeout=60).stdout
    lines = [line for line in said.splitlines() if line.startswith("0000")]
    return {word for line in lines for word in line.split()[1:17]}


def test_a_stopped_vm_moves_and_stays_stopped(pool: Site) -> None:
    """MIG-01: asked twice it is one move, and it can be started there and nowhere else."""
    vm = pool.create(**KEEP)
    source, there = pool.place(vm), pool.other(pool.place(vm))
    assert pool.first.ask("POST", f"/vms/{vm}/stop").is_success
    pool.begin(vm, there.name)
    assert pool.ask(vm, there.name).status_code in (202, 409)
    assert pool.ended(vm)["outcome"] == "done"
    assert not there.runs(vm) and sidecar_of(there, vm).spec.state == "stopped"
    # Until it has seen that nothing is left to remove, the controller finds the move that was.
    wait_for("the move to be over", lambda: pool.ask(vm, there.name).status_code != 202)
    assert pool.refused(vm, there.name)["code"] == "node_same"
    assert pool.first.ask("POST", f"/vms/{vm}/start").is_success
    there.node.wait_ready(vm, boots=1)
    assert says(there, vm)["check"] == "ok"
    assert source.node.nothing_is_left()
