"""Asks a fleet controller, for the command line."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from ppn.errors import PpnError
from ppn.fleet.settings import PATH, FleetSettings
from ppn.pool.tls import NO_TLS
from ppn.settings import read_own
from ppn.wire.problems import ProblemBody, error_of

SECONDS = 180.0
# A full console, or the list of a large pool.
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class ControllerUnreachable(PpnError):
    """A controller or tenant proxy that does not answer, or whose answer is none."""

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
    settings = read_own(path, FleetSettings)
    return f"http://{settings.address}:{settings.port}"


def ask(
    base: str,
    method: str,
    path: str,
    *,
    body: Mapping[str, Any] | None = None,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    context: ssl.SSLContext | None = None,
    seconds: float = SECONDS,
) -> Any:
    """Send a request to a controller or a tenant proxy and return what it answered.

    Args:
        base: its URL.
        method: of HTTP.
        path: behind the version.
        body: JSON.
        query: fields behind the question mark.
        headers: beyond the usual ones.
        context: what TLS is spoken with; None for plain HTTP.
        seconds: the longest to wait for each part of the answer.

    Raises:
        ControllerUnreachable: no answer, or none that can be read.
        PpnError: the service's own refusal or failure.
    """
    url = f"{base}/v1{path}"
    try:
        with (
            httpx.Client(trust_env=False, timeout=seconds, verify=context or NO_TLS) as client,
            client.stream(method, url, json=body, params=query, headers=headers) as answer,
        ):
            content = json.loads(_bounded(answer))
        if answer.is_success:
            return content
        problem = ProblemBody.model_validate(content)
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
        raise _unreachable(base, error) from error
    except (ValueError, ValidationError) as error:
        raise ControllerUnreachable(
            f"{base} answered what is no answer of the pool's services", hint="look at the URL"
        ) from error
    failure = error_of(problem)
    failure.correlation_id = problem.correlation_id
    raise failure


def _bounded(answer: httpx.Response) -> bytes:
    content = bytearray()
    for part in answer.iter_bytes():
        content += part
        if len(content) > MAX_ANSWER_BYTES:
            raise ValueError("too long")
    return bytes(content)


def _unreachable(base: str, error: Exception) -> ControllerUnreachable:
    """Why there is no answer: nobody there, or somebody who cannot show that it is who it is."""
    text = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return ControllerUnreachable(
            f"the server at {base} does not show a sound certificate of the pool: {text}",
            code="server_untrusted",
            hint="nothing was sent to it; look at the address, the clock and --ca",
        )
    return ControllerUnreachable(
        f"{base} does not answer: {text}", hint="is it up, and may this machine use it?"
    )
