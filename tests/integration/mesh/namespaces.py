"""Nodes as namespaces: each has its own network, processes, /etc and /run, and real WireGuard.

Everything a node holds lives in its process namespace, so ending its first process ends it all.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ppn.inventory import TENANT_PROXY, TENANT_PROXY_PORT, Pool
from ppn.mesh.firewall import SSH, Service, ruleset
from ppn.mesh.peers import interface_of
from ppn.mesh.registry import Registry
from ppn.mesh.render import keeper_config, wg_quick
from ppn.run import Completed, run

PREPARE = """set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
mount -t tmpfs tmpfs /run
mkdir -p /etc/ppn /etc/wireguard /run/ppn/mesh
ip link set lo up
echo 0 > /proc/sys/net/ipv4/ip_forward
echo ready
exec sleep infinity"""


# SSH, and the tenant proxy for customers and controllers.
SERVICES = (SSH, Service(TENANT_PROXY_PORT, "tcp", "controller", TENANT_PROXY, for_tenants=True))
# A node's firewall gone, and back.
WITHOUT_RULES = ("nft delete table inet ppn", "nft -f /etc/ppn.nft")


def ppn_mesh(*words: str) -> tuple[str, ...]:
    """The words that run `ppn mesh` from this checkout."""
    return (sys.executable, "-c", "from ppn.cli.mesh import mesh_app; mesh_app()", *words)


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until something is so, and return how long that took."""
    began = asked = time.monotonic()
    while not condition():
        now = time.monotonic()
        if now - began > seconds:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        # What is waited for needs the processors too.
        time.sleep(max(0.1, now - asked))
        asked = time.monotonic()
    return time.monotonic() - began


def child_of(pid: int) -> int:
    """The host's number of the only child of a process."""
    found: list[str] = []

    def has_child() -> bool:
        found[:] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return bool(found)

    wait_for(has_child, 60, f"child of {pid}")
    return int(found[0])


@dataclass
class Program:
    """A program that runs in a node until it is ended."""

    process: subprocess.Popen[str]

    def signal(self, number: signal.Signals) -> str:
        """Send the program itself a signal, and return what it printed until its end."""
        os.kill(child_of(self.process.pid), number)
        return self.process.communicate(timeout=30)[0]


@dataclass
class Namespace:
    """One node.

    Args:
        name: as in the inventory.
    """

    name: str
    programs: list[Program] = field(default_factory=list)
    keeper: Program | None = None

    def __post_init__(self) -> None:
        words = ["unshare", "-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]
        self.shell = subprocess.Popen([*words, PREPARE], stdout=subprocess.PIPE, text=True)
        if self.shell.stdout is None or self.shell.stdout.readline() != "ready\n":
            raise RuntimeError(f"{self.name}: its namespaces did not come up")
        self.pid = child_of(self.shell.pid)

    @property
    def enter(self) -> list[str]:
        """The words before a command that run it in the node."""
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "-p", "--"]

    def __call__(self, *words: str, input: str = "", accept: tuple[int, ...] = (0,)) -> Completed:
        """Run a program to its end."""
        return run([*self.enter, *words], timeout=60, input=input, accept=accept)

    def sh(self, line: str) -> str:
        """Run a shell line and return what it printed."""
        return self("sh", "-ec", line).stdout

    def ppn(self, *words: str) -> str:
        """Run `ppn mesh` and return what it printed."""
        return self(*ppn_mesh(*words)).stdout

    def start(self, *words: str) -> Program:
        """Start a program and leave it running."""
        program = Program(
            subprocess.Popen(
                [*self.enter, *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                # Nobody reads before its end, and one that cannot print stands still.
                pipesize=1 << 20,
            )
        )
        self.programs.append(program)
        return program

    def keep_paths(self) -> None:
        """Start the path keeper, unless it runs."""
        if self.keeper is None or self.keeper.process.poll() is not None:
            self.keeper = self.start(*ppn_mesh("keep-paths"))

    def end_keeper(self, number: signal.Signals) -> str:
        """End the path keeper with a signal, and return what it logged."""
        if self.keeper is None:
            raise RuntimeError(f"{self.name} has no path keeper")
        return self.keeper.signal(number)

    def write(self, path: str, content: str, mode: str = "0600") -> None:
        """Write a file of the node."""
        self("sh", "-ec", f'umask 077; cat > "{path}"; chmod {mode} "{path}"', input=content)

    def configure(self, pool: Pool, registry: Registry) -> None:
        """Write the node's mesh files, as the deploy does."""
        interface = interface_of(pool, registry, self.name)
        self.write(f"/etc/wireguard/{pool.interface}.conf", wg_quick(interface))
        self.write("/etc/ppn/mesh.json", keeper_config(interface), "0644")
        self.write("/etc/ppn.nft", ruleset(pool, pool.node(self.name), SERVICES))

    @contextmanager
    def changed(self, line: str, back: str) -> Iterator[None]:
        """Run a shell line, and another one when the block ends."""
        self.sh(line)
        try:
            yield
        finally:
            self.sh(back)

    def reaches(self, address: str, count: int = 3, *, seconds: int = 15) -> bool:
        """Whether at least one of a few pings is answered, waiting so long for the first answer."""
        words = ("ping", "-n", "-q", "-i", "0.2", "-W", str(seconds), "-c", str(count), address)
        return self(*words, accept=(0, 1, 2)).returncode == 0

    def transfer(self, key: str) -> int:
        """Bytes received and sent through the tunnel to a peer."""
        for line in self("wg", "show", "ppn0", "transfer").stdout.splitlines():
            peer, received, sent = line.split()
            if peer == key:
                return int(received) + int(sent)
        raise KeyError(key)

    def end(self) -> None:
        """End everything the node holds."""
        self.shell.kill()
        self.shell.communicate()
        for program in self.programs:
            program.process.kill()
            program.process.communicate()


def connect(one: Namespace, addresses: str, other: Namespace, back: str) -> str:
    """Lay a cable between two nodes; returns its name at both ends."""
    name = f"v{secrets.token_hex(4)}"
    other_end = f"netns {other.pid}"
    line = f"link add {name} netns {one.pid} type veth peer name {name} {other_end}"
    run(["ip", *line.split()], timeout=10)
    for node, address in ((one, addresses), (other, back)):
        node.sh(f"ip addr add {address} dev {name}; ip link set {name} up")
    return name
