"""`ppn mesh`: the path keeper, which path each peer takes, and the interface's configuration."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ppn.cli.output import AsJson, print_json
from ppn.errors import PpnError
from ppn.log import configure_log
from ppn.mesh import app as keeper
from ppn.mesh import status as mesh_status
from ppn.mesh.paths import MeshPaths
from ppn.mesh.render import customer_conf
from ppn.mesh.tunnels import load_config, move, synchronise

mesh_app = typer.Typer(
    name="mesh",
    help="The WireGuard mesh: which path each peer takes, direct or through the relay.",
    no_args_is_help=True,
)

NODE = MeshPaths.from_environment()


@mesh_app.command()
def status(as_json: AsJson = False) -> None:
    """Show every peer of this node, the path it takes and since when.

    With --json a state that is no longer written is shown too, and says `"stale": true`.

    Exit codes: 0 shown; 1 the path keeper has written no state, or has stopped writing it.

    Example: ppn mesh status
    """
    state = mesh_status.read(NODE.state)
    now = time.time()
    stale = state.is_stale(now)
    if as_json:
        print_json({**asdict(state), "stale": stale})
        return
    table = Table("peer", "address", "path", "since", "evidence", "failures", box=None)
    for peer in state.peers:
        table.add_row(
            peer.name,
            peer.address,
            f"relay ({peer.via})" if peer.via else peer.path,
            _ago(now, peer.since),
            _ago(now, peer.evidence),
            str(peer.failures),
        )
    Console().print(table)
    typer.echo(f"{state.node} {state.address} on {state.interface}, {len(state.peers)} peers")
    if stale:
        raise mesh_status.StateUnavailable(
            f"the path keeper wrote this {now - state.written:.0f} s ago and has stopped",
            code="mesh_state_stale",
            hint="systemctl status ppn-path-keeper.service",
        )


@mesh_app.command()
def paths(as_json: AsJson = False) -> None:
    """Print a line for each peer: its name and its path (direct, relay or none).

    Exit codes: 0 printed; 1 the path keeper has written no state.

    Example: ppn mesh paths
    """
    peers = mesh_status.read(NODE.state).peers
    if as_json:
        print_json({peer.name: peer.path for peer in peers})
        return
    for peer in peers:
        typer.echo(f"{peer.name} {peer.path}")


@mesh_app.command("keep-paths")
def keep_paths() -> None:
    """Run the path keeper; ppn-path-keeper.service does.

    Exit codes: 0 told to stop; 1 the mesh interface or its configuration is not there.

    Example: ppn mesh keep-paths
    """
    configure_log()
    asyncio.run(keeper.serve(NODE))


@mesh_app.command("use-relay")
def use_relay() -> None:
    """Put every peer on the relay, as it must be while no path keeper runs.

    Exit codes: 0 done or already so; 1 the mesh interface or its configuration is not there.

    Example: ppn mesh use-relay
    """
    if not NODE.config.exists():
        return
    move(NODE, load_config(NODE), frozenset())


@mesh_app.command("sync")
def synchronise_interface() -> None:
    """Bring the running interface to its configuration without dropping a tunnel.

    Peers that are on their direct path stay there.

    Exit codes: 0 done; 1 the interface is not up or its configuration is refused.

    Example: ppn mesh sync
    """
    synchronise(NODE, load_config(NODE))


@mesh_app.command()
def customer(
    name: Annotated[str, typer.Argument(help="Its name in tenant_peers.")], as_json: AsJson = False
) -> None:
    """Print the WireGuard configuration to hand to a customer; run it where its tunnel ends.

    The private key is not in it: the customer made it, and keeps it.

    Exit codes: 0 printed; 1 no customer of that name has a tunnel that ends at this node.

    Example: ppn mesh customer acme-laptop > acme-laptop.conf
    """
    interface = load_config(NODE)
    for one in interface.customers:
        if one.name == name:
            conf = customer_conf(one, interface.doors)
            if as_json:
                print_json({"name": name, "configuration": conf})
            else:
                typer.echo(conf, nl=False)
            return
    known = ", ".join(one.name for one in interface.customers) or "none"
    raise PpnError(
        f"no tunnel of a customer {name!r} ends at {interface.node}",
        code="customer_unknown",
        hint=f"those that do: {known}; run this on a relay or a tenant proxy, after the deploy",
    )


def _ago(now: float, moment: float | None) -> str:
    return "" if moment is None else f"{max(0, now - moment):.0f} s"
