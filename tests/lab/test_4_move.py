"""A pool VM goes from one site to another by `ppn vm move`, with all it is and has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from shlex import quote

import pytest

from ppn.cli.move import WORDS
from tests.lab.pool import LabPool, eventually
from tests.lab.test_3_network import fetch
from tests.lab.test_3_spawn import HYPERVISORS, Api, create, nothing_is_left
from tests.lab.test_3_spawn import api as api  # the fixture

# A declared VM that makes way: the server has a CPU for each of its VMs and none besides.
AWAY = {"name": "archive", "image": "tiny", "vcpus": 1, "memory_mib": 192, "state": "absent"}
# To the last word: a line may be read while it is written.
SAYS = re.compile(r"ppn-guest data machine_id=(\S+) boots=(\d+) check=(new|ok|bad)")


@pytest.fixture
def room(pool: LabPool, api: Api) -> Iterator[None]:
    """Room for one VM on the server; what made way is declared again at the end."""
    try:
        pool.run("server", f"echo {quote(json.dumps(AWAY))} | ppn host apply")
        eventually(lambda: api.get("/nodes/server")["free_vcpus"] > 0, "the server has room")
        yield
    finally:
        run = pool.pyinfra("-y", "--limit", "server")
        assert run.returncode == 0, run.log


def said(pool: LabPool, node: str, vm: str, boots: int) -> tuple[str, str]:
    """Identity and state of a guest's own data, as it says after so many boots."""

    def look() -> tuple[str, str] | None:
        found = SAYS.findall("\n".join(pool.serial(node, vm)))
        return (found[-1][0], found[-1][2]) if found and int(found[-1][1]) == boots else None

    answer: tuple[str, str] = eventually(look, f"guest {vm} of {node}")
    return answer


@pytest.mark.usefixtures("room")
def test_a_vm_moves_from_the_server_to_the_laptop(pool: LabPool, api: Api) -> None:
    """MIG-01, MIG-02, MIG-03, INV-04: by the agents' own certificates, through the mesh."""
    vm, node = create(api, disks=[{"name": "keep", "size_gib": 1}])
    assert node == "server"
    who, check = said(pool, "server", vm, boots=1)
    before = pool.vms("server")[vm]
    assert check == "new"
    # On a terminal, which `script` is one of, it shows how far it is.
    words = quote(f"ppn vm move {vm} laptop")
    shown = pool.run("relay", f"TERM=xterm COLUMNS=120 script -qec {words} /dev/null", 1200)
    assert f"{vm} is on laptop now: running" in shown, shown
    assert len({word for word in WORDS.values() if word in shown}) >= 2, shown
    after = pool.vms("laptop")[vm]
    assert (after["uuid"], after["created"]) == (before["uuid"], before["created"])
    assert said(pool, "laptop", vm, boots=2) == (who, "ok")
    (port,) = api.get(f"/vms/{vm}")["vm"]["ports"]
    reach = partial(fetch, pool, "relay", HYPERVISORS["laptop"], port["host"])
    assert "ppn-guest" in eventually(reach, "the guest answers at the laptop")

    def released() -> bool:
        left = nothing_is_left(pool, "server", vm, before["lease"]["address"]).splitlines()
        # How it went stays readable there too.
        return all(path.startswith("/var/lib/ppn/timelines/") for path in left)

    # It is done for its customer before the source has removed what it kept until then.
    eventually(released, "nothing of it is left at the source")
    assert api.get(f"/vms/{vm}/move")["outcome"] == "done"

    def over() -> bool:
        late = pool.node("relay").run(f"ppn vm move --cancel {vm}")
        assert late.rc == 4, late.stderr
        return "move_unknown" in late.stderr

    # Until its controller has put it away it is refused as one that cannot be taken back.
    eventually(over, "no move is left to cancel")


@pytest.mark.parametrize("node", HYPERVISORS)
def test_the_node_proxy_has_no_key_of_the_agent(pool: LabPool, node: str) -> None:
    """INV-04: the one it vouches with; so who takes the proxy over reads no disk on its way."""
    host, path = pool.node(node), "/etc/ppn/tls/agent.key"
    assert (host.file(path).mode, host.file(path).user) == (0o600, "root")
    assert host.run(f"runuser -u ppn-proxy -- cat {path}").rc != 0
    held = host.check_output("systemctl cat ppn-node-proxy | grep Credential")
    assert held == "LoadCredential=node.key:/etc/ppn/tls/node.key"
