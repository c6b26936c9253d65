"""Puts the host agent together; `ppn host agent` runs it and systemd starts that.

It holds the node's lock for its whole life: a second agent refuses to start, and `ppn host` finds
the socket instead of the lock.
"""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor

from ppn.errors import PpnError
from ppn.host.agent.heartbeat import Heart
from ppn.host.agent.observer import Observer
from ppn.host.agent.server import Server
from ppn.host.agent.service import Service
from ppn.host.agent.settings import AgentSettings, AgentUnavailable, proxy_ids, read_agent_settings
from ppn.host.agent.tickets import Tickets
from ppn.host.lock import NodeBusy, node_lock
from ppn.host.paths import Paths
from ppn.log import get_logger
from ppn.notify import notify
from ppn.wire.heartbeat import Heartbeat

LOCK_SECONDS = 5.0
# systemd waits a little longer; a guest has 60 s to power off.
GRACE_SECONDS = 80.0
# A node with many VMs takes long to put in order after a boot.
START_SECONDS = 900
ALIVE_SECONDS = 10.0

log = get_logger("host-agent")


def run(paths: Paths) -> None:
    """Be the node's host agent until told to stop.

    Args:
        paths: the node's files.

    Raises:
        AgentUnavailable: another agent runs, or the settings do not allow to start.
        PpnError: the node cannot be read.
    """
    settings = read_agent_settings(paths)
    uid, gid = proxy_ids(settings.proxy_user)
    try:
        with node_lock(paths.lock, timeout=LOCK_SECONDS):
            agent = Agent(paths, settings)
            try:
                asyncio.run(agent.serve(uid, gid))
            finally:
                # Who holds the lock next must meet no work of ours.
                agent.finish()
    except NodeBusy as error:
        raise AgentUnavailable(
            f"another agent or a ppn host command is changing this node: {error.message}",
            code="agent_running",
            hint="one agent per node: systemctl status ppn-agent.service",
        ) from error


class Agent:
    """One node's host agent, under the node's lock.

    Args:
        paths: the node's files.
        settings: its own settings.
    """

    def __init__(self, paths: Paths, settings: AgentSettings) -> None:
        self._paths = paths
        self._tickets = Tickets(settings.node)
        self._service = Service(
            paths, on_change=self._changed, report=self._report, settings=settings
        )
        self._observer = Observer(self._service, self._tickets, settings.node)
        self._heart = Heart(self._look, settings.controllers, settings.heartbeat_seconds)
        self._eyes = ThreadPoolExecutor(1, thread_name_prefix="look")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._node = settings.node
        self._server: Server | None = None

    async def serve(self, uid: int | None, gid: int | None) -> None:
        """Put the node in order, then serve until told to stop.

        Args:
            uid: the node proxy's user; None for none.
            gid: the node proxy's group.

        Raises:
            PpnError: the node cannot be read.
            OSError: the socket cannot be made.
        """
        stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, stopping.set)
        notify(f"EXTEND_TIMEOUT_USEC={START_SECONDS * 1_000_000}", "STATUS=puts the node in order")
        await self._loop.run_in_executor(self._eyes, self._observer.prepare)
        server = self._server = Server(self._service.do, self._tickets, proxy_uid=uid)
        await server.listen(self._paths.agent_socket, gid)
        beating = self._loop.create_task(self._heart.run())
        alive = self._loop.create_task(_say_alive())
        log.info("started", node=self._node, session=self._tickets.session)
        notify("READY=1", "STATUS=serves")
        signalled = self._loop.create_task(stopping.wait())
        await asyncio.wait({beating, signalled}, return_when=asyncio.FIRST_COMPLETED)
        notify("STOPPING=1")
        await server.close(self._paths.agent_socket, GRACE_SECONDS)
        for task in (signalled, alive):
            task.cancel()
        if beating.done():
            beating.result()
        beating.cancel()
        log.info("stopped")

    def finish(self) -> None:
        """Wait for what is at work still; what had not begun is dropped."""
        self._eyes.shutdown(cancel_futures=True)
        if self._server is not None:
            self._server.finish()
        self._service.moves.finish()

    async def _look(self) -> Heartbeat | None:
        if self._loop is None:
            return None
        try:
            return await self._loop.run_in_executor(self._eyes, self._observer.look)
        except PpnError as error:
            log.error("the node cannot be read", code=error.code, error=str(error))
            return None

    def _changed(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._heart.poke)

    def _report(self) -> dict[str, object]:
        return self._observer.report()


async def _say_alive() -> None:
    """Tell systemd that the event loop turns; a look may take long after libvirt was away."""
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(ALIVE_SECONDS)
