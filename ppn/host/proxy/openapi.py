"""The node proxy's API as an OpenAPI document, made from the table that requests are read by."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ppn.host.proxy.policy import CHANGES
from ppn.host.proxy.routes import (
    OPENAPI_PATH,
    ROUTES,
    TICKET_HEADER,
    Route,
)
from ppn.host.spec import VmSpec
from ppn.wire.agent import Ticket
from ppn.wire.model import CORRELATION_HEADER, CORRELATION_PATTERN, VERSION
from ppn.wire.problems import MEDIA_TYPE, STATUS_OF_CODE, ProblemBody

COMPONENTS = "#/components/schemas/"
TEMPLATE = COMPONENTS + "{model}"
# What a sound request may still meet, and what any request may.
MAY_MEET = (400, 403, 404, 405, 408, 409, 413, 415, 500, 502, 503, 504)
OF_A_BODY = frozenset({408, 413, 415})

Schema = dict[str, Any]


@cache
def document_bytes() -> bytes:
    """The document as it is served."""
    return json.dumps(document()).encode()


def document() -> Schema:
    """The whole description, version 3.1."""
    bodies = {route.body for route in ROUTES if route.body is not None}
    answers = {route.answer for route in ROUTES}
    models: list[type[BaseModel]] = sorted(
        {*bodies, *answers, Ticket, ProblemBody}, key=lambda model: model.__name__
    )
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template=TEMPLATE
    )
    # A spec without a host name takes the VM's; the model does that, so its schema cannot know.
    schemas["$defs"][VmSpec.__name__]["required"].remove("hostname")
    paths: dict[str, Schema] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    paths[OPENAPI_PATH] = {"get": _itself()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ppn node proxy",
            "version": str(VERSION),
            "description": (
                "The only door to a node's host agent, for the pool's fleet controllers. TLS 1.3"
                " with a certificate of the pool on both sides; requests are judged whole before"
                " the agent hears of them."
            ),
        },
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }


def _operation(route: Route) -> Schema:
    found: Schema = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": [
            *(_path_parameter(route, word) for word in re.findall(r"{(\w+)}", route.path)),
            *(_parameter(route, field, "query") for field in route.query),
            *_header_parameters(ticketed=route.operation in CHANGES),
        ],
        "responses": {"200": _answer(route), **_problems(with_body=route.body is not None)},
    }
    if route.body is not None:
        reference = {"$ref": COMPONENTS + route.body.__name__}
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": reference}},
        }
    return found


def _answer(route: Route) -> Schema:
    schema = {"$ref": COMPONENTS + route.answer.__name__}
    return {"description": "Done.", "content": {"application/json": {"schema": schema}}}


def _itself() -> Schema:
    answer = {"description": "This.", "content": {"application/json": {"schema": {}}}}
    return {
        "operationId": "openapi",
        "summary": "This description.",
        "parameters": _header_parameters(ticketed=False),
        "responses": {"200": answer, **_problems(with_body=False)},
    }


def _problems(*, with_body: bool) -> Schema:
    content = {MEDIA_TYPE: {"schema": {"$ref": COMPONENTS + ProblemBody.__name__}}}
    return {
        str(status): {"description": _codes(status), "content": content}
        for status in MAY_MEET
        if with_body or status not in OF_A_BODY
    }


def _codes(status: int) -> str:
    """The stable codes that come with a status, as far as they are listed."""
    codes = sorted(code for code, known in STATUS_OF_CODE.items() if known == status)
    others = {409: "any other refusal", 500: "any other failure"}.get(status)
    return ", ".join([*(f"`{code}`" for code in codes), *([others] if others else [])]) + "."


def _path_parameter(route: Route, word: str) -> Schema:
    return _parameter(route, word, "path") | {"required": True}


def _parameter(route: Route, field: str, place: str) -> Schema:
    schema = dict(route.operation.model_json_schema()["properties"][field])
    schema.pop("title", None)
    return {"name": field, "in": place, "schema": schema}


def _header_parameters(*, ticketed: bool) -> list[Schema]:
    found: list[Schema] = [
        {
            "name": CORRELATION_HEADER,
            "in": "header",
            "description": "Stands in the log lines of every service; made up when not given.",
            "schema": {"type": "string", "pattern": CORRELATION_PATTERN},
        }
    ]
    if ticketed:
        ticket = {"schema": {"$ref": COMPONENTS + Ticket.__name__}}
        found.append(
            {
                "name": TICKET_HEADER,
                "in": "header",
                "required": True,
                "description": "The controller's decision, good once (HOST-02).",
                "content": {"application/json": ticket},
            }
        )
    return found
