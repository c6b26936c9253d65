"""What makes a node a witness of the audit logs that other nodes keep: user, settings, unit."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from deploys.units import service_files
from operations import files, systemd, users
from operations.files import File
from operations.systemd import Unit
from ppn.audit.checkpoint import origin_of, witness_name
from ppn.audit.witness.settings import DEFAULT_PORT, PATH, KnownLog, WitnessAt, WitnessSettings
from ppn.inventory import TENANT_PROXY, Pool
from ppn.mesh.firewall import Service

USER = "ppn-witness"
UNIT = "ppn-witness.service"
ROLE = "witness"
# Logs send to it; any node may ask it what it signed.
SERVICE = Service(DEFAULT_PORT, on_role=ROLE)


def witnesses_of(pool: Pool, name: str) -> tuple[WitnessAt, ...]:
    """Whom the audit log of a node is sent to: the witnesses on other nodes.

    Args:
        pool: the sound nodes of the inventory.
        name: of the node that keeps the log.
    """
    return tuple(
        WitnessAt(witness_name(one.name), f"http://{one.address}:{DEFAULT_PORT}")
        for one in pool.nodes
        if ROLE in one.roles and one.name != name
    )


def witness_files(pool: Pool, name: str) -> dict[str, File]:
    """A witness's settings and unit.

    Args:
        pool: the sound nodes of the inventory.
        name: of the node it runs on.
    """
    node = pool.node(name)
    settings = WitnessSettings(
        name=witness_name(node.name),
        address=node.address,
        mesh_range=pool.range,
        logs=tuple(
            KnownLog(origin=origin_of(one.name), address=one.address)
            for one in pool.nodes
            if TENANT_PROXY in one.roles and one.name != name
        ),
        callers=tuple(one.address for one in pool.nodes),
    )
    return service_files(PATH, settings, UNIT, pool.interface)


@deploy("Witness")
def witness(pool: Pool, installed: dict[str, File]) -> None:
    """Make a node a witness of the pool's audit logs.

    Args:
        pool: the sound nodes of the inventory.
        installed: the marker of the ppn software: the witness restarts with it.
    """
    users.system(name="User of the witness", users=[USER])
    wanted = witness_files(pool, host.name)
    files.rendered(name="Settings of the witness", files=wanted)
    systemd.units(
        name="Witness",
        units=(Unit(UNIT, restart_after=(PATH, *installed)),),
        files={**wanted, **installed},
    )
