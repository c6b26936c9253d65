"""The node proxy's lines to the host agent: frames over its Unix socket, bounded in every way."""

from __future__ import annotations

import asyncio
from typing import cast, get_args

from pydantic import ValidationError

from ppn.errors import PpnError
from ppn.host.proxy.settings import Limits
from ppn.wire import agent
from ppn.wire.agent import Request, Response
from ppn.wire.frames import PREFIX_BYTES, FrameInvalid, encode_frame, payload_length

CHANGES: tuple[type, ...] = get_args(agent.Change)
CONNECT_SECONDS = 2.0
# An agent that answers in time is asked over the same line again; more of them than this close.
IDLE_LINES = 8


class AgentUnavailable(PpnError):
    """Nobody answers at the agent's socket; nothing was asked."""

    code = "agent_unavailable"


class AgentFailed(PpnError):
    """The agent was asked, and what came back is no answer; the work may have been done."""

    code = "agent_failed"


class AgentSilent(PpnError):
    """The agent was asked and has not answered in time; the work may still be done."""

    code = "agent_timeout"


class ProxyBusy(PpnError):
    """As many requests as the agent is asked at once are under way; nothing was asked."""

    code = "node_busy"


class Line(asyncio.Protocol):
    """One connection to the agent: one frame out, one frame back, nothing unasked."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[bytes] | None = None
        self.received = bytearray()
        self.length: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; called by asyncio."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Gather one frame; called by asyncio."""
        if self.answer is None or self.answer.done():
            self.close()
            return
        self.received += data
        if self.length is None and len(self.received) >= PREFIX_BYTES:
            try:
                self.length = payload_length(bytes(self.received[:PREFIX_BYTES]))
            except FrameInvalid as error:
                self._fail(f"the agent's answer is no frame: {error.message}")
                return
        if self.length is None or len(self.received) < PREFIX_BYTES + self.length:
            return
        if len(self.received) > PREFIX_BYTES + self.length:
            self._fail("the agent sent more than it was asked for")
            return
        self.answer.set_result(bytes(self.received[PREFIX_BYTES:]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits; called by asyncio."""
        self._fail("the agent closed the line before it had answered")

    @property
    def usable(self) -> bool:
        """Whether the line may be asked over again."""
        return self.transport is not None and not self.transport.is_closing()

    async def ask(self, frame: bytes) -> bytes:
        """Send a frame and wait for the one that answers it.

        Raises:
            AgentFailed: the line was lost, or what came is no frame.
        """
        if self.transport is None:
            raise AgentFailed("the line to the agent is closed")
        self.answer = asyncio.get_running_loop().create_future()
        self.received = bytearray()
        self.length = None
        self.transport.write(frame)
        try:
            return await self.answer
        finally:
            self.answer = None

    def close(self) -> None:
        """End the line at once."""
        if self.transport is not None:
            self.transport.abort()

    def _fail(self, message: str) -> None:
        if self.answer is not None and not self.answer.done():
            hint = "see the agent's log; ask for the VM before asking for the change again"
            self.answer.set_exception(AgentFailed(message, hint=hint))
        self.close()


class Lane:
    """How many requests of one kind are with the agent at once, and its lines in waiting."""

    def __init__(self, places: int) -> None:
        self.places = asyncio.Semaphore(places)
        self.idle: list[Line] = []

    def take(self) -> Line | None:
        """A line that has been used and is still open."""
        while self.idle:
            line = self.idle.pop()
            if line.usable:
                return line
        return None

    def give_back(self, line: Line) -> None:
        """Keep a line that has answered for the next request."""
        if line.usable and len(self.idle) < IDLE_LINES:
            self.idle.append(line)
        else:
            line.close()


class AgentClient:
    """Asks the host agent; questions never wait behind changes.

    Args:
        socket: path of the agent's Unix socket.
        limits: how many at once, and for how long.
    """

    def __init__(self, socket: str, limits: Limits) -> None:
        self.socket = socket
        self.limits = limits
        self.changes = Lane(limits.changes)
        self.questions = Lane(limits.questions)

    def deadline(self, operation: type) -> float:
        """Seconds the agent has to answer."""
        return self.limits.change_seconds if operation in CHANGES else self.limits.question_seconds

    async def ask(self, request: Request) -> Response:
        """Send a request once and return its answer; nothing is ever sent twice.

        Args:
            request: sound; its deadline is kept.

        Raises:
            ProxyBusy: no place came free in time.
            AgentUnavailable: nobody answers at the socket.
            AgentFailed: the line was lost, or what came is not the answer.
            AgentSilent: no answer within the deadline.
        """
        lane = self.changes if isinstance(request.body, CHANGES) else self.questions
        frame = encode_frame(request.model_dump_json().encode())
        try:
            async with asyncio.timeout(self.limits.question_seconds):
                await lane.places.acquire()
        except TimeoutError as error:
            raise ProxyBusy(
                "the agent is asked as many things at once as it may be", hint="ask again later"
            ) from error
        try:
            return _answer(await self._over_a_line(lane, frame, request.deadline_seconds), request)
        finally:
            lane.places.release()

    async def _over_a_line(self, lane: Lane, frame: bytes, seconds: float) -> bytes:
        line = lane.take() or await self._connect()
        try:
            async with asyncio.timeout(seconds):
                payload = await line.ask(frame)
        except TimeoutError as error:
            line.close()
            raise AgentSilent(
                f"the agent has not answered within {seconds:g} s",
                hint="the work goes on; ask for the VM to see what became of it",
            ) from error
        except BaseException:
            # An answer that comes when nobody waits must not be taken for another's.
            line.close()
            raise
        lane.give_back(line)
        return payload

    async def _connect(self) -> Line:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                loop = asyncio.get_running_loop()
                _, line = await loop.create_unix_connection(Line, self.socket)
        except OSError as error:
            raise AgentUnavailable(
                f"the agent does not answer at {self.socket}: {error.strerror or 'timed out'}",
                hint="systemctl status ppn-agent.service",
            ) from error
        return line

    def close(self) -> None:
        """End the lines that wait."""
        for line in (*self.changes.idle, *self.questions.idle):
            line.close()


def _answer(payload: bytes, request: Request) -> Response:
    """A frame's content as the answer to this very request."""
    hint = "agent and proxy are of one release: run the pool's deploy for this node again"
    try:
        response = Response.model_validate_json(payload)
    except ValidationError as error:
        raise AgentFailed("the agent's answer breaks the contract", hint=hint) from error
    if response.correlation_id != request.correlation_id:
        raise AgentFailed("the agent answered another request", hint=hint)
    if (response.result is None) == (response.problem is None):
        raise AgentFailed("the agent's answer is neither a result nor a problem", hint=hint)
    return response
