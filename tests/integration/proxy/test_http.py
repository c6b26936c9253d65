"""HTTP on one side, frames on the other, one audit line for each request."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from ppn.errors import PpnError, Refusal
from ppn.pool.tls import TlsFiles
from ppn.wire.frames import encode_frame
from ppn.wire.problems import STATUS_OF_CODE, problem_of
from tests.integration.proxy.parts import (
    HANG_UP,
    PATIENT,
    SILENT,
    SPEC,
    TICKET,
    TICKETED,
    Proxy,
    Reply,
    done,
    proxy_with_agent,
    wait_for,
)


def answering(**answer: Any) -> Any:
    """An agent that answers every request with the same."""

    def reply(request: dict[str, Any]) -> bytes:
        whole = {"correlation_id": request["correlation_id"], **answer}
        return encode_frame(json.dumps(whole).encode())

    return reply


def test_a_request_becomes_a_frame_and_its_answer_http(proxy: Proxy, http: httpx.Client) -> None:
    """NP-09, NP-10."""
    headers = TICKETED | {"Ppn-Correlation-Id": "c0ffee00-1"}
    answer = http.post("/v1/vms", json=SPEC, headers=headers)
    sent = proxy.agent.requests[-1]
    assert (sent["version"], sent["correlation_id"]) == (1, "c0ffee00-1")
    assert (sent["ticket"], sent["deadline_seconds"]) == (TICKET, PATIENT["change_seconds"])
    assert sent["body"]["operation"] == "spawn"
    assert SPEC.items() <= sent["body"]["vm"].items()
    assert (answer.status_code, answer.json()) == (200, {"did": sent["body"]})
    assert answer.headers["Ppn-Correlation-Id"] == "c0ffee00-1"


def test_a_request_without_a_correlation_id_gets_one(proxy: Proxy, http: httpx.Client) -> None:
    answer = http.get("/v1/node")
    assert proxy.agent.requests[-1]["correlation_id"] == answer.headers["Ppn-Correlation-Id"]
    assert http.get("/v1/node", headers={"Ppn-Correlation-Id": "x"}).status_code == 400


@pytest.mark.parametrize("code", [*sorted(STATUS_OF_CODE), "memory_exhausted", "libvirt_failed"])
def test_every_error_of_the_agent_has_its_status(
    proxy: Proxy, http: httpx.Client, code: str
) -> None:
    """NP-10: the code, the numbers and the hint come through."""
    error = Refusal("no", code=code, constraint="rule", wanted=2, free=1, unit="MiB", hint="wait")
    if code == "libvirt_failed":
        error = PpnError("no", code=code, hint="wait")  # type: ignore[assignment]
    problem = problem_of(error)
    proxy.agent.reply = answering(problem=problem.model_dump(mode="json"))
    answer = http.get("/v1/vms/web")
    assert answer.status_code == STATUS_OF_CODE.get(code, 500 if code == "libvirt_failed" else 409)
    assert answer.headers["content-type"] == "application/problem+json"
    wanted = problem.model_dump(mode="json")
    assert answer.json() == wanted | {"correlation_id": answer.headers["Ppn-Correlation-Id"]}


def audit(proxy: Proxy, correlation_id: str) -> dict[str, Any]:
    """The one audit line of a request."""

    def found() -> list[dict[str, Any]]:
        return [one for one in proxy.lines("request") if one["correlation_id"] == correlation_id]

    wait_for(lambda: bool(found()), "the audit line")
    (line,) = found()
    return line


def audit_of(proxy: Proxy, answer: httpx.Response) -> dict[str, Any]:
    """The one audit line of an answered request."""
    return audit(proxy, answer.headers["Ppn-Correlation-Id"])


def test_each_accept_and_each_refusal_is_one_audit_line(proxy: Proxy, http: httpx.Client) -> None:
    """NP-03: client identity, IP, operation, outcome."""
    line = audit_of(proxy, http.post("/v1/vms/web/stop", headers=TICKETED))
    wanted = {"client": "relay", "ip": "127.0.0.1", "operation": "stop", "vm": "web"}
    assert wanted.items() <= line.items()
    assert (line["outcome"], line["status"], line["level"]) == ("accepted", 200, "info")
    line = audit_of(proxy, http.post("/v1/vms", json=SPEC | {"vcpus": "2"}, headers=TICKETED))
    assert {"client": "relay", "ip": "127.0.0.1", "operation": "spawn"}.items() <= line.items()
    assert (line["outcome"], line["code"]) == ("refused", "request_invalid")
    line = audit_of(proxy, http.get("/v1/elsewhere"))
    assert (line["operation"], line["code"]) == ("unknown", "route_unknown")


def test_no_secret_gets_into_the_audit_log(proxy: Proxy, http: httpx.Client) -> None:
    """NP-03: neither what the guest is given nor a ticket that could be used again."""
    secret = {"user_data": {"password": "hunter2-hunter2"}}
    for spec in (SPEC | secret, SPEC | secret | {"vcpus": 0}):
        http.post("/v1/vms", json=spec, headers=TICKETED)
    log = proxy.log.read_text()
    assert "hunter2" not in log and TICKET["nonce"] not in log


@pytest.mark.parametrize(
    "reply",
    [
        lambda request: HANG_UP,
        lambda request: b"HTTP/1.1 200 OK\r\n\r\n",
        lambda request: b"\0\0\0\0",
        lambda request: b"\xff\xff\xff\xff",
        lambda request: encode_frame(b"no JSON"),
        lambda request: encode_frame(b"{}"),
        lambda request: done(request) + b" ",
        lambda request: done(request | {"correlation_id": "another-1"}),
        answering(result={}, problem=None, more=1),
        answering(result=None),
        answering(version=2, result={}),
    ],
)
def test_a_dead_or_mad_agent_is_no_hang(proxy: Proxy, http: httpx.Client, reply: Any) -> None:
    """NP-10: told at once, and the next request is served as ever."""
    proxy.agent.reply = reply
    answer = http.get("/v1/vms")
    assert (answer.status_code, answer.json()["code"]) == (502, "agent_failed")
    proxy.agent.reply = done
    assert http.get("/v1/vms").status_code == 200


def test_a_slow_agent_is_no_hang(tmp_path: Any) -> None:
    """NP-10: the same for one that says nothing, or half of a frame, until its time is over."""
    with (
        # The request after that has no more time; the machine may be busy.
        proxy_with_agent(tmp_path, limits={"question_seconds": 5.0}) as proxy,
        proxy.client(proxy.authority.issue("relay", "controller")) as http,
    ):
        replies: tuple[Reply, ...] = (lambda request: SILENT, lambda request: b"\0\0")
        for reply in replies:
            proxy.agent.reply = reply
            answer = http.get("/v1/vms")
            assert (answer.status_code, answer.json()["code"]) == (504, "agent_timeout")
            proxy.agent.reply = done
            assert http.get("/v1/vms").status_code == 200


def test_a_change_that_was_not_answered_is_sent_once(proxy: Proxy, http: httpx.Client) -> None:
    """NP-10: the work may have been done, so nobody asks for it again but the controller."""
    before = len(proxy.agent.requests)
    proxy.agent.reply = lambda request: HANG_UP
    assert http.post("/v1/vms", json=SPEC, headers=TICKETED).status_code == 502
    assert len(proxy.agent.requests) == before + 1


def test_a_caller_who_leaves_frees_its_place(proxy: Proxy, controller: TlsFiles) -> None:
    """NP-10: the line to the agent is closed, for its answer would be another's."""
    before = len(proxy.agent.requests)
    proxy.agent.reply = lambda request: SILENT
    with proxy.connect(controller) as line:
        line.sendall(b"GET /v1/vms HTTP/1.1\r\nHost: n\r\nPpn-Correlation-Id: leaving-1\r\n\r\n")
        wait_for(lambda: len(proxy.agent.requests) > before, "the request")
        lines = proxy.agent.lines
    wait_for(lambda: proxy.agent.lines < lines, "the line to close")
    assert audit(proxy, "leaving-1")["code"] == "caller_gone"


def test_an_agent_that_comes_back_is_asked_again(tmp_path: Any) -> None:
    """NP-10: agent down: 503; its lines of before are not used."""
    with proxy_with_agent(tmp_path) as proxy:
        agent = proxy.agent
        with proxy.client(proxy.authority.issue("relay", "controller")) as http:
            assert http.get("/v1/vms").status_code == 200
            agent.close()
            answer = http.get("/v1/vms")
            assert (answer.status_code, answer.json()["code"]) == (503, "agent_unavailable")
            again = type(agent)(agent.path)
            assert http.get("/v1/vms").status_code == 200
            assert len(again.requests) == 1
        proxy.agent = again
        # What proxy_with_agent ends is the first; this one is ours.
        agent.close = lambda: None  # type: ignore[method-assign]
        again.close()


def test_questions_do_not_wait_behind_changes(tmp_path: Any) -> None:
    """NP-11: and what finds no place in time is told so."""
    limits = {"changes": 1, "question_seconds": 5.0}
    with (
        proxy_with_agent(tmp_path, limits=limits) as proxy,
        proxy.client(proxy.authority.issue("relay", "controller")) as http,
    ):
        proxy.agent.reply = lambda one: SILENT if one["body"]["operation"] == "stop" else done(one)
        files = proxy.authority.issue("relay", "controller")
        with proxy.connect(files) as line:
            head = f"POST /v1/vms/web/stop HTTP/1.1\r\nHost: n\r\nPpn-Ticket: {json.dumps(TICKET)}"
            line.sendall(f"{head}\r\n\r\n".encode())
            wait_for(lambda: bool(proxy.agent.requests), "the change")
            assert http.get("/v1/vms").status_code == 200
            answer = http.post("/v1/vms/web/start", headers=TICKETED)
            assert (answer.status_code, answer.json()["code"]) == (503, "node_busy")
            assert len(proxy.agent.requests) == 2


def test_the_description_is_served(proxy: Proxy, http: httpx.Client) -> None:
    """NP-05."""
    before = proxy.agent.bytes_seen
    answer = http.get("/v1/openapi.json")
    assert (answer.status_code, answer.json()["openapi"]) == (200, "3.1.0")
    assert proxy.agent.bytes_seen == before
