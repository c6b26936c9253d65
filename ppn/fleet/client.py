"""Asks a fleet controller, for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from ppn.errors import PpnError
from ppn.fleet.settings import PATH, read_settings
from ppn.wire.problems import ProblemBody, error_of

SECONDS = 180.0


class ControllerUnreachable(PpnError):
    """A controller that does not answer, or whose answer is none."""

    code = "controller_unreachable"


def own_controller(path: Path = Path(PATH)) -> str:
    """The URL of the controller that runs on this machine.

    Args:
        path: its settings.

    Raises:
        ControllerUnreachable: none runs here.
    """
    if not path.exists():
        raise ControllerUnreachable(
            "no controller runs on this machine",
            hint="name one with --controller http://ADDRESS:9203, or set PPN_CONTROLLER",
        )
    settings = read_settings(path)
    return f"http://{settings.address}:{settings.port}"


def ask(
    controller: str,
    method: str,
    path: str,
    *,
    body: Mapping[str, Any] | None = None,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """Send a request to a controller and return what it answered.

    Args:
        controller: its base URL.
        method: of HTTP.
        path: behind the version.
        body: JSON.
        query: fields behind the question mark.
        headers: beyond the usual ones.

    Raises:
        ControllerUnreachable: no answer, or none that can be read.
        PpnError: the controller's own refusal or failure.
    """
    try:
        with httpx.Client(trust_env=False, timeout=SECONDS) as client:
            answer = client.request(
                method, f"{controller}/v1{path}", json=body, params=query, headers=headers
            )
        content = answer.json()
        if answer.is_success:
            return content
        problem = ProblemBody.model_validate(content)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ControllerUnreachable(
            f"{controller} does not answer: {error}",
            hint="is it a controller, and may this machine use it?",
        ) from error
    except (ValueError, ValidationError) as error:
        raise ControllerUnreachable(
            f"{controller} answered what is no answer of a controller",
            hint="look at the URL",
        ) from error
    raise error_of(problem)
