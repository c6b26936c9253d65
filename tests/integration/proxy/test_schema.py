"""The proxy against its own description, as schemathesis reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    status_code_conformance,
    unsupported_method,
)

from ppn.errors import Refusal
from ppn.host.proxy.openapi import document
from ppn.host.proxy.routes import read_ticket
from ppn.pool.tls import TlsFiles
from tests.integration.proxy.parts import TICKET, Proxy, proxy_with_agent

SCHEMA = schemathesis.openapi.from_dict(document())
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    negative_data_rejection,
    unsupported_method,
]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy of its own for a tool that keeps connections as it likes."""
    with proxy_with_agent(tmp_path_factory.mktemp("schema")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def controller(strict: Proxy) -> TlsFiles:
    """The certificate of a fleet controller."""
    return strict.authority.issue("relay", "controller")


def is_ticket(header: str) -> bool:
    """Whether a made-up ticket is sound, and only not for this node."""
    try:
        return read_ticket([header.encode()]) is not None
    except Refusal:
        return False


@SCHEMA.parametrize()
@settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_it_does_what_it_says(
    case: schemathesis.Case[Any], strict: Proxy, controller: TlsFiles
) -> None:
    """NP-05, NP-06: no undescribed status, no failure of its own, no damaged data taken."""
    if is_ticket(case.headers.get("Ppn-Ticket", "")):
        case.headers["Ppn-Ticket"] = json.dumps(TICKET)
    response = case.call(
        base_url=f"https://{strict.address}:{strict.port}",
        cert=(str(controller.certificate), str(controller.key)),
        verify=str(controller.trust),
        timeout=30,
    )
    case.validate_response(response, checks=CHECKS)
