"""The node proxy's HTTP requests as what the agent is asked: one table, read whole or refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from ppn.errors import Refusal
from ppn.host.spec import Disk, VmSpec
from ppn.wire import agent, moving
from ppn.wire.diagnosis import Examination, Inspection
from ppn.wire.fleet import NvmeOrder, ResizeOrder
from ppn.wire.model import CORRELATION_HEADER, CORRELATION_PATTERN, malformed

TICKET_HEADER = "Ppn-Ticket"
OPENAPI_PATH = "/v1/openapi.json"
JSON_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8"})
VERSION_SEGMENT = re.compile(r"v[0-9]{1,9}")
NUMBER = re.compile(r"[0-9]{1,9}")
MAX_QUERY_FIELDS = 4

# What the agent is asked through this proxy.
Asked = agent.Change | agent.Question | agent.Delivery


class MethodUnknown(Refusal):
    """A path that is known, asked with a method that it has not.

    Args:
        allowed: the methods it has.
    """

    def __init__(self, *allowed: str) -> None:
        super().__init__(
            "this path has no such method",
            code="method_unknown",
            constraint="wire contract",
            hint=f"use {', '.join(sorted(allowed))}",
        )
        self.allowed = tuple(sorted(allowed))


@dataclass(frozen=True)
class Route:
    """One thing that can be asked over HTTP.

    Args:
        method: of HTTP.
        path: with its variable parts in braces, which are fields of the operation.
        operation: what the agent is asked.
        summary: one sentence for the API's description.
        answer: what the agent answers.
        body: what the request carries, if anything.
        field: the operation's field that takes the whole body; without it the body's own fields
            are the operation's.
        query: fields of the operation that may stand in the query.
    """

    method: str
    path: str
    operation: type[Asked]
    summary: str
    answer: type[BaseModel]
    body: type[BaseModel] | None = None
    field: str | None = None
    query: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The operation's name on the wire."""
        return str(self.operation.model_fields["operation"].default)


VM = "/v1/vms/{vm}"

ROUTES = (
    Route("GET", "/v1/node", agent.ShowNode, "The node as its agent sees it.", agent.AgentReport),
    Route("GET", "/v1/vms", agent.ListVms, "Every VM of the node.", agent.VmList),
    Route("POST", "/v1/vms", agent.Spawn, "Make a VM and start it.", agent.Changed, VmSpec, "vm"),
    Route("GET", VM, agent.ShowVm, "One VM.", agent.OneVm),
    Route(
        "DELETE",
        VM,
        agent.Destroy,
        "Stop a VM and remove all it had; with `uuid` that very one alone.",
        agent.Changed,
        query=("uuid",),
    ),
    Route("PATCH", VM, agent.Resize, "Other figures for a stopped VM.", agent.Changed, ResizeOrder),
    Route("POST", f"{VM}/stop", agent.Stop, "Stop a VM.", agent.Changed),
    Route("POST", f"{VM}/start", agent.Start, "Start a VM that was stopped.", agent.Changed),
    Route(
        "POST", f"{VM}/disks", agent.Attach, "Give a VM one more disk.", agent.Changed, Disk, "disk"
    ),
    Route(
        "DELETE",
        f"{VM}/disks/{{disk}}",
        agent.Detach,
        "Take a disk from a VM; `discard` removes its data too.",
        agent.Changed,
        query=("discard",),
    ),
    Route(
        "POST",
        f"{VM}/nvme",
        agent.AttachNvme,
        "Give a running VM a whole NVMe drive; answers once its memory is steady.",
        agent.Changed,
        NvmeOrder,
    ),
    Route(
        "DELETE",
        f"{VM}/nvme/{{address}}",
        agent.DetachNvme,
        "Take an NVMe drive from a VM.",
        agent.Changed,
    ),
    Route(
        "GET",
        f"{VM}/timeline",
        agent.ShowTimeline,
        "The steps of a VM's last operations.",
        agent.Timeline,
    ),
    Route(
        "GET",
        f"{VM}/console",
        agent.ShowConsole,
        "The end of what a guest wrote to its console.",
        agent.Console,
        query=("bytes",),
    ),
    Route("GET", f"{VM}/inspect", agent.Inspect, "What a VM is made of.", Inspection),
    Route("GET", "/v1/examination", agent.Examine, "The node beyond its VMs.", Examination),
    Route("GET", f"{VM}/move", moving.ShowMove, "How far a VM's move is.", moving.MoveView),
    Route(
        "POST",
        f"{VM}/move",
        moving.MoveStep,
        "One step of a VM's move.",
        moving.MoveView,
        moving.StepOrder,
    ),
    Route(
        "POST",
        f"{VM}/arrival",
        moving.PrepareArrival,
        "Keep room for a VM that comes from another node.",
        moving.Prepared,
        moving.ArrivalOrder,
    ),
    Route(
        "POST",
        f"{VM}/departure",
        moving.Depart,
        "Stop a VM and send it to another node.",
        moving.MoveView,
        moving.DepartureOrder,
    ),
    Route(
        "POST",
        f"{VM}/arrival/greeting",
        moving.Greet,
        "For the node a VM comes from: how to seal it, and what has come.",
        moving.Greeting,
        moving.GreetOrder,
    ),
    Route(
        "POST",
        f"{VM}/arrival/chunks",
        moving.Deliver,
        "For the node a VM comes from: a sealed piece of it.",
        moving.Delivered,
        moving.Chunk,
    ),
)
# Split once, for every request is compared with all of them.
PATTERNS = tuple((tuple(route.path.strip("/").split("/")), route) for route in ROUTES)


@dataclass(frozen=True)
class Match:
    """A route, and what its variable parts are in one request."""

    route: Route
    words: Mapping[str, str]


def find_route(method: str, path: str) -> Match:
    """The route of a request.

    Args:
        method: of HTTP.
        path: as it was sent; no name of ours needs to be encoded.

    Raises:
        Refusal: unknown version, path or method.
    """
    segments = tuple(path.removeprefix("/").split("/"))
    if segments[0] != "v1" and VERSION_SEGMENT.fullmatch(segments[0]):
        raise _refusal("version_unknown", f"version {segments[0]} is not spoken here", "use v1")
    found = ((route, _words(pattern, segments)) for pattern, route in PATTERNS)
    here = [(route, words) for route, words in found if words is not None]
    for route, words in here:
        if route.method == method:
            return Match(route, words)
    if here:
        raise MethodUnknown(*(route.method for route, _ in here))
    raise _refusal("route_unknown", "there is nothing at this path", f"see {OPENAPI_PATH}")


def read_operation(match: Match, query: bytes, body: bytes) -> Asked:
    """What the agent is asked, with every part of the request judged (NP-04).

    Args:
        match: the route with its words.
        query: after the question mark.
        body: whole.

    Raises:
        Refusal: anything wrong, unknown, missing or too much, naming each field.
    """
    route = match.route
    fields: dict[str, Any] = {**match.words, **_query_fields(route, query)}
    try:
        if route.body is not None:
            parsed = route.body.model_validate_json(body)
            check_one_reading(body)
            fields |= {route.field: parsed} if route.field else dict(parsed)
        elif body:
            raise _refusal("request_invalid", "this request has no body", "send none")
        return route.operation.model_validate(fields)
    except ValidationError as error:
        raise malformed(error) from error


def read_ticket(values: list[bytes]) -> agent.Ticket | None:
    """The ticket of a request's header.

    Raises:
        Refusal: damaged, or more than one.
    """
    if not values:
        return None
    _only_one(TICKET_HEADER, values)
    try:
        ticket = agent.Ticket.model_validate_json(values[0])
    except ValidationError as error:
        raise malformed(error) from error
    check_one_reading(values[0])
    return ticket


def read_correlation(values: list[bytes]) -> str | None:
    """The correlation id of a request's header.

    Raises:
        Refusal: damaged, or more than one.
    """
    if not values:
        return None
    _only_one(CORRELATION_HEADER, values)
    text = values[0].decode("ascii", errors="replace")
    if not re.fullmatch(CORRELATION_PATTERN, text):
        raise _refusal(
            "request_invalid",
            f"{CORRELATION_HEADER} is no correlation id",
            "use 8 to 64 letters, digits and hyphens, or leave it out",
        )
    return text


def check_media_type(values: list[bytes]) -> None:
    """Refuse a body that does not say that it is JSON.

    Raises:
        Refusal: another type, or none.
    """
    if len(values) != 1 or values[0].lower() not in JSON_TYPES:
        raise _refusal(
            "media_type_unknown", "the body is not said to be JSON", "send application/json"
        )


def check_one_reading(text: bytes) -> None:
    """Refuse JSON that two readers could understand differently.

    Args:
        text: JSON that has been parsed once, so it is not nested too deeply.

    Raises:
        Refusal: a name twice in one object, or a number that is none or infinite.
    """
    try:
        json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_finite)
    except ValueError as error:
        raise _refusal(
            "request_invalid", f"the JSON is ambiguous: {error}", "write it once"
        ) from error


def subject_of(operation: Asked) -> str:
    """The VM an operation is about; empty when it is about none."""
    vm = getattr(operation, "vm", "")
    return vm.name if isinstance(vm, VmSpec) else str(vm)


def values_of(headers: Iterable[tuple[bytes, bytes]], name: str) -> list[bytes]:
    """Every value of a header.

    Args:
        headers: with names in lower case.
        name: in any case.
    """
    wanted = name.lower().encode()
    return [value for key, value in headers if key == wanted]


def _words(pattern: tuple[str, ...], segments: tuple[str, ...]) -> dict[str, str] | None:
    """What the variable parts of a path are, or None when the path is another's."""
    if len(segments) != len(pattern):
        return None
    words = {}
    for part, segment in zip(pattern, segments, strict=True):
        if part.startswith("{"):
            words[part[1:-1]] = segment
        elif part != segment:
            return None
    return words


def _query_fields(route: Route, query: bytes) -> dict[str, object]:
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            max_num_fields=MAX_QUERY_FIELDS,
        )
    except ValueError as error:
        raise _refusal("request_invalid", "the query is damaged", "see its fields") from error
    fields = dict(pairs)
    unknown = sorted(fields.keys() - set(route.query))
    if unknown or len(fields) != len(pairs):
        raise _refusal(
            "request_invalid",
            "the query has fields that are unknown here or stand twice",
            f"known here: {', '.join(route.query) or 'none'}",
        )
    return {key: _typed(value) for key, value in fields.items()}


def _typed(text: str) -> object:
    """A value of a query as JSON would have it; what is neither number nor truth stays a text."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if NUMBER.fullmatch(text) else text


def _unique(pairs: list[tuple[str, Any]]) -> None:
    """Judge one object; its content is not kept."""
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice in one object")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> None:
    if not math.isfinite(float(text)):
        raise ValueError("a number is too large")


def _only_one(header: str, values: list[bytes]) -> None:
    if len(values) != 1:
        raise _refusal("request_invalid", f"{header} stands {len(values)} times", "send it once")


def _refusal(code: str, message: str, hint: str) -> Refusal:
    return Refusal(message, code=code, constraint="wire contract", hint=hint)
