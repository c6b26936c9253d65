"""The controller's API as an OpenAPI document, and the routes it is made from."""

from __future__ import annotations

import json

from fastapi import FastAPI

from ppn.fleet.api import metrics_router, router
from ppn.wire.description import with_problems
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


def document() -> str:
    """The committed form of the description."""
    return json.dumps(bare_app().openapi(), indent=2, sort_keys=True) + "\n"
