"""What puts a node proxy before a node's agent: its settings and its unit."""

from __future__ import annotations

from ipaddress import IPv4Network

from pyinfra import host
from pyinfra.api import deploy

from deploys.units import service_files
from operations import files, systemd
from operations.files import File
from operations.systemd import Unit
from ppn.host.proxy.policy import CONTROLLER, HYPERVISOR
from ppn.host.proxy.settings import PATH, PORT, ProxySettings
from ppn.inventory import Pool
from ppn.mesh.firewall import Service
from ppn.pool.tls import NODE_KEY

USER = "ppn-proxy"
UNIT = "ppn-node-proxy.service"
# For the firewall of the mesh, in front of the proxy's own ringfence.
SERVICES = (
    Service(PORT, from_role=CONTROLLER, on_role=HYPERVISOR),
    # A node sends its VMs that move to others.
    Service(PORT, from_role=HYPERVISOR, on_role=HYPERVISOR),
)


def proxy_files(pool: Pool, name: str) -> dict[str, File]:
    """The proxy's settings and unit on a node: controllers and other hypervisors may connect.

    What a hypervisor may do there is to send a VM that moves, and nothing else.

    Args:
        pool: the sound nodes of the inventory.
        name: of the node.
    """
    node = pool.node(name)
    callers = [
        one.address
        for one in pool.nodes
        if CONTROLLER in one.roles or (HYPERVISOR in one.roles and one.name != name)
    ]
    settings = ProxySettings(
        node=node.name,
        listen=node.address,
        mesh_range=pool.range,
        allowed=tuple(IPv4Network(address) for address in sorted(callers)),
    )
    return service_files(PATH, settings, UNIT, pool.interface)


@deploy("Node proxy")
def node_proxy(pool: Pool, installed: dict[str, File]) -> None:
    """Make a hypervisor's agent reachable for the pool's controllers.

    Its user comes with the host agent, which serves that user.

    Args:
        pool: the sound nodes of the inventory.
        installed: the marker of the ppn software: the proxy restarts with it.
    """
    wanted = proxy_files(pool, host.name)
    files.rendered(name="Settings of the node proxy", files=wanted)
    # A changed certificate is taken over without a restart; a key is given once, at the start.
    systemd.units(
        name="Node proxy",
        units=(Unit(UNIT, restart_after=(PATH, NODE_KEY, *installed)),),
        files={**wanted, **installed},
    )
