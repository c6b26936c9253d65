"""The source agent's line to the destination's node proxy, and how a VM goes over it."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from ppn.errors import PpnError
from ppn.host.moving.box import Piece, Sender
from ppn.host.moving.copies import Manifest, copy_path, manifest_path
from ppn.host.moving.vouching import check_vouched
from ppn.host.paths import VmPaths
from ppn.pool.tls import TlsFiles, client_context, identity_of
from ppn.wire.model import CORRELATION_HEADER
from ppn.wire.moving import CHUNK_BYTES, MANIFEST, Deliver, Delivered, Greet, Greeting
from ppn.wire.problems import ProblemBody, error_of
from ppn.wire.reading import TooLong, read_body

# The role of a node that runs VMs, in its certificate.
HYPERVISOR = "hypervisor"
CALL_SECONDS = 20.0
CONNECT_SECONDS = 5.0
# The sizes of 65 files, or a problem in words.
MOST_ANSWER_BYTES = 64 * 1024
# A line that is cut is tried again for so long; who moves the VM decides what is next then.
RETRY_SECONDS = 60.0
PAUSE_SECONDS = 1.0
POLL_SECONDS = 0.3
# What passes by itself, as a proxy that is started again does.
PASSING = frozenset(
    {"agent_busy", "agent_failed", "agent_timeout", "agent_unavailable", "node_busy"}
    | {"chunk_damaged", "chunk_out_of_place", "destination_unreachable"}
)

Answer = TypeVar("Answer", bound=BaseModel)


class DestinationUnreachable(PpnError):
    """The node a VM goes to does not answer, or not as a node of this pool does."""

    code = "destination_unreachable"


@dataclass(frozen=True)
class Target:
    """Where a VM goes.

    Args:
        vm: its id.
        move: the move's id.
        node: the destination's name.
        address: of its proxy.
        port: of its proxy.
        secret: what its agent knows the sender by.
        correlation_id: of the request that led to this.
    """

    vm: str
    move: str
    node: str
    address: str
    port: int
    secret: str
    correlation_id: str


class Line:
    """One connection to the destination's proxy, over the mesh, by certificates of the pool.

    Args:
        target: where the VM goes.
        own: this node's name.
        tls: its certificate.
        local: its mesh address; any when None.

    Raises:
        TlsUnusable: TLS cannot be spoken with the files.
    """

    def __init__(self, target: Target, own: str, tls: TlsFiles, local: str | None) -> None:
        self._target = target
        self._own = own
        self._trust = tls.trust
        transport = httpx.AsyncHTTPTransport(verify=client_context(tls), local_address=local)
        self._client = httpx.AsyncClient(
            base_url=f"https://{IPv4Address(target.address)}:{target.port}/v1/vms/{target.vm}",
            transport=transport,
            timeout=httpx.Timeout(CALL_SECONDS, connect=CONNECT_SECONDS),
            headers={CORRELATION_HEADER: target.correlation_id},
            trust_env=False,
        )
        # A thread waits for each answer; a loop alone can end all of it, headers too, in time.
        self._runner = asyncio.Runner()

    def close(self) -> None:
        """End it."""
        with self._runner as runner:
            runner.run(self._client.aclose())

    def greet(self) -> Greeting:
        """How to seal, and what has come, in the words of the destination's agent itself.

        Raises:
            GreetingForged: who answers is not that agent.
            PpnError: see `_post`.
        """
        target = self._target
        body = Greet(vm=target.vm, move=target.move, source=self._own, secret=target.secret)
        greeting = self._post("/arrival/greeting", body, Greeting)
        check_vouched(greeting, target.vm, target.move, self._own, target.node, self._trust)
        return greeting

    def deliver(self, file: str, piece: Piece, sender: str, box: str) -> int:
        """Send a sealed piece; returns how many bytes of its file have come.

        Raises:
            PpnError: see `_post`.
        """
        target = self._target
        body = Deliver(
            vm=target.vm,
            move=target.move,
            source=self._own,
            secret=target.secret,
            file=file,
            offset=piece.offset,
            total=piece.total,
            sender=sender,
            box=box,
        )
        return self._post("/arrival/chunks", body, Delivered).have

    def _post(self, path: str, body: BaseModel, kind: type[Answer]) -> Answer:
        """Send a request and read its answer, from the very node that was named.

        Raises:
            DestinationUnreachable: no answer, or another node's.
            PpnError: the destination's own refusal or failure.
        """
        try:
            answer, content = self._runner.run(self._ask(path, body))
            if answer.is_success:
                return kind.model_validate_json(content)
            problem = ProblemBody.model_validate_json(content)
        except TimeoutError as error:
            raise self._unreachable(f"no whole answer within {CALL_SECONDS:g} s") from error
        except (httpx.HTTPError, ssl.SSLError, OSError) as error:
            raise self._unreachable(str(error) or type(error).__name__) from error
        except TooLong as error:
            raise self._unreachable(error.message) from error
        except ValidationError as error:
            raise self._unreachable("its answer breaks the contract") from error
        raise error_of(problem)

    async def _ask(self, path: str, body: BaseModel) -> tuple[httpx.Response, bytes]:
        fields = body.model_dump(mode="json", exclude={"operation", "vm"})
        async with (
            asyncio.timeout(CALL_SECONDS),
            self._client.stream("POST", path, json=fields) as answer,
        ):
            self._check(answer)
            return answer, await read_body(answer, MOST_ANSWER_BYTES)

    def _check(self, answer: httpx.Response) -> None:
        """Its certificate is good for its address; it must name that hypervisor too."""
        shown: Any = answer.extensions["network_stream"].get_extra_info("ssl_object")
        named = identity_of(shown.getpeercert() or {})
        if named.node != self._target.node or HYPERVISOR not in named.roles:
            raise self._unreachable(f"at its address is {named.node or 'no node'}")

    def _unreachable(self, reason: str) -> DestinationUnreachable:
        target = self._target
        return DestinationUnreachable(
            f"node {target.node} at {target.address} cannot be sent to: {reason}",
            hint="look at the mesh path between the two nodes, and at its node proxy",
        )


class Sending:
    """Sends a VM until the destination has verified all of it; goes on where it was cut.

    Args:
        line: to the destination.
        target: where the VM goes.
        files: of the VM.
        manifest: what is sent.
        on_bytes: told how many bytes of disks the destination has.
        check: raises when the sending shall end; asked between pieces.
    """

    def __init__(
        self,
        line: Line,
        target: Target,
        files: VmPaths,
        manifest: Manifest,
        on_bytes: Callable[[int], None],
        check: Callable[[], None],
    ) -> None:
        self._line = line
        self._target = target
        self._files = files
        self._manifest = manifest
        self._on_bytes = on_bytes
        self._check = check
        self._progress = time.monotonic()

    def run(self) -> None:
        """Send what is missing, and wait until it is verified.

        Raises:
            PpnError: what does not pass by itself, or has not passed in time.
        """
        while True:
            self._check()
            try:
                greeting = self._line.greet()
                if greeting.stage in ("verified", "settled"):
                    self._check_manifest(greeting)
                    return
                if greeting.stage == "verifying":
                    self._progress = time.monotonic()
                self._send(greeting)
                time.sleep(POLL_SECONDS)
            except PpnError as error:
                late = time.monotonic() >= self._progress + RETRY_SECONDS
                # Whatever it was, the destination is asked anew what has come, and for its key.
                if late or error.code not in PASSING:
                    raise
                time.sleep(PAUSE_SECONDS)

    def _check_manifest(self, greeting: Greeting) -> None:
        """Refuse to give a VM up for another one that was sent in its place."""
        own = hashlib.sha256(manifest_path(self._files).read_bytes()).hexdigest()
        if greeting.manifest != own:
            raise PpnError(
                f"node {self._target.node} has verified what was not sent from here",
                code="copy_foreign",
                hint="look who is on the way between the two nodes, and at their node proxies",
            )

    def _send(self, greeting: Greeting) -> None:
        """Send what the destination has not."""
        sender = Sender(self._target.move, greeting.key)
        sizes = {copy.disk: copy.bytes for copy in self._manifest.copies}
        sizes[MANIFEST] = manifest_path(self._files).stat().st_size
        told = 0
        for file, number in self._manifest.numbers.items():
            have = greeting.have.get(file, 0)
            path = manifest_path(self._files) if file == MANIFEST else copy_path(self._files, file)
            with path.open("rb") as content:
                while have < sizes[file]:
                    self._check()
                    content.seek(have)
                    piece = Piece(self._target.move, number, have, sizes[file])
                    box = sender.seal(piece, content.read(CHUNK_BYTES))
                    have = self._line.deliver(file, piece, sender.key, box)
                    self._progress = time.monotonic()
                    if file != MANIFEST:
                        self._on_bytes(told + have)
            if file != MANIFEST:
                told += sizes[file]
                self._on_bytes(told)
