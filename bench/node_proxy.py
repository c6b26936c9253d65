"""Requests through a node proxy, TLS and validation included, against a FastAPI proxy.

Beside it the same frames over a Unix socket and over TCP on loopback (NP-07).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from multiprocessing import get_context
from pathlib import Path
from typing import cast

import uvicorn
from fastapi import FastAPI, Request, Response

from bench.result import Result, times_faster
from ppn.errors import PpnError
from ppn.host.proxy import app
from ppn.host.proxy.agent import AgentClient
from ppn.host.proxy.settings import Limits, ProxySettings
from ppn.host.spec import VmSpec
from ppn.log import configure_log
from ppn.pool.tls import TlsFiles, client_context
from ppn.wire import agent
from ppn.wire.frames import encode_frame
from tests.integration.proxy.parts import NODE, TICKET, Authority

# Not slower, though it keeps an audit log and judges more.
AIM = 1.0
CONNECTIONS, REQUESTS = 16, 2000
# One in so many breaks the contract, and has to be refused however busy the proxy is (NP-11).
BROKEN = 10
ROUND_TRIPS = 4000
START_SECONDS = 60.0
LOOPBACK = "127.0.0.1"
SPEC = {"name": "web", "image": "tiny", "vcpus": 2, "memory_mib": 256, "ssh_keys": ["a b"] * 4}


class LoadFailed(PpnError):
    """A server did not come up, or answered what it should not have."""

    code = "load_failed"


@dataclass(frozen=True)
class Load:
    """One run of the load: seconds for all of it, and for each request."""

    seconds: float
    latencies: tuple[float, ...]

    def text(self, who: str) -> str:
        """The run in words."""
        p99 = statistics.quantiles(self.latencies, n=100)[-1]
        rate = REQUESTS / self.seconds
        return f"{who} {rate:.0f} requests/s, p99 {p99 * 1000:.1f} ms"


def measure(runs: int) -> Result:
    """Send the same load in pairs, the first of each pair by turns.

    The peer is what one would write first: FastAPI under uvicorn, with the same certificates,
    the same models and the same lines to the agent; it keeps no audit log. Compared is the CPU
    time that the servers take, for the load's own sender shares this machine with them.

    Args:
        runs: how many pairs.

    Raises:
        LoadFailed: a server did not come up, or answered what it should not have.
    """
    ours: list[float] = []
    peer: list[float] = []
    with tempfile.TemporaryDirectory(prefix="ppn-bench-") as name, servers(Path(name)) as stand:
        compare_sockets(stand)
        for pair in range(-1, runs):
            takers = [(ours, "ours"), (peer, "peer")]
            for series, who in takers if pair % 2 else reversed(takers):
                before = cpu_seconds(stand.pids[who])
                load = asyncio.run(send(stand.ports[who], stand.caller))
                series.append(cpu_seconds(stand.pids[who]) - before)
                cpu = series[-1] / REQUESTS * 1e6
                print(f"pair {pair + 1}: {load.text(who)}, {cpu:.0f} us CPU each", flush=True)
    # The first pair warms both up.
    return times_faster("node_proxy", ours[1:], peer[1:], aim=AIM)


@dataclass(frozen=True)
class Stand:
    """What runs: an agent, our proxy and the peer.

    Args:
        caller: a controller's key and certificate.
        agent_socket: the agent's Unix socket.
        ports: of `ours`, `peer` and `agent` on loopback.
        pids: of their processes.
    """

    caller: TlsFiles
    agent_socket: Path
    ports: dict[str, int]
    pids: dict[str, int]


@contextmanager
def servers(folder: Path) -> Iterator[Stand]:
    """The three servers, each in a process of its own; they end with the block."""
    authority = Authority(folder)
    own = authority.issue(NODE, "hypervisor")
    ports = {name: free_port() for name in ("ours", "peer", "agent")}
    path = folder / "agent.sock"
    spawn = get_context("spawn")
    processes = {
        "agent": spawn.Process(target=serve_agent, args=(path, ports["agent"]), daemon=True),
        "ours": spawn.Process(target=serve_ours, args=(own, path, ports["ours"]), daemon=True),
        "peer": spawn.Process(target=serve_peer, args=(own, path, ports["peer"]), daemon=True),
    }
    for process in processes.values():
        process.start()
    try:
        for port in ports.values():
            await_port(port)
        pids = {name: process.pid or 0 for name, process in processes.items()}
        yield Stand(authority.issue("relay", "controller"), path, ports, pids)
    finally:
        for process in processes.values():
            process.terminate()
            process.join(30)


def cpu_seconds(pid: int) -> float:
    """How long a process has been on a CPU."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def await_port(port: int) -> None:
    """Wait until someone listens.

    Raises:
        LoadFailed: nobody did in time.
    """
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            socket.create_connection((LOOPBACK, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise LoadFailed(f"nobody listens on port {port} after {START_SECONDS:g} s")


def serve_agent(path: Path, port: int) -> None:
    """An agent that says yes, over a Unix socket and, to compare the two, over TCP."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(4), "big")
                request = json.loads(await reader.readexactly(length))
                said = {"correlation_id": request["correlation_id"], "result": {"id": "web"}}
                writer.write(encode_frame(json.dumps(said).encode()))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def serve() -> None:
        await asyncio.start_unix_server(answer, path)
        await (await asyncio.start_server(answer, LOOPBACK, port)).serve_forever()

    asyncio.run(serve())


def serve_ours(files: TlsFiles, path: Path, port: int) -> None:
    """The node proxy as it is, its audit log included."""
    settings = ProxySettings(
        node=NODE,
        listen=IPv4Address(LOOPBACK),
        port=port,
        mesh_range=IPv4Network("10.8.0.0/24"),
        allowed=(IPv4Network(LOOPBACK),),
        certificate=str(files.certificate),
        trust=str(files.trust),
        agent_socket=str(path),
        development=True,
    )
    with (path.parent / "audit.log").open("w") as log:
        # Like the journal, a file that is written line by line.
        sys.stderr = log
        configure_log()
        asyncio.run(app.serve(settings, files.key))


def serve_peer(files: TlsFiles, path: Path, port: int) -> None:
    """The peer: FastAPI reads the same models and asks over the same kind of lines."""
    api = FastAPI()
    client = AgentClient(str(path), Limits())

    @api.post("/v1/vms")
    async def spawn(vm: VmSpec, request: Request) -> Response:
        ticket = agent.Ticket.model_validate_json(request.headers["ppn-ticket"])
        correlation = request.headers["ppn-correlation-id"]
        asked = agent.Request(correlation_id=correlation, ticket=ticket, body=agent.Spawn(vm=vm))
        answer = await client.ask(asked)
        return Response(json.dumps(answer.result), media_type="application/json")

    uvicorn.run(
        api,
        host=LOOPBACK,
        port=port,
        ssl_keyfile=files.key,
        ssl_certfile=files.certificate,
        ssl_ca_certs=str(files.trust),
        ssl_cert_reqs=ssl.CERT_REQUIRED,
        log_level="error",
    )


class Caller(asyncio.Protocol):
    """One connection that asks the next thing when it has its answer.

    Args:
        left: requests nobody has sent yet.
        ended: set when all are answered.
    """

    def __init__(self, left: list[bytes], ended: asyncio.Future[None]) -> None:
        self.left = left
        self.ended = ended
        self.latencies: list[float] = []
        self.wrong = ""
        self.broken = False
        self.sent = 0.0
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the first thing; called by asyncio."""
        self.transport = cast(asyncio.Transport, transport)
        self.ask()

    def ask(self) -> None:
        """Send the next request, or end."""
        if not self.left:
            self.transport.close()
            return
        request = self.left.pop()
        self.broken = b'"vcpus": 0' in request
        self.received = b""
        self.sent = time.monotonic()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take an answer; called by asyncio."""
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
        if not found or len(body) < int(length):
            return
        self.latencies.append(time.monotonic() - self.sent)
        status = int(head.split()[1])
        if status not in ((400, 422) if self.broken else (200,)):
            self.wrong = f"{status} for a {'broken' if self.broken else 'sound'} request"
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that this one is done; called by asyncio."""
        if not self.ended.done():
            self.ended.set_result(None)


async def send(port: int, files: TlsFiles) -> Load:
    """Send the whole load over a few connections.

    Raises:
        LoadFailed: an answer was not what it should have been.
    """
    loop = asyncio.get_running_loop()
    left = [post(number) for number in range(REQUESTS)]
    context = client_context(files)
    ends = [loop.create_future() for _ in range(CONNECTIONS)]
    began = time.monotonic()
    made = [
        await loop.create_connection(
            lambda end=end: Caller(left, end),  # type: ignore[misc]
            LOOPBACK,
            port,
            ssl=context,
            server_hostname=LOOPBACK,
        )
        for end in ends
    ]
    await asyncio.wait(ends, timeout=START_SECONDS)
    seconds = time.monotonic() - began
    callers = [caller for _, caller in made]
    latencies = tuple(one for caller in callers for one in caller.latencies)
    wrong = next((caller.wrong for caller in callers if caller.wrong), "")
    if wrong or len(latencies) != REQUESTS:
        raise LoadFailed(wrong or f"{len(latencies)} of {REQUESTS} requests were answered")
    return Load(seconds, latencies)


def post(number: int) -> bytes:
    """One request for a VM; one in a few is for a VM without CPUs."""
    spec = SPEC | {"vcpus": 0} if number % BROKEN == 0 else SPEC
    body = json.dumps(spec)
    lines = [
        "POST /v1/vms HTTP/1.1",
        "Host: node",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"Ppn-Correlation-Id: bench-{number:08}",
        f"Ppn-Ticket: {json.dumps(TICKET)}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def compare_sockets(stand: Stand) -> None:
    """Print how long a frame takes to and fro over a Unix socket and over TCP (NP-07)."""
    request = agent.Request(correlation_id="bench-00", body=agent.ShowVm(vm="web"))
    frame = encode_frame(request.model_dump_json().encode())
    with (
        socket.socket(socket.AF_UNIX) as unix,
        socket.create_connection((LOOPBACK, stand.ports["agent"])) as tcp,
    ):
        unix.connect(str(stand.agent_socket))
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # In turns, so that what else the machine does weighs on both.
        parts = [(round_trips(unix, frame), round_trips(tcp, frame)) for _ in range(10)]
    ratio = statistics.median(other / one for one, other in parts)
    one, other = (statistics.median(series) for series in zip(*parts, strict=True))
    print(
        f"a frame to and fro: Unix socket {one * 1e6:.0f} us, TCP {other * 1e6:.0f} us,"
        f" ratio {ratio:.2f}",
        flush=True,
    )


def round_trips(line: socket.socket, frame: bytes) -> float:
    """Seconds that one question and its answer take."""
    count = ROUND_TRIPS // 10
    began = time.monotonic()
    for _ in range(count):
        line.sendall(frame)
        line.recv(65536)
    return (time.monotonic() - began) / count
