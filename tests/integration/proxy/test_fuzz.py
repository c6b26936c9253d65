"""Ten thousand damaged requests and answers: the agent hears of none, and the proxy stays up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppn.errors import Refusal
from ppn.host.proxy.routes import (
    ROUTES,
    check_media_type,
    find_route,
    read_operation,
    read_ticket,
)
from ppn.pool.tls import TlsFiles
from ppn.wire.agent import Request, Response
from ppn.wire.frames import FrameInvalid, encode_frame, payload_length
from tests.integration.proxy.parts import SPEC, TICKET, Proxy, done, proxy_with_agent

# Many in one packet: what costs time here is going to and fro between processes.
AT_ONCE = 20
BODIES, FRAMES = 8000 // AT_ONCE, 2000 // AT_ONCE
FUZZ = settings(
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=6,
)
# Sound bodies with one thing changed get further than noise does.
FIELDS = [*SPEC, "owner", "disks", "hostname", "ssh_keys", "user_data", "label", "state", "extra"]
NEARLY = st.builds(
    lambda field, value: json.dumps(SPEC | {field: value}).encode(), st.sampled_from(FIELDS), JSON
)
CUT = st.builds(lambda body, at: body[:at], NEARLY, st.integers(0, 200))
BODY = st.binary(max_size=64) | JSON.map(lambda value: json.dumps(value).encode()) | NEARLY | CUT
TARGETS = [route.path.format(vm="web", disk="data", address="0000:01:00.0") for route in ROUTES]
TARGET = st.sampled_from(TARGETS) | st.from_regex(r"/[!-~]{0,40}", fullmatch=True)
METHOD = st.sampled_from(["GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS"])
TICKETS = st.sampled_from([TICKET]) | st.dictionaries(st.sampled_from(sorted(TICKET)), JSON)


class Wire:
    """A raw connection, which the proxy never has a reason to end here."""

    def __init__(self, proxy: Proxy, files: TlsFiles) -> None:
        self.proxy = proxy
        self.line = proxy.connect(files)
        self.rest = b""

    def ask(self, *requests: bytes) -> list[tuple[int, bytes]]:
        """Send requests in one go; returns the status and the body of each answer."""
        self.line.sendall(b"".join(requests))
        return [self._answer() for _ in requests]

    def _answer(self) -> tuple[int, bytes]:
        head = self._take(lambda data: data.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else 0)
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        length = int(fields[b"content-length"])
        body = self._take(lambda data: length if len(data) >= length else 0)
        return int(head.split()[1]), body

    def _take(self, end: Callable[[bytes], int]) -> bytes:
        while not (at := end(self.rest)):
            data = self.line.recv(65536)
            if not data:
                raise ConnectionError("ended before it had answered")
            self.rest += data
        found, self.rest = self.rest[:at], self.rest[at:]
        return found


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """A connection of a controller to a proxy of its own."""
    with proxy_with_agent(tmp_path_factory.mktemp("fuzz")) as proxy:
        found = Wire(proxy, proxy.authority.issue("relay", "controller"))
        yield found
        found.line.close()


def is_sound(method: str, target: str, ticket: bytes, body: bytes) -> bool:
    """Whether the contract allows a request, judged by the functions the proxy uses."""
    path, _, query = target.partition("?")
    try:
        match = find_route(method, path)
        found = read_ticket([ticket])
        if match.route.body is not None:
            check_media_type([b"application/json"])
        read_operation(match, query.encode(), body)
    except Refusal:
        return False
    is_change = method != "GET"
    return not is_change or (found is not None and found.node == TICKET["node"])


@settings(FUZZ, max_examples=BODIES)
@given(st.lists(st.tuples(METHOD, TARGET, TICKETS, BODY), min_size=AT_ONCE, max_size=AT_ONCE))
def test_damaged_requests_never_reach_the_agent(
    wire: Wire, requests: list[tuple[str, str, Any, bytes]]
) -> None:
    """NP-04, NP-06: each damaged one is answered with a refusal, and the agent gets no byte."""
    agent = wire.proxy.agent
    agent.requests.clear()
    bytes_before = agent.bytes_seen
    texts = [(one, target, json.dumps(ticket), body) for one, target, ticket, body in requests]
    sound = [is_sound(one, target, ticket.encode(), body) for one, target, ticket, body in texts]
    answers = wire.ask(*(http(*text) for text in texts))
    for (status, answer), good in zip(answers, sound, strict=True):
        assert status == 200 if good else status in (400, 403, 404, 405), answer
        assert good or json.loads(answer)["code"]
    assert len(agent.requests) == sum(sound)
    for request in agent.requests:
        Request.model_validate_json(json.dumps(request))
    assert any(sound) or agent.bytes_seen == bytes_before


def http(method: str, target: str, ticket: str, body: bytes) -> bytes:
    """A request as it goes over the wire."""
    head = f"{method} {target} HTTP/1.1\r\nHost: n\r\nContent-Type: application/json\r\n"
    return f"{head}Ppn-Ticket: {ticket}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


FRAME = (
    st.binary(min_size=1, max_size=64)
    | st.binary(max_size=64).map(lambda data: len(data).to_bytes(4, "big") + data)
    | JSON.map(lambda value: encode_frame(json.dumps({"result": value}).encode()))
    | st.dictionaries(st.sampled_from(sorted(Response.model_fields)), JSON).map(
        lambda value: encode_frame(json.dumps(value).encode())
    )
)


def is_whole(frame: bytes) -> bool:
    """Whether the proxy can know that nothing more is to come."""
    try:
        return len(frame) >= 4 and len(frame) >= 4 + payload_length(frame[:4])
    except FrameInvalid:
        return True


@settings(FUZZ, max_examples=FRAMES)
@given(st.lists(FRAME.filter(is_whole), min_size=AT_ONCE, max_size=AT_ONCE))
def test_damaged_answers_are_bad_gateways(wire: Wire, frames: list[bytes]) -> None:
    """NP-06, NP-10: and the next answer is taken as ever."""
    coming = iter(frames)
    wire.proxy.agent.reply = lambda request: next(coming)
    try:
        answers = wire.ask(*[b"GET /v1/vms HTTP/1.1\r\nHost: n\r\n\r\n"] * len(frames))
    finally:
        wire.proxy.agent.reply = done
    for status, answer in answers:
        assert (status, json.loads(answer)["code"]) == (502, "agent_failed")


def test_after_all_that_it_serves(wire: Wire) -> None:
    """NP-06: the same process, and nothing in its log that it did not expect."""
    ((status, _),) = wire.ask(b"GET /v1/vms HTTP/1.1\r\nHost: n\r\n\r\n")
    assert status == 200
    assert wire.proxy.process.poll() is None
    log = Path(wire.proxy.log).read_text()
    assert "Traceback" not in log
    assert '"level": "error"' not in log
