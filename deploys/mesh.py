"""What makes a node a member of the mesh: firewall, WireGuard interface, path keeper."""

from __future__ import annotations

from collections.abc import Iterable

from pyinfra import host
from pyinfra.api import deploy

from deploys.units import unit_file, unit_text
from facts.shared import shared_fact
from facts.wireguard import WireGuard
from operations import files, nftables, packages, systemd, wireguard
from operations.files import File
from operations.systemd import Unit
from ppn.inventory import Pool
from ppn.mesh.firewall import SSH, Service, ruleset

PACKAGES = ["iproute2", "nftables", "wireguard-tools"]
FIREWALL = "ppn-nftables.service"
KEEPER = "ppn-path-keeper.service"
SUPERVISION = "wireguard-go.conf"


def keeper_unit(interface: str, kernel_has_wireguard: bool) -> dict[str, File]:
    """The path keeper's unit, bound to the interface's.

    Args:
        interface: the interface's name.
        kernel_has_wireguard: without it the interface is wireguard-go's, which only root may speak
            to; it ends when the mode or owner of its socket is changed.
    """
    capabilities = "CAP_NET_ADMIN" if kernel_has_wireguard else "CAP_NET_ADMIN CAP_DAC_OVERRIDE"
    return {
        path: File(
            file.content.replace("INTERFACE", interface).replace("CAPABILITIES", capabilities)
        )
        for path, file in unit_file(KEEPER).items()
    }


def needed_packages(kernel_has_wireguard: bool) -> list[str]:
    """The packages of a mesh node."""
    return PACKAGES if kernel_has_wireguard else [*PACKAGES, "wireguard-go"]


@deploy("Mesh")
def mesh(pool: Pool, installed: dict[str, File], services: Iterable[Service] = (SSH,)) -> None:
    """Make a node a member of the mesh; the firewall is in force before the interface is up.

    Args:
        pool: the sound nodes of the inventory.
        installed: the marker of the ppn software: the path keeper restarts with it.
        services: what mesh nodes may reach on this node.
    """
    found = shared_fact(WireGuard, interface=pool.interface)
    # Where this cannot be read, the operations below refuse.
    kernel = found is None or found.kernel
    packages.installed(name="Packages of the mesh", packages=needed_packages(kernel))
    (firewall_unit,) = unit_file(FIREWALL).values()
    nftables.loaded(
        name="Firewall of the mesh",
        ruleset=ruleset(pool, pool.node(host.name), services),
        unit=firewall_unit.content,
    )
    registry = host.data.peer_registry
    wireguard.key(name="WireGuard key", interface=pool.interface, registry=registry)
    wireguard.registered(name="Peer registry", interface=pool.interface, registry=registry)
    wireguard.interface(
        name="WireGuard interface",
        pool=pool,
        registry=registry,
        supervision=unit_text(SUPERVISION),
    )
    keeper = keeper_unit(pool.interface, kernel)
    files.rendered(name="Unit of the path keeper", files=keeper)
    systemd.units(
        name="Path keeper",
        units=(Unit(KEEPER, restart_after=tuple(installed)),),
        files={**keeper, **installed},
    )
