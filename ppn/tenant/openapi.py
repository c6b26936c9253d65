"""The proxy's API as an OpenAPI document, and the routes it is made from."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI

from ppn.tenant.api import own_router, router
from ppn.tenant.guard import TenantRoute
from ppn.wire.description import with_problems
from ppn.wire.web import add_problem_handlers

BEARER = "bearer"


def bare_app() -> FastAPI:
    """The routes and their description, with nothing behind them."""
    app = FastAPI(
        title="ppn tenant proxy",
        version="1",
        description=(
            "The only door of the pool for its customers: TLS 1.3, and a bearer token that says"
            " whose VMs a request may be about."
        ),
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(router)
    app.include_router(own_router)
    add_problem_handlers(app)
    plain = app.openapi
    app.openapi = lambda: with_tokens(with_problems(plain()))  # type: ignore[method-assign]
    return app


def with_tokens(description: dict[str, Any]) -> dict[str, Any]:
    """The description with a token wherever the guard asks for one.

    Args:
        description: changed in place.
    """
    scheme = {"type": "http", "scheme": "bearer", "description": "`ppn_<id>_<secret>`"}
    description["components"]["securitySchemes"] = {BEARER: scheme}
    for route in guarded_routes():
        for method in route.methods or ():
            description["paths"][route.path][method.lower()]["security"] = [{BEARER: []}]
    return description


def guarded_routes() -> list[TenantRoute]:
    """Every route that the guard is in front of."""
    return [route for route in router.routes if isinstance(route, TenantRoute)]


def document() -> str:
    """The committed form of the description."""
    return json.dumps(bare_app().openapi(), indent=2, sort_keys=True) + "\n"
