"""A whole pool of two machines: a controller on one, agent, proxy and libvirt on the other.

Each machine is a network namespace and the mesh is a cable between them; all else is real.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from lab import guest
from ppn.host.model import Settings
from ppn.pool.tls import TlsFiles
from ppn.run import Completed, run
from tests.integration.agent.agents import Agent
from tests.integration.host import still
from tests.integration.host.libvirtd import start_again
from tests.integration.host.node import PPN, Node, end_process, wait_for
from tests.integration.mesh.namespaces import Namespace
from tests.integration.proxy.parts import Authority, replace

RELAY, SERVER = "10.8.0.1", "10.8.0.2"
URL = f"http://{RELAY}:9203"
SIZE = ("--vcpus", "2", "--memory-mib", "256")
ORDER = ("create", still.NAME, *SIZE)
# Stands in the user data of the VM that runs all the time, and nowhere else.
SECRET = "do-not-show-4711"


def inside(space: Namespace) -> tuple[str, ...]:
    """The words before a command that give it a machine's network, and no more of it."""
    return ("nsenter", "-t", str(space.pid), "-n", "--")


@dataclass
class Program:
    """A service of the pool as a process of its own.

    Args:
        argv: its command line.
        log: where what it says goes.
    """

    argv: tuple[str, ...]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.argv, stdout=log, stderr=log)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None


class InsideAgent(Agent):
    """The host agent, on its machine's network."""

    def spawn_process(self) -> subprocess.Popen[bytes]:
        """Start the program, without waiting for anything."""
        with (self.node.root / "agent.log").open("ab") as log:
            return subprocess.Popen(
                [*self.node.enter, PPN, "host", "agent"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.node.environment, **self.environment},
            )


@dataclass
class Pool:
    """The pool, with what breaks and mends it.

    Args:
        relay: the controller's machine.
        server: the hypervisor's.
        node: its files and its libvirt.
        folder: takes settings and certificates.
        authority: of the pool.
        base: the VM that runs all the time.
        daemon: a libvirtd that a test started anew.
    """

    relay: Namespace
    server: Namespace
    node: Node
    folder: Path
    authority: Authority
    agent: InsideAgent = field(init=False)
    proxy: Program = field(init=False)
    controller: Program = field(init=False)
    base: str = ""
    daemon: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.agent = InsideAgent(self.node, settings={"controllers": [URL]})
        self.tls = TlsFiles(
            self.folder / "node.key", self.folder / "node.crt", self.folder / "trust.crt"
        )
        replace(self.tls.trust, self.authority.certificate.read_text())
        own = self.authority.issue("server", "hypervisor", address=SERVER)
        self.tls.key.write_bytes(own.key.read_bytes())
        replace(self.tls.certificate, own.certificate.read_text())
        self.proxy = self._program(self.server, "ppn.host.proxy", self.tls.key, self._proxy())
        relay = self.authority.issue("relay", "relay", "controller", address=RELAY)
        settings = self._fleet(relay)
        self.controller = self._program(self.relay, "ppn.fleet", relay.key, settings)

    def certify(self, **how: timedelta) -> None:
        """Give the node proxy another certificate of its key, and let it begin with that."""
        made = self.authority.issue("server", "hypervisor", address=SERVER, key=self.tls.key, **how)
        self.proxy.end()
        replace(self.tls.certificate, made.certificate.read_text())
        self.proxy.start()
        wait_for("the proxy", lambda: self.listens(self.server, 9204))

    def start_libvirtd(self) -> None:
        """Start a libvirtd anew that was killed."""
        self.daemon = start_again(self.node)

    def configure(self, **settings: Any) -> None:
        """Write the node's settings."""
        usual: dict[str, Any] = {
            "name": "server",
            "mesh_address": SERVER,
            "vm_range": "10.9.2.0/24",
            "port_first": 30000,
            "port_last": 30000,
        }
        self.node.paths.settings.parent.mkdir(parents=True, exist_ok=True)
        self.node.paths.settings.write_text(Settings(**(usual | settings)).model_dump_json())

    def ppn(self, *words: str, accept: tuple[int, ...] = (0,)) -> Completed:
        """Run `ppn` on the controller's machine."""
        return run(
            [*inside(self.relay), PPN, *words],
            timeout=300,
            accept=accept,
            env={**self.node.environment, "PPN_ROOT": "/nowhere", "PPN_CONTROLLER": URL},
        )

    def json(self, *words: str, accept: tuple[int, ...] = (0,)) -> Any:
        """What `ppn` answers as JSON."""
        return json.loads(self.ppn(*words, "--json", accept=accept).stdout)

    def refused(self, *words: str, code: int = 3) -> dict[str, Any]:
        """The error that `ppn vm` ends with."""
        done = self.ppn("vm", *words, "--json", accept=(code,))
        error: dict[str, Any] = json.loads(done.stderr)["error"]
        return error

    def causes(self, *words: str) -> list[dict[str, Any]]:
        """What `ppn debug` finds."""
        found: list[dict[str, Any]] = self.json("debug", *words, accept=(7,))["causes"]
        return found

    def heard(self) -> bool:
        """Whether the controller has heard the node lately, with nothing wrong."""
        done = self.ppn("node", "show", "server", "--json", accept=(0, 4, 5))
        return done.returncode == 0 and not json.loads(done.stdout)["stale"]

    def listens(self, space: Namespace, port: int) -> bool:
        """Whether something listens on a port of a machine."""
        return f":{port} " in run([*inside(space), "ss", "-Hltn"], timeout=30).stdout

    def _program(
        self, space: Namespace, module: str, key: Path, settings: dict[str, Any]
    ) -> Program:
        path = self.folder / f"{module}.json"
        path.write_text(json.dumps(settings))
        words = ("-m", module, "--key", str(key), "--settings", str(path))
        argv = (*inside(space), sys.executable, *words)
        return Program(argv, self.folder / f"{module}.log")

    def _proxy(self) -> dict[str, Any]:
        return {
            "node": "server",
            "listen": SERVER,
            "mesh_range": "10.8.0.0/24",
            "allowed": [f"{RELAY}/32"],
            "certificate": str(self.tls.certificate),
            "trust": str(self.tls.trust),
            "agent_socket": str(self.node.paths.agent_socket),
        }

    def _fleet(self, files: TlsFiles) -> dict[str, Any]:
        return {
            "name": "relay",
            "address": RELAY,
            "mesh_range": "10.8.0.0/24",
            "nodes": [{"name": "server", "address": SERVER}],
            "journal": str(self.folder / "intents.jsonl"),
            "request_seconds": 60,
            "certificate": str(files.certificate),
            "trust": str(files.trust),
        }


@contextmanager
def started() -> Iterator[Pool]:
    """The pool with one VM that runs; everything ended with the block."""
    with ExitStack() as stack:
        # Not pytest's folder: the path of a Unix socket has at most 107 characters.
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ppn-debug-")))
        spaces = []
        for name in ("relay", "server"):
            spaces.append(Namespace(name))
            stack.callback(spaces[-1].end)
        relay, server = spaces
        ends = f"link add ppn0 netns {server.pid} type veth peer name ppn0 netns {relay.pid}"
        run(["ip", *ends.split()], timeout=10)
        for space, address in ((server, SERVER), (relay, RELAY)):
            space.sh(f"ip addr add {address}/24 dev ppn0; ip link set ppn0 up")
        server.sh("echo 1 > /proc/sys/net/ipv4/conf/ppn0/forwarding")
        node = Node(root / "node", inside(server))
        node.root.mkdir()
        node.prepare(guest.cached())
        (node.root / "proc/net").symlink_to("/proc/net")
        node.paths.vms.mkdir(mode=0o711)
        run(["mount", "-t", "tmpfs", "-o", "size=6g", "tmpfs", node.paths.vms], timeout=60)
        stack.callback(run, ["umount", "-l", node.paths.vms], timeout=60)
        folder = root / "services"
        folder.mkdir()
        pool = Pool(relay, server, node, folder, Authority(folder))
        pool.configure()
        stack.callback(stop, pool, node.start())
        node.virsh("domcapabilities")
        for service in (pool.controller, pool.proxy, pool.agent):
            service.start()
            stack.callback(service.end)
        wait_for("the node is heard", pool.heard)
        pool.base = make_base(pool)
        yield pool


def stop(pool: Pool, first: subprocess.Popen[bytes]) -> None:
    """End every guest and both daemons, also a libvirtd that a test started anew."""
    pool.node.stop(first)
    if pool.daemon is not None:
        # It is behind nsenter, which ends with it.
        end_process(int((pool.node.root / "libvirtd.pid").read_text()))
        pool.daemon.wait(60)


def make_base(pool: Pool) -> str:
    """The VM that runs all the time: it holds the one host port there is."""
    data = pool.folder / "user-data.json"
    data.write_text(json.dumps({"write_files": [{"path": "/x", "content": SECRET}]}))
    words = ("--port", "80", "--user-data", str(data), "--label", "base")
    made = pool.json("vm", "create", "tiny", *SIZE, *words)
    vm = str(made["vm"]["id"])
    pool.node.wait_ready(vm)
    return vm
