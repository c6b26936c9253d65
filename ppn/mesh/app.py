"""The path keeper: probes the direct tunnels and moves addresses as the policy decides.

It listens on the node's probe address alone, keeps no state of its own across restarts, and starts
and ends with every peer on the relay.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from dataclasses import replace
from ipaddress import IPv6Address

from ppn.errors import PpnError
from ppn.inventory import KEEPER_PORT
from ppn.log import get_logger
from ppn.mesh import policy, status, wire
from ppn.mesh.paths import MeshPaths
from ppn.mesh.peers import Interface, Kind, Peer
from ppn.mesh.policy import TIMING, Link
from ppn.mesh.render import ConfigDamaged
from ppn.mesh.status import MeshState, PeerPath
from ppn.mesh.tunnels import load_config, move
from ppn.notify import notify
from ppn.run import CommandFailed

# Paths do not wait for it: each is moved, and told, as soon as the policy says so.
RECONCILE_SECONDS = 5.0

log = get_logger("path-keeper")


class KeeperUnavailable(PpnError):
    """The path keeper cannot do its work, and has to be started anew when the cause is gone."""

    code = "path_keeper_unavailable"


class Keeper(asyncio.DatagramProtocol):
    """One node's path keeper; the policy decides, this carries out.

    Args:
        paths: the node's files.
        interface: the node's interface.
        session: greater than that of any earlier keeper of this node.
    """

    def __init__(self, paths: MeshPaths, interface: Interface, session: int) -> None:
        self.paths = paths
        self.interface = interface
        self.session = session
        self.links: dict[str, Link] = {}
        self.peers: dict[IPv6Address, Peer] = {}
        self.woken = asyncio.Event()
        self.transport: asyncio.DatagramTransport | None = None
        self.config_seen = self._config_version()
        self._adopt(interface)

    @property
    def direct(self) -> frozenset[str]:
        """The peers whose direct path is in use."""
        return frozenset(name for name, link in self.links.items() if link.is_direct)

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        """Let the policy judge a probe; called by asyncio."""
        peer = self.peers.get(IPv6Address(str(addr[0]).partition("%")[0]))
        probe = wire.decode(data)
        if peer is None or probe is None:
            log.debug("datagram ignored", source=addr[0])
            return
        link = policy.received(self.links[peer.name], probe, time.monotonic())
        self.settle({peer.name: link})

    def error_received(self, exc: Exception) -> None:
        """A probe could not be sent, as long as a peer has no known endpoint; called by asyncio."""
        log.debug("probe not sent", error=str(exc))

    def settle(self, links: dict[str, Link]) -> None:
        """Take over new states: move what changed its path, then send what is due.

        The move comes first, so that whoever is told of it may rely on it.
        """
        before = self.direct
        self.links |= links
        if self.direct != before:
            self._move(before)
        now = time.monotonic()
        for name in links:
            if self.links[name].due <= now:
                self.links[name], probe = policy.sent(self.links[name], now)
                self._send(name, wire.encode(probe))
        self.woken.set()

    def reconcile(self) -> None:
        """Read changed configuration, undo what others did to the tunnels, tell how it is.

        Raises:
            CommandFailed: the interface is gone.
            KeeperUnavailable: the node's own addresses changed.
        """
        self._reload()
        if move(self.paths, self.interface, self.direct):
            log.info("tunnels corrected", direct=sorted(self.direct))
        self.write_state()

    def stop(self) -> None:
        """Put every peer back on the relay, and tell them.

        Raises:
            CommandFailed: they are not all there, for the interface refuses or is gone.
        """
        now = time.monotonic()
        self.settle(
            {
                name: policy.fallen_back(link, now)
                for name, link in self.links.items()
                if link.is_direct
            }
        )
        # A move that failed was logged, and the policy went on; who stops must not.
        move(self.paths, self.interface, self.direct)
        self.write_state()

    async def beat(self) -> None:
        """Let time pass for the policy, for ever."""
        while True:
            now = time.monotonic()
            due = {name: link for name, link in self.links.items() if link.due <= now}
            self.settle({name: policy.ticked(link, now) for name, link in due.items()})
            self.woken.clear()
            soonest = min((link.due for link in self.links.values()), default=now + 60)
            try:
                await asyncio.wait_for(self.woken.wait(), max(soonest - time.monotonic(), 0.001))
            except TimeoutError:
                continue

    async def watch(self) -> None:
        """Reconcile for ever, and tell systemd that we are alive."""
        while True:
            self.reconcile()
            notify("WATCHDOG=1")
            await asyncio.sleep(RECONCILE_SECONDS)

    def write_state(self) -> None:
        """Write the state file.

        Raises:
            OSError: its folder is missing or not writable.
        """
        status.write(self.paths.state, self.state())

    def state(self) -> MeshState:
        """The paths of all peers now."""
        one = self.interface
        peers = tuple(self._peer_path(peer) for peer in one.peers)
        return MeshState(one.node, one.interface, str(one.address), time.time(), peers)

    def _peer_path(self, peer: Peer) -> PeerPath:
        base = PeerPath(peer.name, str(peer.address), peer.kind.value, "direct")
        link = self.links.get(peer.name)
        if peer.kind is Kind.UNREACHABLE:
            return replace(base, path="none")
        if peer.kind is Kind.RELAYED or link is None:
            relayed = peer.kind is Kind.RELAYED
            return replace(base, path="relay", via=self._carrier) if relayed else base
        offset = time.time() - time.monotonic()
        return replace(
            base,
            path="direct" if link.is_direct else "relay",
            via=None if link.is_direct else self._carrier,
            since=offset + link.since,
            evidence=None if link.evidence is None else offset + link.evidence,
            failures=link.failures,
        )

    @property
    def _carrier(self) -> str | None:
        return self.interface.carrier

    def _adopt(self, interface: Interface) -> None:
        """Take over an interface; peers that were switched before keep their state."""
        now = time.monotonic()
        self.interface = interface
        self.peers = {peer.probe: peer for peer in interface.switched}
        fresh = {
            peer.name: Link(interface.probe < peer.probe, self.session, since=now, due=now)
            for peer in interface.switched
        }
        self.links = {name: self.links.get(name, link) for name, link in fresh.items()}

    def _reload(self) -> None:
        version = self._config_version()
        if version == self.config_seen:
            return
        self.config_seen = version
        try:
            interface = load_config(self.paths)
        except (ConfigDamaged, OSError) as error:
            log.error("configuration not taken over", error=str(error))
            return
        own = (interface.node, interface.interface, interface.probe)
        if own != (self.interface.node, self.interface.interface, self.interface.probe):
            raise KeeperUnavailable("the node's own name, interface or address changed")
        self._adopt(interface)
        log.info("configuration taken over", peers=len(interface.peers))

    def _config_version(self) -> tuple[int, int]:
        found = self.paths.config.stat()
        return found.st_ino, found.st_mtime_ns

    def _move(self, before: frozenset[str]) -> None:
        try:
            move(self.paths, self.interface, self.direct)
        except CommandFailed as error:
            log.error("tunnels not moved", error=str(error))
            now = time.monotonic()
            for name in self.direct - before:
                self.links[name] = policy.fallen_back(self.links[name], now)
        for name in sorted(self.direct ^ before):
            link = self.links[name]
            path = "direct" if link.is_direct else "relay"
            log.info("path changed", peer=name, path=path, failures=link.failures)
        self.write_state()

    def _send(self, name: str, datagram: bytes) -> None:
        peer = next((one for one in self.interface.switched if one.name == name), None)
        if peer is not None and self.transport is not None:
            self.transport.sendto(datagram, (str(peer.probe), KEEPER_PORT))


async def serve(paths: MeshPaths) -> None:
    """Run the path keeper until it is told to stop.

    Args:
        paths: the node's files.

    Raises:
        PpnError: no sound configuration, no interface, or the probe address is not ours.
    """
    loop = asyncio.get_running_loop()
    keeper, transport = await _open(paths)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    peers = len(keeper.links)
    log.info("started", node=keeper.interface.node, peers=peers, loss=TIMING.loss)
    notify("READY=1", f"STATUS=keeps the paths to {peers} peers")
    tasks = [loop.create_task(keeper.beat()), loop.create_task(keeper.watch())]
    signalled = loop.create_task(stopping.wait())
    done, pending = await asyncio.wait([*tasks, signalled], return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in done:
        task.result()
    notify("STOPPING=1")
    keeper.stop()
    transport.close()
    log.info("stopped")


async def _open(paths: MeshPaths) -> tuple[Keeper, asyncio.DatagramTransport]:
    """A keeper with every peer on the relay, listening on the node's probe address alone."""
    try:
        keeper = Keeper(paths, load_config(paths), time.time_ns())
        # The policy starts on the relay; so must the tunnels.
        keeper.reconcile()
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: keeper,
            local_addr=(str(keeper.interface.probe), KEEPER_PORT),
            family=socket.AF_INET6,
        )
    except OSError as error:
        raise KeeperUnavailable(
            f"the path keeper cannot start: {error}",
            hint="is the mesh interface up? systemctl status wg-quick@ppn0.service",
        ) from error
    keeper.transport = transport
    return keeper, transport
