"""HTTP requests as what the agent is asked: read whole, or refused with each field named."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import Refusal
from ppn.host.proxy import routes
from ppn.host.proxy.routes import ROUTES, find_route, read_operation
from ppn.host.spec import Disk, VmSpec
from ppn.wire import agent
from ppn.wire.problems import status_of
from tests.unit.host.builders import UUID

SPEC = {"name": "web", "image": "tiny", "vcpus": 2, "memory_mib": 256}


def ask(method: str, target: str, body: Any = b"") -> routes.Asked:
    path, _, query = target.partition("?")
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_operation(find_route(method, path), query.encode(), content)


def refusal(method: str, target: str, body: Any = b"") -> Refusal:
    with pytest.raises(Refusal) as caught:
        ask(method, target, body)
    return caught.value


@pytest.mark.parametrize(
    ("method", "target", "body", "wanted"),
    [
        ("POST", "/v1/vms", SPEC, agent.Spawn(vm=VmSpec.model_validate(SPEC))),
        ("DELETE", "/v1/vms/web", b"", agent.Destroy(vm="web")),
        ("DELETE", f"/v1/vms/web?uuid={UUID}", b"", agent.Destroy(vm="web", uuid=UUID)),
        ("POST", "/v1/vms/web/stop", b"", agent.Stop(vm="web")),
        ("POST", "/v1/vms/web/start", b"", agent.Start(vm="web")),
        ("PATCH", "/v1/vms/web", {"vcpus": 4}, agent.Resize(vm="web", vcpus=4)),
        ("PATCH", "/v1/vms/web", {"memory_mib": 512}, agent.Resize(vm="web", memory_mib=512)),
        (
            "POST",
            "/v1/vms/web/disks",
            {"name": "data", "size_gib": 1},
            agent.Attach(vm="web", disk=Disk(name="data", size_gib=1)),
        ),
        ("DELETE", "/v1/vms/web/disks/data", b"", agent.Detach(vm="web", disk="data")),
        (
            "DELETE",
            "/v1/vms/web/disks/data?discard=true",
            b"",
            agent.Detach(vm="web", disk="data", discard=True),
        ),
        (
            "POST",
            "/v1/vms/web/nvme",
            {"address": "0000:01:00.0"},
            agent.AttachNvme(vm="web", address="0000:01:00.0"),
        ),
        (
            "DELETE",
            "/v1/vms/web/nvme/0000:01:00.0",
            b"",
            agent.DetachNvme(vm="web", address="0000:01:00.0"),
        ),
        ("GET", "/v1/vms", b"", agent.ListVms()),
        ("GET", "/v1/vms/web", b"", agent.ShowVm(vm="web")),
        ("GET", "/v1/vms/web/timeline", b"", agent.ShowTimeline(vm="web")),
        ("GET", "/v1/vms/web/console?bytes=10", b"", agent.ShowConsole(vm="web", bytes=10)),
        ("GET", "/v1/node", b"", agent.ShowNode()),
    ],
)
def test_every_request_is_its_operation(
    method: str, target: str, body: Any, wanted: routes.Asked
) -> None:
    """NP-09."""
    assert ask(method, target, body) == wanted


def test_every_operation_of_a_controller_can_be_asked() -> None:
    """NP-05: and none that is for root alone (FLEET-21)."""
    wanted = {*get_args(agent.Change), *get_args(agent.Question), *get_args(agent.Delivery)}
    assert {route.operation for route in ROUTES} == wanted
    assert len(ROUTES) == len(wanted)


@pytest.mark.parametrize(
    ("method", "target", "body", "said"),
    [
        ("POST", "/v1/vms", SPEC | {"vcpus": "2"}, "vcpus"),
        ("POST", "/v1/vms", SPEC | {"vcpus": 2.0}, "vcpus"),
        ("POST", "/v1/vms", SPEC | {"vcpus": True}, "vcpus"),
        ("POST", "/v1/vms", SPEC | {"vcpus": 0}, "vcpus"),
        ("POST", "/v1/vms", SPEC | {"vcpus": 513}, "vcpus"),
        ("POST", "/v1/vms", SPEC | {"vcpus": None}, "vcpus"),
        ("POST", "/v1/vms", SPEC | {"memory_mib": 2**63}, "memory_mib"),
        ("POST", "/v1/vms", SPEC | {"name": "Web"}, "name"),
        ("POST", "/v1/vms", SPEC | {"name": "web\n"}, "name"),
        ("POST", "/v1/vms", SPEC | {"name": "../web"}, "name"),
        ("POST", "/v1/vms", SPEC | {"image": ""}, "image"),
        ("POST", "/v1/vms", SPEC | {"weight": 100}, "weight"),
        ("POST", "/v1/vms", SPEC | {"disks": [{"name": "root", "size_gib": 1}]}, "disks.0.name"),
        ("POST", "/v1/vms", SPEC | {"disks": {}}, "disks"),
        ("POST", "/v1/vms", {k: v for k, v in SPEC.items() if k != "image"}, "image"),
        ("POST", "/v1/vms", [SPEC], "body"),
        ("POST", "/v1/vms", b"", "body"),
        ("POST", "/v1/vms", b"\xff\xfe", "body"),
        ("POST", "/v1/vms", json.dumps(SPEC).encode() + b"{}", "body"),
        ("POST", "/v1/vms", b"[" * 100_000, "body"),
        ("POST", "/v1/vms", b'{"name":"web","name":"db"}', "image"),
        ("PATCH", "/v1/vms/web", {"vm": "db", "vcpus": 2}, "vm"),
        ("PATCH", "/v1/vms/web", {"vcpus": 0}, "vcpus"),
        ("POST", "/v1/vms/web/disks", {"name": "data", "size_gib": 0}, "size_gib"),
        ("POST", "/v1/vms/web/stop", {"force": True}, "no body"),
        ("GET", "/v1/vms/Web", b"", "vm"),
        ("GET", "/v1/vms/%77eb", b"", "vm"),
        ("GET", "/v1/vms/web?x=1", b"", "query"),
        ("GET", "/v1/vms/web/console?bytes=0", b"", "bytes"),
        ("GET", "/v1/vms/web/console?bytes=-1", b"", "bytes"),
        ("GET", "/v1/vms/web/console?bytes=1e3", b"", "bytes"),
        ("GET", "/v1/vms/web/console?bytes=99999999", b"", "bytes"),
        ("GET", "/v1/vms/web/console?bytes=1&bytes=2", b"", "query"),
        ("GET", "/v1/vms/web/console?bytes", b"", "query"),
        ("GET", "/v1/vms/web/console?&&&&&&", b"", "query"),
        ("DELETE", "/v1/vms/web/disks/data?discard=1", b"", "discard"),
        ("DELETE", "/v1/vms/web?uuid=1", b"", "uuid"),
        ("DELETE", f"/v1/vms/web?uuid={UUID[:-1]}", b"", "uuid"),
        ("POST", "/v1/vms/web/nvme", {"address": "01:00.0"}, "address"),
        ("POST", "/v1/vms/web/nvme", {"address": "0000:01:00.0", "vm": "db"}, "vm"),
        ("DELETE", "/v1/vms/web/nvme/0000:01:00.8", b"", "address"),
        ("DELETE", "/v1/vms/web/disks/data?discard=yes", b"", "discard"),
        ("GET", "/v2/vms", b"", "version v2"),
    ],
)
def test_what_breaks_the_contract_is_400_and_named(
    method: str, target: str, body: Any, said: str
) -> None:
    """NP-04, NP-05: wrong types, ranges, extra and missing fields, another version."""
    found = refusal(method, target, body)
    assert (status_of(found), said in found.message) == (400, True), found.message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"vcpus": 2', '"vcpus": 2, "vcpus": 4'),
        ('"vcpus": 2', '"vcpus": 2, "user_data": {"a": 1, "a": 2}'),
        ('"vcpus": 2', '"vcpus": 2, "user_data": {"a": [{"b": 1, "b": 1}]}'),
        ('"vcpus": 2', '"vcpus": 2, "user_data": {"a": NaN}'),
        ('"vcpus": 2', '"vcpus": 2, "user_data": {"a": -Infinity}'),
        ('"vcpus": 2', '"vcpus": 2, "user_data": {"a": 1e999}'),
    ],
)
def test_json_that_two_readers_understand_differently_is_refused(old: str, new: str) -> None:
    """NP-04: each of these would reach the agent as something else than was sent."""
    text = json.dumps(SPEC).replace(old, new).encode()
    VmSpec.model_validate_json(text)
    assert "ambiguous" in refusal("POST", "/v1/vms", text).message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(JSON)
def test_user_data_reaches_the_agent_as_it_was_sent(value: Any) -> None:
    """NP-04, NP-09: what is taken is not changed on its way into the frame."""
    asked = ask("POST", "/v1/vms", SPEC | {"user_data": {"key": value}})
    request = agent.Request(correlation_id="c0ffee00", body=asked)
    sent = json.loads(request.model_dump_json())
    assert sent["body"]["vm"]["user_data"] == {"key": value}
    assert agent.Request.model_validate_json(request.model_dump_json()) == request


@pytest.mark.parametrize(
    ("method", "path", "code", "status"),
    [
        ("GET", "/", "route_unknown", 404),
        ("GET", "/v1", "route_unknown", 404),
        ("GET", "/v1/vms/", "request_invalid", 400),
        ("GET", "//v1/vms", "route_unknown", 404),
        ("GET", "/v1/vms/web/../x", "route_unknown", 404),
        ("GET", "/v12345678901/vms", "route_unknown", 404),
        ("PUT", "/v1/vms", "method_unknown", 405),
        ("HEAD", "/v1/vms", "method_unknown", 405),
        ("POST", "/v1/vms/web", "method_unknown", 405),
        ("POST", "/v1/enforce", "route_unknown", 404),
    ],
)
def test_unknown_places(method: str, path: str, code: str, status: int) -> None:
    found = refusal(method, path)
    assert (found.code, status_of(found)) == (code, status)


def test_method_hint_names_what_there_is() -> None:
    assert refusal("PUT", "/v1/vms/web").hint == "use DELETE, GET, PATCH"


TICKET = b'{"node":"server","session":"%b","nonce":"%b"}' % (b"5" * 32, b"a" * 32)


def test_ticket_is_read() -> None:
    """HOST-02."""
    assert routes.read_ticket([]) is None
    assert routes.read_ticket([TICKET]) == agent.Ticket.model_validate_json(TICKET)


@pytest.mark.parametrize(
    "values",
    [
        [TICKET, TICKET],
        [b""],
        [b"null"],
        [TICKET.replace(b"5", b"g")],
        [TICKET.replace(b"}", b',"more":1}')],
        [TICKET.replace(b"}", b',"node":"laptop"}')],
        [b"\xff"],
    ],
)
def test_a_damaged_ticket_is_refused(values: list[bytes]) -> None:
    """HOST-02."""
    with pytest.raises(Refusal) as caught:
        routes.read_ticket(values)
    assert status_of(caught.value) == 400


@pytest.mark.parametrize("value", [b"short", b"x" * 65, b"with space", b"a\nb" * 4, b"\xff" * 9])
def test_a_damaged_correlation_id_is_refused(value: bytes) -> None:
    with pytest.raises(Refusal):
        routes.read_correlation([value])


def test_correlation_id_is_read() -> None:
    assert routes.read_correlation([b"c0ffee00-1"]) == "c0ffee00-1"
    assert routes.read_correlation([]) is None
    with pytest.raises(Refusal):
        routes.read_correlation([b"c0ffee00-1", b"c0ffee00-1"])


@pytest.mark.parametrize("values", [[], [b"text/plain"], [b"application/json", b"text/plain"]])
def test_a_body_says_that_it_is_json(values: list[bytes]) -> None:
    with pytest.raises(Refusal) as caught:
        routes.check_media_type(values)
    assert status_of(caught.value) == 415
    routes.check_media_type([b"application/json; charset=UTF-8"])
