"""A VM asked for over HTTP: placed, run, changed, accounted for, removed without a trace."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from shlex import quote
from typing import Any

import pytest

from tests.lab.pool import LabPool, eventually
from tests.lab.test_3_network import fetch

CONTROLLERS = {"relay": "10.8.0.1", "server": "10.8.0.2"}
ORDER = {
    "owner": "acme",
    "image": "tiny",
    "vcpus": 1,
    "memory_mib": 160,
    "label": "web",
    "ports": [{"guest": 80}],
}
HYPERVISORS = {"server": "10.8.0.2", "laptop": "10.8.0.3"}
# Runs on a node, whose Python is there anyway: a request, and status, headers and body of its
# answer; status 0 where nobody answers.
ASK = """
import json, sys, urllib.error, urllib.request
method, url, body, key = json.loads(sys.argv[1])
headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
data = None if body is None else json.dumps(body).encode()
request = urllib.request.Request(url, data, headers, method=method)
try:
    answer = urllib.request.urlopen(request, timeout=150)
except urllib.error.HTTPError as error:
    answer = error
except OSError as error:
    print(json.dumps([0, {}, str(error)]))
    sys.exit()
print(json.dumps([answer.status, dict(answer.headers), json.loads(answer.read() or b"null")]))
"""


class Api:
    """A controller, asked from the node it runs on.

    Args:
        pool: the lab.
        node: where it runs.
    """

    def __init__(self, pool: LabPool, node: str = "relay") -> None:
        self.pool = pool
        self.node = node

    def ask(
        self, method: str, path: str, body: Any = None, key: str = ""
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body of an answer; status 0 where the controller is not there."""
        url = f"http://{CONTROLLERS[self.node]}:9203/v1{path}"
        words = json.dumps([method, url, body, key])
        text = self.pool.run(self.node, f"python3 -c {quote(ASK)} {quote(words)}")
        status, headers, found = json.loads(text)
        return status, {name.lower(): value for name, value in headers.items()}, found

    def get(self, path: str) -> Any:
        """The body of an answer that has to be a success."""
        status, _, found = self.ask("GET", path)
        assert status == 200, found
        return found

    def live(self) -> bool:
        """Whether the controller is there and hears every hypervisor."""
        status, _, fleet = self.ask("GET", "/fleet")
        return status == 200 and fleet["live"] == 2


@pytest.fixture
def api(pool: LabPool) -> Iterator[Api]:
    """A controller that hears every node; the VMs of the test go with it."""
    one = Api(pool)
    eventually(one.live, "every hypervisor is heard")
    yield one
    # A test that failed in the midst of a fault leaves nothing to the tests that follow either.
    eventually(one.live, "every hypervisor is heard again")
    for placed in one.get("/vms?owner=acme"):
        assert one.ask("DELETE", f"/vms/{placed['vm']['id']}")[0] == 200


def create(api: Api, key: str = "", **changes: Any) -> tuple[str, str]:
    """A VM that runs now: its id and its node."""
    status, _, made = api.ask("POST", "/vms", ORDER | changes, key)
    assert status == 201, made
    return made["vm"]["id"], made["node"]


def logged(pool: LabPool, node: str, unit: str, word: str) -> bool:
    """Whether a word that a service has logged is in the journal, which takes it in later."""
    found = pool.node(node).run(f"journalctl -q -u {unit} -o cat | grep -qF {word}")
    return bool(found.rc == 0)


def restarted(pool: LabPool, node: str, unit: str, pid: str) -> bool:
    """Whether a service is ready as another process: `active` is said then (`Type=notify`)."""
    asked = f"systemctl is-active -q {unit} && systemctl show -P MainPID {unit}"
    shown = pool.node(node).run(asked)
    return shown.rc == 0 and shown.stdout.strip() not in ("0", pid)


@pytest.mark.parametrize(
    ("node", "units"),
    [
        ("relay", ["ppn-fleet"]),
        ("server", ["ppn-fleet", "ppn-agent", "ppn-node-proxy", "ppn-witness"]),
        ("laptop", ["ppn-agent", "ppn-node-proxy"]),
    ],
)
def test_services_run_as_they_should(pool: LabPool, node: str, units: list[str]) -> None:
    """HOST-01, NP-07: and only the agent is root's."""
    host = pool.node(node)
    for unit in units:
        assert host.service(unit).is_running and host.service(unit).is_enabled, unit
        user = host.check_output(f"systemctl show -P User {unit}")
        assert (user == "") == (unit == "ppn-agent")
    if "ppn-agent" in units:
        pid = host.check_output("systemctl show -P MainPID ppn-agent")
        assert f"pid={pid}," not in host.check_output("ss -Hltunp")
        assert host.check_output("ss -Hlx src /run/ppn/agent.sock | wc -l") == "1"
        refused = host.run("runuser -u nobody -- socat -u UNIX-CONNECT:/run/ppn/agent.sock -")
        assert refused.rc != 0


def test_a_vm_over_http_from_order_to_removal(pool: LabPool, api: Api) -> None:
    """FLEET-01, FLEET-10, FLEET-18, HOST-13, IP-02: with one correlation id at every hop."""
    status, headers, made = api.ask("POST", "/vms", ORDER, "lab-1")
    assert (status, made["vm"]["state"]) == (201, "running"), made
    vm, node = made["vm"]["id"], made["node"]
    correlation = headers["ppn-correlation-id"]
    for where, unit in (("relay", "ppn-fleet"), (node, "ppn-node-proxy"), (node, "ppn-agent")):
        eventually(partial(logged, pool, where, unit, correlation), f"{unit} has logged it")
    assert api.ask("POST", "/vms", ORDER, "lab-1")[::2] == (200, api.get(f"/vms/{vm}"))
    (port,) = made["vm"]["ports"]
    reach = partial(fetch, pool, "relay", HYPERVISORS[node], port["host"])
    assert "ppn-guest" in eventually(reach, "the guest answers at its node")
    other = Api(pool, "server")
    eventually(lambda: other.ask("GET", f"/vms/{vm}")[0] == 200, "the other controller knows it")
    pid = pool.vms(node)[vm]["pid"]
    attached = api.ask("POST", f"/vms/{vm}/disks", {"name": "data", "size_gib": 1})
    assert attached[0] == 201 and attached[2]["vm"]["disks"], attached
    assert pool.vms(node)[vm]["pid"] == pid
    assert api.ask("POST", f"/vms/{vm}/stop")[0] == 200
    assert api.ask("DELETE", f"/vms/{vm}/disks/data?discard=true")[0] == 200
    resized = api.ask("PATCH", f"/vms/{vm}", {"memory_mib": 128})
    assert resized[2]["vm"]["memory_mib"] == 128, resized
    assert api.ask("POST", f"/vms/{vm}/start")[2]["vm"]["state"] == "running"
    steps = {step["name"] for step in api.get(f"/vms/{vm}/timeline")["operations"][0]["steps"]}
    assert {"admit", "define", "start"} <= steps
    assert api.ask("DELETE", f"/vms/{vm}")[2] == {"id": vm, "nodes": [node]}
    assert nothing_is_left(pool, node, vm, made["vm"]["address"]) == ""
    assert api.ask("GET", f"/vms/{vm}")[0] == 404


def nothing_is_left(pool: LabPool, node: str, vm: str, address: str) -> str:
    """What still names a VM on its node: processes, files, domains, rules; empty for nothing."""
    return pool.run(
        node,
        f"pgrep -af 'guest={vm},' | grep -v pgrep; ls -d /var/lib/ppn/vms/*{vm}* 2>/dev/null;"
        f" virsh list --all --name | grep -F {vm}; nft list ruleset | grep -wF {address};"
        f" find /run/ppn /var/lib/ppn -name '*{vm}*'; true",
    )


def test_a_pool_without_room_says_why_of_each_node(pool: LabPool, api: Api) -> None:
    """FLEET-03, FLEET-12, FLEET-14: and a batch that does not fit leaves nothing."""
    _, node = create(api)
    assert node == "laptop", "the server is full, so the reserved node is used"
    status, _, refused = api.ask("POST", "/vms", ORDER)
    assert (status, refused["code"]) == (409, "no_capacity")
    assert {one["node"]: one["code"] for one in refused["nodes"]} == {
        "server": "vcpus_exhausted",
        "laptop": "vcpus_exhausted",
    }
    before = len(api.get("/vms"))
    status, _, batch = api.ask("POST", "/batches", {"vms": [ORDER, ORDER]})
    assert (status, batch["code"]) == (409, "no_capacity")
    assert len(api.get("/vms")) == before


@pytest.mark.fault(
    "kill -9 of agent, node proxy and controller in the lab",
    "systemd starts them again; the VM keeps its process and is known again",
)
def test_killed_services_come_back_and_nothing_is_lost(pool: LabPool, api: Api) -> None:
    """FLEET-19, HOST-06: kill -9 of agent, proxy and controller beside a VM that runs."""
    vm, node = create(api)
    before = pool.vms(node)[vm]
    killed = ((node, "ppn-agent"), (node, "ppn-node-proxy"), ("relay", "ppn-fleet"))
    pids = [pool.run(where, f"systemctl show -P MainPID {unit}") for where, unit in killed]
    for where, unit in killed:
        pool.run(where, f"systemctl kill -s KILL {unit}")

    def found() -> bool:
        status, _, placed = api.ask("GET", f"/vms/{vm}")
        return status == 200 and placed["vm"]["owner"] == "acme" and not placed["stale"]

    for (where, unit), pid in zip(killed, pids, strict=True):
        eventually(partial(restarted, pool, where, unit, pid), f"{unit} is back")
    eventually(found, "the controller knows the VM again")
    after = pool.vms(node)[vm]
    assert (after["pid"], after["state"]) == (before["pid"], "running")
    assert api.ask("DELETE", f"/vms/{vm}")[0] == 200


@pytest.mark.fault(
    "kill -9 of libvirtd in the lab, as it starts a VM",
    "systemd starts it again without the record of that start; VMs keep their processes",
)
def test_libvirtd_that_is_killed_comes_back(pool: LabPool) -> None:
    """HOST-11, HLT-06: and it takes up the record of no VM that has no QEMU."""
    before = {vm: view["pid"] for vm, view in pool.vms("server").items() if view["pid"]}
    pid = pool.run("server", "systemctl show -P MainPID libvirtd")
    record, begun = f"/run/libvirt/qemu/{min(before)}.xml", "/run/libvirt/qemu/begun.xml"
    pool.run("server", f"""sed "s/ pid='[0-9]*'/ pid='0'/" {record} >{begun}""")
    pool.run("server", "systemctl kill -s KILL libvirtd")
    eventually(partial(restarted, pool, "server", "libvirtd", pid), "libvirtd is back")
    assert pool.node("server").run(f"test -e {begun}").rc == 1
    assert {vm: view["pid"] for vm, view in pool.vms("server").items() if view["pid"]} == before


@pytest.mark.fault(
    "the mesh is cut between a node and the rest",
    "it is no candidate, its VM runs on, and both are known again once the cut is healed",
)
def test_a_node_that_is_cut_off_is_no_candidate(pool: LabPool, api: Api) -> None:
    """FLEET-16: for over a minute; its VM runs on, and both are known again afterwards."""
    vm, node = create(api)
    assert node == "laptop"
    try:
        for port in ("relay", "site-a"):
            pool.lab("cut", "site-b", port)
        healed = time.monotonic() + 61
        eventually(lambda: api.get("/nodes/laptop")["stale"], "the laptop is stale")
        status, _, refused = api.ask("POST", "/vms", ORDER)
        assert (status, {one["code"] for one in refused["nodes"]}) == (
            409,
            {"vcpus_exhausted", "node_stale"},
        )
        assert api.get(f"/vms/{vm}")["stale"] is True
        assert api.ask("DELETE", f"/vms/{vm}")[0] in (503, 504)
        time.sleep(max(healed - time.monotonic(), 0))
    finally:
        for port in ("relay", "site-a"):
            pool.lab("heal", "site-b", port)
    eventually(lambda: not api.get("/nodes/laptop")["stale"], "the laptop is heard again")
    placed = api.get(f"/vms/{vm}")
    assert (placed["stale"], placed["vm"]["state"]) == (False, "running")


def test_heartbeats_from_elsewhere_are_refused(pool: LabPool, api: Api) -> None:
    """FLEET-08: the laptop cannot speak for the server, and no node may use the API."""
    words = json.dumps(["GET", "http://10.8.0.1:9203/v1/vms", None, ""])
    status, _, refused = json.loads(pool.run("laptop", f"python3 -c {quote(ASK)} {quote(words)}"))
    assert (status, refused["code"]) == (403, "source_wrong")
    beat = {"version": 1, "node": "server", "session": "0" * 32, "sequence": 1}
    words = json.dumps(["POST", "http://10.8.0.1:9203/v1/heartbeats", beat, ""])
    status, _, refused = json.loads(pool.run("laptop", f"python3 -c {quote(ASK)} {quote(words)}"))
    assert status in (400, 403) and not api.get("/nodes/server")["stale"]
