"""The controller's API as an OpenAPI document, and the routes it is made from."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI

from ppn.fleet.api import metrics_router, router
from ppn.wire.problems import MEDIA_TYPE
from ppn.wire.web import add_problem_handlers


def bare_app() -> FastAPI:
    """The routes and their description, with nothing behind them."""
    app = FastAPI(
        title="ppn fleet controller",
        version="1",
        description="Places VMs on the nodes of the pool and has their agents make them.",
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(router)
    app.include_router(metrics_router)
    add_problem_handlers(app)
    plain = app.openapi
    app.openapi = lambda: with_problems(plain())  # type: ignore[method-assign]  # as FastAPI asks
    return app


def with_problems(description: dict[str, Any]) -> dict[str, Any]:
    """The description with errors as they are sent: problem bodies, and 400 where FastAPI has 422.

    Args:
        description: as FastAPI makes it; changed in place.
    """
    for operations in description["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            for status, response in operation["responses"].items():
                content = response.get("content", {})
                if status in ("4XX", "5XX") and "application/json" in content:
                    content[MEDIA_TYPE] = content.pop("application/json")
    for unused in ("HTTPValidationError", "ValidationError"):
        description["components"]["schemas"].pop(unused, None)
    return description


def document() -> str:
    """The committed form of the description."""
    return json.dumps(bare_app().openapi(), indent=2, sort_keys=True) + "\n"
