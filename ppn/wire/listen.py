"""Where a service of the pool may listen: on the node's mesh address and nowhere else."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from ppn.errors import PpnError


class AddressNotMesh(PpnError):
    """An address that a service may not listen on."""

    code = "address_not_mesh"


def check_mesh_address(
    address: IPv4Address, mesh_range: IPv4Network, *, development: bool = False
) -> None:
    """Refuse to listen anywhere but on the mesh.

    Args:
        address: to listen on.
        mesh_range: what mesh addresses are from.
        development: allows a loopback address.

    Raises:
        AddressNotMesh: a wildcard, or another address that is not of the mesh.
    """
    if address.is_loopback and development:
        return
    if address.is_unspecified or address not in mesh_range:
        raise AddressNotMesh(
            f"a service may not listen on {address}: it is no address of the mesh {mesh_range}",
            hint="give the node's mesh address",
        )
