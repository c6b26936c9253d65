"""What puts a host agent on a hypervisor: its settings and its unit."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from deploys import node_proxy
from deploys.units import unit_file
from operations import files, systemd, users
from operations.files import File
from operations.systemd import Unit
from ppn.fleet.settings import DEFAULT_PORT
from ppn.host.agent.settings import AgentSettings
from ppn.host.paths import Paths
from ppn.host.proxy.policy import CONTROLLER
from ppn.inventory import Pool

PATH = str(Paths().agent_settings)
UNIT = "ppn-agent.service"


def agent_files(pool: Pool, name: str) -> dict[str, File]:
    """The agent's settings and unit on a node: every controller of the pool hears of it.

    Args:
        pool: the sound nodes of the inventory.
        name: of the node.
    """
    controllers = sorted(one.address for one in pool.nodes if CONTROLLER in one.roles)
    settings = AgentSettings(
        node=name,
        controllers=tuple(f"http://{address}:{DEFAULT_PORT}" for address in controllers),
        proxy_user=node_proxy.USER,
    )
    return {PATH: File(settings.model_dump_json(indent=2) + "\n"), **unit_file(UNIT)}


@deploy("Host agent")
def host_agent(pool: Pool, installed: dict[str, File]) -> None:
    """Put the agent in charge of a hypervisor's VMs.

    Args:
        pool: the sound nodes of the inventory.
        installed: the marker of the ppn software: the agent restarts with it.
    """
    # The agent's socket is for root and for this user, so that it has to exist.
    users.system(name="User the agent serves", users=[node_proxy.USER])
    wanted = agent_files(pool, host.name)
    files.rendered(name="Settings of the host agent", files=wanted)
    systemd.units(
        name="Host agent",
        units=(Unit(UNIT, restart_after=(PATH, "/etc/ppn/node.json", *installed)),),
        files={**wanted, **installed},
    )
