"""What makes a node a fleet controller: its user, its settings, its unit."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from deploys.units import service_files
from operations import files, systemd, users
from operations.files import File
from operations.systemd import Unit
from ppn.fleet.settings import DEFAULT_PORT, PATH, FleetSettings, KnownNode
from ppn.host.proxy.policy import CONTROLLER
from ppn.inventory import TENANT_PROXY, Pool
from ppn.mesh.firewall import Service
from ppn.pool.tls import NODE_KEY

USER = "ppn-fleet"
UNIT = "ppn-fleet.service"
# For the firewall of the mesh, in front of the controller's own ring of addresses.
SERVICE = Service(DEFAULT_PORT, on_role=CONTROLLER)


def controller_files(pool: Pool, name: str) -> dict[str, File]:
    """A controller's settings and unit.

    Args:
        pool: the sound nodes of the inventory.
        name: of the node it runs on.
    """
    node = pool.node(name)
    controllers = [one.address for one in pool.nodes if CONTROLLER in one.roles]
    settings = FleetSettings(
        name=node.name,
        address=node.address,
        mesh_range=pool.range,
        nodes=tuple(
            KnownNode(name=one.name, address=one.address)
            for one in pool.nodes
            if "hypervisor" in one.roles
        ),
        callers=tuple(one.address for one in pool.nodes if TENANT_PROXY in one.roles),
        controllers=tuple(one for one in controllers if one != node.address),
    )
    return service_files(PATH, settings, UNIT, pool.interface)


@deploy("Fleet controller")
def fleet_controller(pool: Pool, installed: dict[str, File]) -> None:
    """Make a node one of the pool's controllers.

    Args:
        pool: the sound nodes of the inventory.
        installed: the marker of the ppn software: the controller restarts with it.
    """
    users.system(name="User of the fleet controller", users=[USER])
    wanted = controller_files(pool, host.name)
    files.rendered(name="Settings of the fleet controller", files=wanted)
    # A changed certificate is taken over without a restart; a key is given once, at the start.
    systemd.units(
        name="Fleet controller",
        units=(Unit(UNIT, restart_after=(PATH, NODE_KEY, *installed)),),
        files={**wanted, **installed},
    )
