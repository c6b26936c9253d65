"""The controller against its own description, as schemathesis reads it."""

from __future__ import annotations

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

from ppn.fleet.access import HEARTBEATS
from ppn.fleet.openapi import bare_app
from tests.integration.fleet.node import Node
from tests.integration.fleet.parts import Pool, pool

SCHEMA = schemathesis.openapi.from_dict(bare_app().openapi())
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    negative_data_rejection,
    unsupported_method,
]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """A pool of its own for a tool that sends what it likes."""
    with pool(tmp_path_factory.mktemp("schema"), [Node("a", "127.0.4.1")]) as made:
        yield made


@SCHEMA.parametrize()
@settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_it_does_what_it_says(case: schemathesis.Case[Any], strict: Pool) -> None:
    """NP-05's rule for this service: no undescribed status, no failure, no damaged data taken."""
    response = case.call(base_url=strict.first.url, timeout=120)
    # The caller is no node, so that heartbeats are refused whatever the method.
    excluded = [unsupported_method] if case.path == HEARTBEATS else []
    case.validate_response(response, checks=CHECKS, excluded_checks=excluded)
