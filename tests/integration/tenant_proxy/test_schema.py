"""The tenant proxy against its own description, as schemathesis reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from ppn.tenant.api import OWN_PATHS
from ppn.tenant.openapi import bare_app
from ppn.tenant.store import Store
from tests.integration.tenant_proxy.parts import TenantProxy, allocate, provision, recording
from tests.integration.tenant_proxy.recorder import Recorder


def without_tokens() -> dict[str, Any]:
    """The description for a tool whose every request gets a token: what it leaves out is there."""
    description = bare_app().openapi()
    for operations in description["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
    return description


SCHEMA = schemathesis.openapi.from_dict(without_tokens())
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
OWN = "vm-own"
TURNS = count()


@dataclass
class Strict:
    """A proxy of its own for a tool that sends what it likes."""

    proxy: TenantProxy
    recorder: Recorder
    store: Store
    token: str
    trust: Path


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    """A tenant with one VM."""
    limits = {"rate": 10000, "burst": 10000, "source_rate": 10000}
    with recording(tmp_path_factory.mktemp("schema"), settings={"limits": limits}) as (
        proxy,
        recorder,
    ):
        store = Store.open(proxy.store)
        token = provision(store, "acme")
        yield Strict(proxy, recorder, store, token, proxy.authority.certificate)
        store.close()


@SCHEMA.parametrize()
@settings(max_examples=10, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_it_does_what_it_says(case: schemathesis.Case[Any], strict: Strict) -> None:
    """NP-05's rule for this service: no undescribed status, no failure, no damaged data taken."""
    checks = list(CHECKS)
    if "vm" in case.path_parameters and next(TURNS) % 2:
        # Ids that are made up belong to nobody, and say little of what is behind the guard.
        checks.remove(negative_data_rejection)
        if OWN not in {one.vm for one in strict.store.allocations()}:
            allocate(strict.store, "acme", OWN)
        strict.recorder.hold(OWN, "acme", disks=[{"name": "data", "size_gib": 1}])
        case.path_parameters["vm"] = OWN
    response = case.call(
        base_url=f"https://{strict.proxy.address}:{strict.proxy.port}",
        headers={"Authorization": f"Bearer {strict.token}"},
        verify=str(strict.trust),
        timeout=30,
    )
    # The caller is no controller, so that these are refused whatever the method.
    if case.path in OWN_PATHS:
        checks.remove(unsupported_method)
    case.validate_response(response, checks=checks)
