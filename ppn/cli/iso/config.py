"""`ppn iso config`: site settings, checked, signed, and put where the installer finds them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppn.cli.output import AsJson, print_json, print_table
from ppn.errors import PpnError, Refusal

if TYPE_CHECKING:
    from ppn.installer.settings import Node, Site

File = Annotated[
    typer.FileBinaryRead | None,
    typer.Argument(metavar="[FILE]", help="Settings as JSON (docs/installing.md); - for stdin."),
]
Key = Annotated[
    Path,
    typer.Option(help="SSH key to sign with; a .pub file when the ssh-agent has the private one."),
]
Output = Annotated[
    Path | None,
    typer.Option(help="Folder for site.json and site.json.sig, as `ppn iso build` takes them."),
]
Medium = Annotated[
    Path | None,
    typer.Option(help="File for a small image of a second medium, which goes before the first."),
]
Name = Annotated[str | None, typer.Option("--node", help="Without FILE: the one node's name.")]
Macs = Annotated[
    list[str] | None,
    typer.Option("--mac", help="Without FILE: of its interfaces; without any, every machine."),
]
MeshAddress = Annotated[str | None, typer.Option(help="Without FILE: its address in the mesh.")]
Authorities = Annotated[
    list[Path] | None,
    typer.Option("--ssh-ca", help="Without FILE: public key file of an SSH authority of yours."),
]
RelayKey = Annotated[str | None, typer.Option(help="Without FILE: the relay's WireGuard key.")]
RelayEndpoint = Annotated[str | None, typer.Option(help="Without FILE: its host:port.")]
RelayAddress = Annotated[str | None, typer.Option(help="Without FILE: its mesh address.")]


def config(
    key: Key,
    file: File = None,
    output: Output = None,
    medium: Medium = None,
    node: Name = None,
    mac: Macs = None,
    mesh_address: MeshAddress = None,
    ssh_ca: Authorities = None,
    relay_key: RelayKey = None,
    relay_endpoint: RelayEndpoint = None,
    relay_address: RelayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Check site settings, say what they will do, and sign them.

    From FILE, or for one node from options. They hold no secret. The image takes them from its own
    medium (--output, then `ppn iso build --site`), or from a second one (--medium).

    Exit codes: 0 signed; 3 the settings are not sound; 1 nothing could be signed or written.

    Example: ppn iso config site.json --key ~/.ssh/operator --medium site.iso
    """
    from ppn import sshsig
    from ppn.installer import settings
    from ppn.installer.signature import NAMESPACE

    options = {
        "name": node,
        "macs": mac,
        "mesh_address": mesh_address,
        "authorities": ssh_ca,
        "relay": (relay_key, relay_endpoint, relay_address),
    }
    content = _from(file, options)
    site = settings.parse(content)
    signed = sshsig.sign(key, content.decode("ascii"), NAMESPACE)
    written = _put(content, signed.encode("ascii"), output, medium)
    if as_json:
        nodes = [_row(site, one) for one in site.nodes]
        print_json({"nodes": nodes, "written": [str(path) for path in written]})
        return
    columns = ("node", "machine", "mesh address", "network", "disk")
    print_table(columns, [tuple(_row(site, one).values()) for one in site.nodes])
    for path in written:
        typer.echo(f"written  {path}")


def _from(file: typer.FileBinaryRead | None, options: dict[str, Any]) -> bytes:
    """The settings' bytes, from a file or from options."""
    import json

    from ppn.installer.settings import MOST_BYTES

    given = any(options[name] for name in ("name", "macs", "mesh_address", "authorities"))
    if file is not None and not (given or any(options["relay"])):
        # One byte more than may be is refused for its length.
        return file.read(MOST_BYTES + 1)
    if file is not None or options["name"] is None:
        raise Refusal(
            "give the settings as FILE, or as options with --node",
            code="settings_unclear",
            constraint="one source of settings",
            hint="`ppn iso config --help` lists them",
        )
    relay = dict(zip(("public_key", "endpoint", "mesh_address"), options["relay"], strict=True))
    one = {
        "name": options["name"],
        "match": {"macs": options["macs"]} if options["macs"] else {"default": True},
        "mesh_address": options["mesh_address"],
    }
    values = {
        "version": 1,
        "ssh_ca_keys": [_read(path) for path in options["authorities"] or ()],
        "mesh": {"relay": relay} if any(options["relay"]) else {},
        "nodes": [one],
    }
    return (json.dumps(values, indent=1) + "\n").encode("ascii")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PpnError(f"cannot read {path}: {error}", code="file_unreadable") from error


def _put(content: bytes, signed: bytes, output: Path | None, medium: Path | None) -> list[Path]:
    """Write what was signed to where it was asked for; in this folder when nowhere was."""
    from ppn.durable import write_atomic
    from ppn.installer.medium import SETTINGS, SIGNATURE, SITE_LABEL
    from ppn.iso9660 import volume

    files = {SETTINGS: content, SIGNATURE: signed}
    wanted = {}
    if output is not None or medium is None:
        wanted = {(output or Path()) / name: text for name, text in files.items()}
    if medium is not None:
        wanted[medium] = volume(SITE_LABEL, files)
    try:
        for path, text in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, text)
    except OSError as error:
        raise PpnError(f"cannot write: {error}", code="file_unwritable") from error
    return list(wanted)


def _row(site: Site, node: Node) -> dict[str, str]:
    """What the settings will do with one node, for people and programs."""
    match, disk = node.match, node.disk or site.disk
    machine = [*match.macs, *(word for word in (match.serial, match.uuid) if word)]
    machine += ["any other"] if match.default else []
    links = [
        f"{link.mac or link.name}: {', '.join(map(str, link.addresses)) or 'DHCP'}"
        for link in node.network
    ]
    most = f" to {disk.max_gib}" if disk.max_gib else " and more"
    patterns = [*disk.serials, *disk.models]
    return {
        "name": node.name,
        "machine": " or ".join(machine),
        "mesh_address": str(node.mesh_address or "-"),
        "network": "; ".join(links) or "DHCP",
        "disk": f"{disk.min_gib}{most} GiB{' ' if patterns else ''}{' '.join(patterns)},"
        f" reinstall {disk.reinstall}",
    }
