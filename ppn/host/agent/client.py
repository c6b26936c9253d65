"""Asks the host agent of this node over its socket; for programs on the node itself."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ppn.errors import PpnError
from ppn.wire.agent import Operation, Request, Response
from ppn.wire.frames import PREFIX_BYTES, encode_frame, payload_length
from ppn.wire.model import malformed
from ppn.wire.problems import error_of

DEADLINE_SECONDS = 600.0
# Past the deadline, for the agent's own word that it has passed.
SLACK_SECONDS = 5.0


class AgentSilent(PpnError):
    """The agent took a request and its answer never came; what became of it must be asked."""

    code = "agent_unavailable"


def operation_of(fields: Mapping[str, Any]) -> Operation:
    """An operation from its name and fields.

    Raises:
        Malformed: no such operation, or fields that break the contract.
    """
    try:
        operation: Operation = TypeAdapter(Operation).validate_python(fields)
    except ValidationError as error:
        raise malformed(error) from error
    return operation


def ask(
    path: Path,
    body: Operation,
    *,
    correlation_id: str | None = None,
    deadline: float = DEADLINE_SECONDS,
) -> dict[str, Any] | None:
    """Have the agent do something.

    Args:
        path: its socket.
        body: what to do.
        correlation_id: of the request this belongs to; a new one when None.
        deadline: seconds to wait; the work itself goes on.

    Returns:
        The result; None when no agent listens.

    Raises:
        PpnError: what the agent says went wrong, as it was raised there.
        AgentSilent: it may not be asked by us, or its answer did not come.
    """
    request = Request(
        correlation_id=correlation_id or f"cli-{secrets.token_hex(8)}",
        deadline_seconds=deadline,
        body=body,
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(deadline + SLACK_SECONDS)
        try:
            channel.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise _silent(path, error.strerror or str(error)) from error
        response = _exchange(channel, path, request)
    if response.problem is not None:
        raise error_of(response.problem)
    return response.result or {}


def _exchange(channel: socket.socket, path: Path, request: Request) -> Response:
    try:
        channel.sendall(encode_frame(request.model_dump_json().encode()))
        payload = _exactly(channel, payload_length(_exactly(channel, PREFIX_BYTES)))
        return Response.model_validate_json(payload)
    except (OSError, EOFError, ValidationError) as error:
        raise _silent(path, str(error) or type(error).__name__) from error


def _exactly(channel: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = channel.recv(min(size - len(content), 1 << 16))
        if not part:
            raise EOFError("it closed the connection")
        content += part
    return content


def _silent(path: Path, reason: str) -> AgentSilent:
    return AgentSilent(
        f"no answer from the host agent at {path}: {reason}",
        hint="ask for the state, then repeat the request; systemctl status ppn-agent.service",
    )
