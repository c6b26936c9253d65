"""The agent's Unix socket: who may speak, frames in, frames out (NP-07 to NP-10)."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ppn.errors import PpnError, Refusal
from ppn.host.agent.policy import Role, check_operation, needs_ticket, role_of
from ppn.host.agent.service import vm_of
from ppn.host.agent.table import AgentBusy
from ppn.host.agent.tickets import Tickets
from ppn.log import get_logger
from ppn.wire.agent import Delivery, Operation, Question, Request, Response, ShowVm, Spawn
from ppn.wire.frames import PREFIX_BYTES, FrameInvalid, encode_frame, payload_length
from ppn.wire.model import malformed
from ppn.wire.problems import problem_of

PEER_CREDENTIALS = struct.Struct("3i")
BACKLOG = 128

log = get_logger("host-agent")

Do = Callable[[Operation, str], dict[str, Any]]
Answer = asyncio.Future[dict[str, Any]]


@dataclass(frozen=True)
class Limits:
    """Bounds of the socket.

    Args:
        connections: open at once.
        changes: changes at work and waiting.
        change_threads: changes at work.
        questions: questions at work and waiting.
        question_threads: questions at work.
        idle_seconds: a connection may say nothing.
        frame_seconds: from a frame's first byte to its last, in either direction.
    """

    connections: int = 128
    changes: int = 128
    change_threads: int = 32
    questions: int = 128
    question_threads: int = 8
    idle_seconds: float = 300.0
    frame_seconds: float = 10.0


class Lane:
    """Threads for one kind of work, and a bound on how much of it waits for them."""

    def __init__(self, name: str, threads: int, most: int) -> None:
        self._name = name
        self._most = most
        self._threads: Executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self.going: set[Answer] = set()

    def begin(self, do: Do, body: Operation, correlation_id: str) -> Answer:
        """Begin a piece of work; it goes on whether or not somebody waits for it.

        Raises:
            AgentBusy: too much is waiting already.
        """
        if len(self.going) >= self._most:
            raise AgentBusy(
                f"{self._most} {self._name} are waiting already", hint="ask again later"
            )
        loop = asyncio.get_running_loop()
        answer = loop.run_in_executor(self._threads, do, body, correlation_id)
        self.going.add(answer)
        answer.add_done_callback(self._ended)
        return answer

    def finish(self) -> None:
        """Wait for what is at work; what had not begun is dropped."""
        self._threads.shutdown(cancel_futures=True)

    def _ended(self, answer: Answer) -> None:
        self.going.discard(answer)
        # Somebody may have waited in vain: the error is in the log and the timeline already.
        if not isinstance(error := answer.exception(), PpnError | None):
            log.error("operation broke off", exc_info=error)


class Server:
    """Serves root and the node proxy, and closes on everyone else.

    Args:
        do: does an operation, on a thread of its own.
        tickets: what changes through the proxy need.
        proxy_uid: the node proxy's user; None for none.
        limits: bounds of connections and work.
    """

    def __init__(
        self, do: Do, tickets: Tickets, *, proxy_uid: int | None, limits: Limits | None = None
    ) -> None:
        self._do = do
        self._tickets = tickets
        self._proxy_uid = proxy_uid
        self._limits = limits or Limits()
        self._changes = Lane("changes", self._limits.change_threads, self._limits.changes)
        self._questions = Lane("questions", self._limits.question_threads, self._limits.questions)
        self._spawns: dict[str, tuple[Spawn, Answer]] = {}
        self._connections: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._closing = False

    async def listen(self, path: Path, gid: int | None) -> None:
        """Listen on a Unix socket that root and one group may open.

        Args:
            path: in a folder only root can write; what an earlier agent left there is replaced.
            gid: the node proxy's group; None for root alone.

        Raises:
            OSError: the socket cannot be made.
        """
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        if gid is not None:
            os.chown(path, 0, gid)
            path.chmod(0o660)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, backlog=BACKLOG)

    async def close(self, path: Path, grace: float) -> None:
        """Take nothing more, and give what is at work some time to end.

        Args:
            path: the socket, which goes first.
            grace: seconds to wait.
        """
        path.unlink(missing_ok=True)
        self._closing = True
        if self._server is not None:
            self._server.close()
        if going := self._changes.going | self._questions.going:
            await asyncio.wait(going, timeout=grace)
        # One turn for the last answers to be written.
        await asyncio.sleep(0)
        for writer in tuple(self._connections):
            writer.transport.abort()

    def finish(self) -> None:
        """Wait for the work that outlasted the grace of `close`; nothing more can be asked."""
        self._changes.finish()
        self._questions.finish()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = peer_uid(writer)
        role = role_of(uid, self._proxy_uid)
        if role is None or len(self._connections) >= self._limits.connections:
            log.warning("connection closed at once", uid=uid, open=len(self._connections))
            writer.transport.abort()
            return
        self._connections.add(writer)
        try:
            await self._frames(role, reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError) as error:
            log.debug("connection ended", uid=uid, error=repr(error))
        finally:
            self._connections.discard(writer)
            # What a peer did not take in time is not waited for again.
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            writer.close()

    async def _frames(
        self, role: Role, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            try:
                payload = await self._read(reader)
            except FrameInvalid as error:
                # Where the next frame would begin cannot be known.
                await self._write(writer, Response(problem=problem_of(error)))
                return
            if payload is None:
                return
            await self._write(writer, await self._answer(role, payload))

    async def _read(self, reader: asyncio.StreamReader) -> bytes | None:
        async with asyncio.timeout(self._limits.idle_seconds):
            first = await reader.read(1)
        if not first:
            return None
        async with asyncio.timeout(self._limits.frame_seconds):
            prefix = first + await reader.readexactly(PREFIX_BYTES - 1)
            return await reader.readexactly(payload_length(prefix))

    async def _write(self, writer: asyncio.StreamWriter, response: Response) -> None:
        payload = response.model_dump_json(exclude_none=True).encode()
        try:
            frame = encode_frame(payload)
        except FrameInvalid as error:
            problem = problem_of(error, correlation_id=response.correlation_id)
            short = Response(correlation_id=response.correlation_id, problem=problem)
            frame = encode_frame(short.model_dump_json(exclude_none=True).encode())
        writer.write(frame)
        async with asyncio.timeout(self._limits.frame_seconds):
            await writer.drain()

    async def _answer(self, role: Role, payload: bytes) -> Response:
        correlation_id = ""
        try:
            request = _parsed(payload)
            correlation_id = request.correlation_id
            return Response(correlation_id=correlation_id, result=await self._result(role, request))
        except PpnError as error:
            problem = problem_of(error, correlation_id=correlation_id)
            log.info(
                "request not served",
                correlation_id=correlation_id,
                role=role.value,
                code=error.code,
                error=str(error),
            )
            return Response(correlation_id=correlation_id, problem=problem)

    async def _result(self, role: Role, request: Request) -> dict[str, Any]:
        check_operation(role, request.body)
        if self._closing:
            # The node proxy keeps its lines; work begun now would be cut short, unanswered.
            raise PpnError(
                "the agent is stopping and takes nothing more",
                code="agent_unavailable",
                hint="ask again when it has started",
            )
        if needs_ticket(role, request.body):
            self._tickets.spend(request.ticket)
        # A spawn that waits for its turn has left no mark on the node that a look would find.
        begun = isinstance(request.body, ShowVm) and request.body.vm in self._spawns
        answer = self._begin(request)
        await asyncio.wait({answer}, timeout=request.deadline_seconds)
        if not answer.done():
            raise PpnError(
                f"{request.body.operation} has not ended within {request.deadline_seconds:g} s;"
                " it goes on",
                code="agent_timeout",
                hint="ask for the VM, or repeat the request",
            )
        error = answer.exception()
        if isinstance(error, PpnError):
            if begun and error.code == "vm_unknown":
                raise Refusal(
                    f"vm {vm_of(request.body)} is about to be made",
                    code="vm_busy",
                    constraint="one operation per VM",
                    hint="ask again when it has ended",
                ) from error
            raise error
        if error is not None:
            raise PpnError(
                f"{request.body.operation} broke off: {type(error).__name__}",
                code="agent_failed",
                hint="the agent's log says where",
            )
        return answer.result()

    def _begin(self, request: Request) -> Answer:
        """Begin an operation; a spawn that is asked for twice is done once and answered twice."""
        body = request.body
        if isinstance(body, Question | Delivery):
            return self._questions.begin(self._do, body, request.correlation_id)
        vm = vm_of(body)
        if (same := self._spawns.get(vm)) is not None and same[0] == body:
            log.info("spawn joined", vm=vm, correlation_id=request.correlation_id)
            return same[1]
        answer = self._changes.begin(self._do, body, request.correlation_id)
        if isinstance(body, Spawn) and vm not in self._spawns:
            self._spawns[vm] = (body, answer)
            answer.add_done_callback(lambda _: self._spawns.pop(vm))
        return answer


def peer_uid(writer: asyncio.StreamWriter) -> int:
    """The user id of the process at the other end, as the kernel vouches for it."""
    channel = writer.get_extra_info("socket")
    credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size)
    uid: int = PEER_CREDENTIALS.unpack(credentials)[1]
    return uid


def _parsed(payload: bytes) -> Request:
    try:
        return Request.model_validate_json(payload)
    except ValidationError as error:
        raise malformed(error) from error
