"""Nothing of ours looks into a guest, and the halves of the house that may not meet do not."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from ppn.host.domain import DirectBoot, DomainInput, domain_xml
from ppn.host.model import Accelerator, NodeState, Pins
from ppn.host.network import interface_of
from ppn.host.paths import Paths
from ppn.host.proxy.policy import Forbidden, check_caller
from ppn.pool.tls import Identity
from ppn.wire.agent import Operation
from ppn.wire.heartbeat import Heartbeat
from tests.unit.host.builders import UUID, make_spec

CHECKOUT = Path(__file__).resolve().parents[2]
PPN = CHECKOUT / "ppn"
SOURCES = sorted(PPN.rglob("*.py"))

# Everything ppn asks of libvirt: to make, end and size domains, and to read its own description.
LIBVIRT_CALLS = {
    "UUIDString",
    "XMLDesc",
    "attachDeviceFlags",
    "blockResize",
    "close",
    "create",
    "defineXML",
    "destroy",
    "detachDeviceFlags",
    "getAllDomainStats",
    "isActive",
    "lookupByName",
    "name",
    "pinVcpuFlags",
    "schedulerParametersFlags",
    "setMemoryFlags",
    "setSchedulerParametersFlags",
    "shutdown",
    "undefineFlags",
}
# Ways into a guest's memory, disks, screen, file systems and programs: libvirt's, QEMU's, others'.
WAYS_IN = (
    "memoryPeek",
    "blockPeek",
    "coreDump",
    "screenshot",
    "managedSave",
    "migrateToURI",
    "openChannel",
    "openConsole",
    "qemuAgentCommand",
    "qemuMonitorCommand",
    "fsInfo",
    "guestInfo",
    "dump-guest-memory",
    "pmemsave",
    "memsave",
    "screendump",
    "guest-exec",
    "guest-file-read",
    "human-monitor-command",
    "qemu-monitor-command",
    "qemu-agent-command",
    "qemu-nbd",
    "qemu-io",
    "nbd-server-start",
    "guestfish",
    "guestmount",
    "virsh",
    "libvirt_qemu",
    "process_vm_readv",
    "gcore",
)
# What a VM is made of; no agent channel, no shared folder or memory, no screen, no socket.
DEVICES = {"controller", "disk", "interface", "hostdev", "serial", "console", "memballoon", "rng"}


def attributes(path: Path) -> set[str]:
    """Every attribute a file names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_libvirt_is_asked_for_nothing_of_a_guests_inside() -> None:
    """INV-04: the whole list of calls; whoever adds one answers for it here."""
    libvirt = pytest.importorskip("libvirt")
    known = {*dir(libvirt.virDomain), *dir(libvirt.virConnect)}
    # One is a method of ours too.
    named = attributes(PPN / "host" / "backend.py") | attributes(PPN / "host" / "domain_facts.py")
    assert named & known - {"undefine"} == LIBVIRT_CALLS
    assert not LIBVIRT_CALLS & set(WAYS_IN)


def test_no_source_names_a_way_into_a_guest() -> None:
    """INV-04."""
    texts = {path: path.read_text(encoding="utf-8") for path in SOURCES}
    assert [(path, way) for path, text in texts.items() for way in WAYS_IN if way in text] == []


@pytest.mark.parametrize("way", WAYS_IN)
def test_the_agent_does_not_know_the_way_either(way: str) -> None:
    """INV-04: refused by the contract, before anything is done."""
    known: TypeAdapter[Any] = TypeAdapter(Operation)
    with pytest.raises(ValidationError):
        known.validate_python({"operation": way, "vm": "web"})


DRIVES = st.lists(st.sampled_from(["0000:01:00.0", "0000:02:00.1"]), max_size=2, unique=True)


@given(
    accelerator=st.sampled_from(["kvm", "tcg"]),
    weight=st.sampled_from([None, 100]),
    pins=st.sampled_from([None, Pins(cpus=(2, 3), nodes=(0,))]),
    networked=st.booleans(),
    direct=st.booleans(),
    drives=DRIVES,
    disks=st.integers(0, 3),
)
def test_no_kind_of_vm_has_a_channel_a_shared_folder_or_a_screen(
    accelerator: Accelerator,
    weight: int | None,
    pins: Pins | None,
    networked: bool,
    direct: bool,
    drives: list[str],
    disks: int,
) -> None:
    """INV-02, INV-04: an allow-list of devices, for every kind of VM there is."""
    boot = DirectBoot(Path("/images/tiny/kernel"), None, "console=ttyS0") if direct else None
    interface = interface_of(UUID) if networked else None
    paths = Paths(Path("/")).vm("web")
    made = DomainInput(UUID, paths, boot, accelerator, weight, pins, interface, tuple(drives))
    spec = make_spec(disks=[{"name": f"d{number}", "size_gib": 1} for number in range(disks)])
    domain = fromstring(domain_xml(spec, made))
    assert {device.tag for device in domain.iterfind("devices/*")} <= DEVICES
    assert domain.find("memoryBacking") is None and domain.find("sysinfo") is None
    # Namespaces of libvirt's own let XML add arguments of QEMU's.
    assert not [one for one in domain.iter() if "libvirt.org" in one.tag]
    for disk in domain.iterfind("devices/disk"):
        assert disk.get("device") == "disk" and disk.find("shareable") is None


# Text in a heartbeat: names, identities, hardware, and what is wrong in the node's own words.
TEXTS = {
    "address",
    "backing",
    "code",
    "cpu_model",
    "created",
    "digest",
    "drives",
    "hint",
    "id",
    "image",
    "label",
    "message",
    "model",
    "name",
    "node",
    "owner",
    "problems",
    "range",
    "reason",
    "session",
    "subject",
    "used_by",
    "uuid",
}


def texts(whole: Mapping[str, Any], part: Any, name: str = "", seen: tuple[str, ...] = ()) -> Any:
    """Names of the fields of a JSON schema that hold free text, or anything at all."""
    if "$ref" in part:
        target = part["$ref"].rsplit("/", 1)[1]
        if target not in seen:
            defined = whole.get("$defs") or whole["components"]["schemas"]
            yield from texts(whole, defined[target], name, (*seen, target))
        return
    choices = [one for word in ("anyOf", "oneOf", "allOf") for one in part.get(word, ())]
    for one in choices:
        yield from texts(whole, one, name, seen)
    kind = part.get("type")
    if kind == "object":
        for field, value in part.get("properties", {}).items():
            yield from texts(whole, value, field, seen)
        if isinstance(part.get("additionalProperties"), dict):
            yield from texts(whole, part["additionalProperties"], name, seen)
    elif kind == "array":
        for item in [part.get("items", {}), *part.get("prefixItems", ())]:
            yield from texts(whole, item, name, seen)
    elif (kind == "string" or not (kind or choices)) and not {"enum", "const"} & set(part):
        yield name


def test_a_heartbeat_holds_figures_and_names_alone() -> None:
    """INV-01: sizes, shares and states as numbers; what is text is in this list."""
    schema = Heartbeat.model_json_schema(mode="serialization")
    assert set(texts(schema, schema)) - {""} <= TEXTS


# A guest writes its console itself; this is the one thing of its own that a route gives out.
CONSOLE = {"text"}
CONTENT = {
    "base64",
    "blob",
    "bytes",
    "content",
    "contents",
    "core",
    "data",
    "dump",
    "image_data",
    "memory",
    "page",
    "pages",
    "payload",
    "raw",
    "screenshot",
    "serial_output",
    "stdout",
    "text",
}
DOCUMENTS = sorted((CHECKOUT / "docs" / "openapi").glob("*.json"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_no_route_gives_out_what_is_in_a_guest(path: Path) -> None:
    """INV-04: every answer of every service is JSON whose fields are judged by name."""
    document = json.loads(path.read_text(encoding="utf-8"))
    for route, methods in document["paths"].items():
        for method, operation in methods.items():
            for answer in operation["responses"].values():
                for media, body in answer.get("content", {}).items():
                    assert media in ("application/json", "application/problem+json"), route
                    found = set(texts(document, body.get("schema", {}))) & CONTENT
                    allowed = CONSOLE if route.endswith("/console") else set()
                    assert found <= allowed, f"{method} {route} gives out {found}"


def logged(path: Path) -> Iterator[str]:
    """The names of all fields that a file puts into log lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            logger = node.func.value
            name = logger.id if isinstance(logger, ast.Name) else getattr(logger, "attr", "")
            if name.lstrip("_") in ("log", "logger"):
                yield from (keyword.arg for keyword in node.keywords if keyword.arg)


def test_no_log_line_carries_what_is_in_a_guest() -> None:
    """INV-04."""
    found = {name for path in SOURCES for name in logged(path)}
    assert len(found) > 10
    assert not found & (CONTENT | {"body", "console", "serial", "user_data", "output"})


METRICS = {"Counter", "Gauge", "GaugeMetricFamily", "CounterMetricFamily", "Histogram", "Summary"}
LABELS = {
    *("code", "method", "node", "operation", "outcome"),
    *("result", "route", "status", "subject", "witness"),
}


def test_metrics_are_numbers_with_few_labels() -> None:
    """INV-01: a label says which kind, which node or what is wrong, and nothing of a guest."""
    found: set[str] = set()
    for path in SOURCES:
        if "prometheus_client" not in path.read_text(encoding="utf-8"):
            continue
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") in METRICS:
                values = [*call.args, *(keyword.value for keyword in call.keywords)]
                names = [
                    name.value
                    for value in values
                    if isinstance(value, ast.List | ast.Tuple)
                    for name in value.elts
                    if isinstance(name, ast.Constant) and isinstance(name.value, str)
                ]
                found |= set(names)
    assert {"node", "code"} <= found <= LABELS


def test_facts_hold_nothing_of_a_guests_inside() -> None:
    """INV-04: neither what `ppn host state` tells, nor by a program of their own."""
    schema = NodeState.model_json_schema(mode="serialization")
    assert not set(texts(schema, schema)) & CONTENT
    for path in sorted((CHECKOUT / "facts").glob("*.py")):
        source = path.read_text(encoding="utf-8")
        assert [
            way for way in (*WAYS_IN, "qemu-img", "serial.log", ".qcow2") if way in source
        ] == []


# Compute gives VMs out; data is what models, brokers and gateways see. Neither may know the other.
COMPUTE = {"fleet", "host", "pool", "tenant"}
DATA = {"broker", "data", "gateway"}


def imports(path: Path) -> set[str]:
    """The parts of ppn that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("ppn.")}
    return found


def crossings(edges: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    """Pairs of a compute and a data part of which one reaches the other, by whatever way."""
    reached = {part: set(targets) for part, targets in edges.items()}
    for _ in edges:
        for part in reached:
            reached[part] |= {far for near in reached[part] for far in reached.get(near, ())}
    return {
        (part, target)
        for one, other in ((COMPUTE, DATA), (DATA, COMPUTE))
        for part in one
        for target in reached.get(part, set()) & other
    }


def test_compute_and_data_do_not_know_each_other() -> None:
    """INV-05, INV-06: not even through a third part."""
    edges: dict[str, set[str]] = {}
    for path in SOURCES:
        part = path.relative_to(PPN).parts[0].removesuffix(".py")
        edges.setdefault(part, set()).update(imports(path))
    # The commands are where an operator meets both.
    edges.pop("cli")
    assert COMPUTE & set(edges)
    assert crossings(edges) == set()
    assert crossings({**edges, "broker": {"wire"}, "wire": {"host"}}) >= {("broker", "host")}
    assert crossings({**edges, "pool": {"gateway"}}) >= {("pool", "gateway")}


@pytest.mark.parametrize(
    "path",
    [*sorted((PPN / "pool").glob("*.py")), PPN / "host" / "enforce.py", PPN / "host" / "cgroup.py"],
    ids=lambda path: path.relative_to(PPN).as_posix(),
)
def test_weights_and_minimums_know_no_workload(path: Path) -> None:
    """INV-02: a label or an image is nothing they could act on."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | attributes(path)
    assert not names & {"label", "labels", "image", "images", "workload", "user_data", "hostname"}


@pytest.mark.parametrize("role", ["aggregator", "broker", "gateway", "tenant-proxy", "relay"])
def test_no_part_of_the_data_layer_gets_in_at_a_node(role: str) -> None:
    """INV-05: whatever certificate the pool signed for it, a node's proxy refuses it."""
    identity = Identity("somebody", frozenset({role}), frozenset({"10.8.0.9"}), ends=2.0)
    with pytest.raises(Forbidden):
        check_caller(identity, "10.8.0.9", now=1.0)
    check_caller(replace(identity, roles=frozenset({"controller"})), "10.8.0.9", now=1.0)
