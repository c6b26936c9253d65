"""The `lab` command: real Debian nodes on this machine."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from iso.trees import need_root
from lab import customer as customers
from lab import image as images
from lab import lifecycle, report, ssh, status, trial, wiring
from lab.errors import LabError
from lab.guest import cached
from lab.medium import Medium, throwaway_medium
from lab.paths import DEFAULT_NAME, LabPaths
from lab.process import attend
from lab.settings import made_as
from lab.steps import note, step
from lab.topology import CUSTOMER, NODES, OPERATOR, PORTS, Kind, kinds_of, node_named
from ppn.cli.entry import enter, json_wanted
from ppn.cli.exits import Exit, WrongUsage
from ppn.cli.output import print_error
from ppn.errors import PpnError

CHECKOUT = Path(__file__).resolve().parent.parent
INVENTORY = "inventories/lab/inventory.py"
SITE = "deploys/site.py"
PASSED_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}
INTERRUPTED = 130

app = typer.Typer(
    name="lab",
    help="Real Debian nodes on this machine: a relay, a server and a laptop, each in its place.",
    pretty_exceptions_enable=False,
)
out = Console()

Name = Annotated[str | None, typer.Option("--name", help="Which lab; several live side by side.")]
Vm = Annotated[bool, typer.Option("--vm", help="Nodes are QEMU machines, not containers.")]
Port = Annotated[str, typer.Argument(help=f"One of {', '.join(PORTS)}.")]


def paths(context: typer.Context, name: str | None) -> LabPaths:
    """The lab a command is about: `--name` after the command, before it, or the default."""
    try:
        return LabPaths(name or context.obj or DEFAULT_NAME)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@app.callback(invoke_without_command=True)
def root(context: typer.Context, name: Name = None, vm: Vm = False) -> None:
    """Without a command: bring the lab up, turn its nodes into a pool, show the pool.

    Exit codes: 0 done; 1 failed; 2 wrong usage; 130 interrupted.
    """
    context.obj = name
    if context.invoked_subcommand is not None:
        if vm:
            raise typer.BadParameter("--vm goes after `up`, or stands without a command")
        return
    lab = paths(context, name)
    lifecycle.up(lab, kinds_of(Kind.VM) if vm else None)
    with step("Turn the nodes into a pool"):
        note(f"pyinfra {INVENTORY} {SITE}")
        code = run_pyinfra(lab, [])
    if code != 0:
        raise LabError(
            f"pyinfra ended with {code}",
            code="not_converged",
            hint="what it did stays done: mend the cause it names, then run `scripts/lab` again",
        )
    with step("Spawn a VM through the tenant proxy"):
        trial.spawn(lab)
    show_pool(lab)


@app.command()
def up(
    context: typer.Context,
    name: Name = None,
    vm: Vm = False,
    machine: Annotated[
        list[str] | None, typer.Option(help="A node that is a QEMU machine; the others are not.")
    ] = None,
    from_image: Annotated[
        list[str] | None,
        typer.Option(help="A node to install on a blank disk from the provisioning image."),
    ] = None,
    iso: Annotated[
        Path | None, typer.Option(help="That image; else one is built, with throwaway keys.")
    ] = None,
    site_key: Annotated[
        Path | None, typer.Option(help="Private key for site settings that it trusts.")
    ] = None,
) -> None:
    """Bring the lab up, or mend what is missing; nothing changes when all is there."""
    lab = paths(context, name)
    installed = sorted(set(from_image or ()))
    kinds = chosen(vm, machine or [], installed)
    medium = chosen_medium(lab, iso, site_key) if installed else None
    lifecycle.up(lab, kinds, medium)
    out.print(status.as_table(status.status(lab)))


@app.command(name="status")
def show_status(
    context: typer.Context,
    name: Name = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the lab's nodes: running or not, reachable or not, seconds of the last start."""
    found = status.status(paths(context, name))
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        out.print(status.as_table(found))


@app.command()
def pool(context: typer.Context, name: Name = None) -> None:
    """Show the pool: each node's paths and KVM, each VM's memory and weight."""
    show_pool(paths(context, name))


@app.command(name="ssh", context_settings=PASSED_ON)
def open_ssh(
    context: typer.Context,
    node: Annotated[str, typer.Argument(help="relay, server or laptop.")],
    command: Annotated[list[str] | None, typer.Argument(help="What to run; else a shell.")] = None,
    name: Name = None,
) -> None:
    """Open a shell on a node, or run a command there."""
    need_node(node)
    lab = paths(context, name)
    need_up(lab)
    argv = ssh.command(lab, node, command or [])
    os.execvp(argv[0], argv)


@app.command(name="exec", context_settings=PASSED_ON)
def run_inside(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(help="Program and arguments, after --.")],
    name: Name = None,
) -> None:
    """Run a command on this machine, in the operator's place in the lab's network."""
    lab = paths(context, name)
    need_up(lab)
    become(lab, OPERATOR, command)


@app.command(context_settings=PASSED_ON)
def customer(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(help="Program and arguments, after --.")],
    name: Name = None,
) -> None:
    """Run a command on this machine, in the place of the pool's customer, with its tunnel up."""
    lab = paths(context, name)
    need_up(lab)
    customers.join(lab)
    become(lab, CUSTOMER, command)


def become(lab: LabPaths, person: str, command: list[str]) -> NoReturn:
    """Go on as a command in somebody's place in the lab's network."""
    # So that `pyinfra` and `ppn` mean this checkout's.
    search = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    if shutil.which(command[0], path=search) is None:
        raise LabError(f"there is no program {command[0]}", hint="give its whole path")
    argv = wiring.inside(lab, person, command)
    os.execvpe(argv[0], argv, os.environ | {"PPN_LAB": lab.name, "PATH": search})


@app.command(context_settings=PASSED_ON)
def converge(
    context: typer.Context,
    options: Annotated[list[str] | None, typer.Argument(help="Further pyinfra options.")] = None,
    name: Name = None,
) -> None:
    """Run pyinfra over the lab: what the inventory declares, and nothing twice."""
    lab = paths(context, name)
    need_up(lab)
    raise typer.Exit(run_pyinfra(lab, options or []))


@app.command()
def down(context: typer.Context, name: Name = None) -> None:
    """Shut the lab down and leave nothing running; the nodes' disks stay for the next `up`."""
    lifecycle.down(paths(context, name))


@app.command()
def destroy(context: typer.Context, name: Name = None) -> None:
    """Shut the lab down and remove its disks and keys too."""
    lifecycle.destroy(paths(context, name))


@app.command()
def image() -> None:
    """Build the node image if its inputs changed, and show where it is and how large."""
    need_root("a lab")
    node = images.node_image()
    facts = json.loads((node.folder / "built.json").read_bytes())
    out.print(f"node image {node.digest}: {facts['mib']} MiB, built in {facts['seconds']} s")
    out.print(f"  {node.folder}\n  {node.kernel.name}")
    out.print(f"tiny guest: {cached()}")


@app.command()
def cut(context: typer.Context, one: Port, other: Port, name: Name = None) -> None:
    """Stop all traffic between two places of the lab's internet, both ways."""
    wiring.cut(paths(context, name), one, other)


@app.command()
def heal(context: typer.Context, one: Port, other: Port, name: Name = None) -> None:
    """Let traffic pass again between two places that were cut."""
    wiring.heal(paths(context, name), one, other)


def chosen(vm: bool, machines: list[str], installed: list[str]) -> dict[str, Kind] | None:
    """What each node is to be; None when nothing was said."""
    for name in (*machines, *installed):
        need_node(name)
    if twice := set(machines) & set(installed):
        raise typer.BadParameter(f"{', '.join(sorted(twice))}: --machine or --from-image, not both")
    if not (vm or machines or installed):
        return None
    return kinds_of(Kind.VM if vm else Kind.CONTAINER, machines, installed)


def chosen_medium(lab: LabPaths, iso: Path | None, site_key: Path | None) -> Medium:
    """What nodes are to be installed from."""
    if (iso is None) != (site_key is None):
        raise typer.BadParameter("--iso and --site-key go together")
    if iso is not None and site_key is not None:
        return Medium(iso.resolve(), site_key.resolve())
    present = made_as(lab)
    if present is not None and present.medium is not None:
        return present.medium
    return throwaway_medium()


def need_node(name: str) -> None:
    """Refuse a name that no node of the lab has."""
    if node_named(name) is None:
        names = ", ".join(known.name for known in NODES)
        raise LabError(f"the lab has no node {name!r}", hint=f"it has {names}")


def need_up(lab: LabPaths) -> None:
    """Refuse what only a running lab can do."""
    need_root("a lab")
    if OPERATOR not in wiring.present(lab):
        raise LabError(f"lab {lab.name} is not up", hint="start it with `scripts/lab up`")


def run_pyinfra(lab: LabPaths, options: list[str]) -> int:
    """Run pyinfra over the lab from the operator's place, at this terminal."""
    pyinfra = str(Path(sys.executable).with_name("pyinfra"))
    argv = wiring.inside(lab, OPERATOR, [pyinfra, "-y", *options, INVENTORY, SITE])
    return attend(argv, env={"PPN_LAB": lab.name}, cwd=CHECKOUT)


def show_pool(lab: LabPaths) -> None:
    """Print the pool's nodes and VMs."""
    need_up(lab)
    for table in report.tables(report.ask_all(lab), declared()):
        out.print(table)


def declared() -> Mapping[str, Mapping[str, Any]]:
    """What the lab's inventory says of each node."""
    found = runpy.run_path(str(CHECKOUT / INVENTORY))["nodes"]
    return {name: data for name, data in found}


def main() -> None:
    """Entry point: errors become one clear message and an exit code."""
    try:
        enter(app)
    except PpnError as error:
        fail(error)
    except OSError as error:
        fail(PpnError(str(error), code="system_error"))
    except KeyboardInterrupt:
        print("\nlab: interrupted; run it again to go on, or `scripts/lab down`", file=sys.stderr)
        sys.exit(INTERRUPTED)


def fail(error: PpnError) -> NoReturn:
    """End with an error, told for people or for programs."""
    if json_wanted():
        print_error(error, as_json=True)
    else:
        hint = f"\n  {error.hint}" if error.hint else ""
        print(f"lab: {error.message} ({error.code}){hint}", file=sys.stderr)
    sys.exit(Exit.USAGE if isinstance(error, WrongUsage) else Exit.FAILED)
