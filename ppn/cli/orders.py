"""What is ordered with `ppn vm`, read from the command line and files, and shown again."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from ppn.cli.exits import Exit
from ppn.cli.output import print_table, working
from ppn.cli.target import Target
from ppn.errors import PpnError

NOT_ALL = Exit.FINDINGS
FILE_BYTES = 1024 * 1024
DISK = re.compile(r"([^:]+):([0-9]{1,6})")
PORT = re.compile(r"(?:([0-9]{1,5}):)?([0-9]{1,5})(?:/(tcp|udp))?")
# After these nobody knows whether the VM was made; the same order under the same key finds it.
INTERRUPTED = "interrupted"
OPEN_CODES = frozenset(
    {"agent_timeout", "controller_unreachable", "internal", "order_elsewhere", "outcome_unknown"}
    | {"store_unavailable", "vm_undecided", INTERRUPTED}
)


def disk_of(text: str) -> dict[str, Any]:
    """A data disk of the command line, `NAME:GIB`.

    Raises:
        typer.BadParameter: it is none.
    """
    found = DISK.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no disk like data:20 (name, then GiB)")
    return {"name": found[1], "size_gib": int(found[2])}


def port_of(text: str) -> dict[str, Any]:
    """A port of the command line, `[HOST:]GUEST[/udp]`.

    Raises:
        typer.BadParameter: it is none.
    """
    found = PORT.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no port like 80, 53/udp or 30080:80")
    port: dict[str, Any] = {"guest": int(found[2]), "protocol": found[3] or "tcp"}
    return port | ({"host": int(found[1])} if found[1] else {})


def text_of(path: Path) -> str:
    """A text file, bounded.

    Raises:
        PpnError: `file_unreadable`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES + 1)
        if len(content) > FILE_BYTES:
            raise PpnError(f"{path} is longer than {FILE_BYTES} bytes", code="file_unreadable")
        return content.decode()
    except OSError as error:
        raise PpnError(f"cannot read {path}: {error.strerror}", code="file_unreadable") from error
    except UnicodeDecodeError as error:
        raise PpnError(f"{path} is no UTF-8 text", code="file_unreadable") from error


def user_data_of(path: Path) -> dict[str, Any]:
    """Cloud-config from a file.

    Raises:
        PpnError: `user_data_invalid`: no JSON object.
    """
    try:
        found = json.loads(text_of(path).removeprefix("#cloud-config\n"))
    except ValueError as error:
        found = None
        why = str(error)
    else:
        why = f"it is {type(found).__name__}"
    if not isinstance(found, dict):
        raise PpnError(
            f"{path} is no cloud-config in JSON: {why}",
            code="user_data_invalid",
            hint="write it as one JSON object, which every YAML reader reads too",
        )
    return found


def send(target: Target, order: Mapping[str, Any], owner: str | None, key: str | None) -> Any:
    """Order a VM and wait until it runs.

    Args:
        target: who is asked.
        order: without its owner.
        owner: the operator when None; a tenant proxy knows it from the token.
        key: of this order; a new one when None.

    Raises:
        typer.BadParameter: an owner is named to a tenant proxy.
        PpnError: not made, or nobody knows; the hint says how to find out.
    """
    if target.is_proxy and owner is not None:
        raise typer.BadParameter("the token says whose VM it is; leave --owner out")
    key = key or secrets.token_hex(8)
    body, look = {name: value for name, value in order.items() if value not in (None, "", [])}, None
    if not target.is_proxy:
        from ppn.fleet.identity import vm_id

        body["owner"] = owner or "operator"
        vm = vm_id(body["owner"], key)
        look = Stage(target, vm)
    try:
        with repeatable(key), working(f"making a VM from {order['image']}", look):
            return target.ask("POST", "/vms", body=body, headers={"Idempotency-Key": key})
    except PpnError as error:
        if look is not None and error.code not in OPEN_CODES:
            error.hint = "; ".join(filter(None, (error.hint, f"ppn debug vm {look.vm}")))
        raise


@contextmanager
def repeatable(key: str) -> Iterator[None]:
    """Say which key an order is repeated with, when nobody knows what became of it.

    Args:
        key: of the order.

    Raises:
        PpnError: `interrupted`: whoever was asked goes on all the same.
    """
    again = f"order it again with --key {key}: it is made once"
    try:
        yield
    except PpnError as error:
        if error.code in OPEN_CODES:
            error.hint = again
        raise
    except KeyboardInterrupt as error:
        text = "interrupted, and what was ordered may be made all the same"
        raise PpnError(text, code=INTERRUPTED, hint=again) from error


class Stage:
    """How far a VM in the making is, as its node's timeline tells.

    Args:
        target: a controller.
        vm: its id.
    """

    def __init__(self, target: Target, vm: str) -> None:
        self.target = target
        self.vm = vm

    def __call__(self) -> str:
        """The step it is at.

        Raises:
            PpnError: nobody knows yet.
        """
        found = self.target.ask("GET", f"/vms/{self.vm}/timeline", seconds=2.0)
        steps = found["operations"][-1]["steps"] if found["operations"] else []
        return str(steps[-1]["name"]).replace("_", " ") if steps else ""


def send_batch(target: Target, text: str, per_item: bool, key: str | None) -> Any:
    """Order several VMs and wait until they run.

    Args:
        target: a controller.
        text: a JSON array of orders, or an object with them under `vms`.
        per_item: each for itself.
        key: of this batch; a new one when None.

    Raises:
        typer.BadParameter: no such JSON, or a tenant proxy is asked.
        PpnError: not made.
    """
    if target.is_proxy:
        raise typer.BadParameter("a tenant proxy takes one order at a time; name a controller")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"FILE is no JSON: {error}") from error
    vms = found.get("vms") if isinstance(found, dict) else found
    if not isinstance(vms, list):
        raise typer.BadParameter("FILE holds no JSON array of orders")
    key = key or secrets.token_hex(8)
    headers = {"Idempotency-Key": key}
    with repeatable(key), working(f"making {len(vms)} VMs"):
        return target.ask(
            "POST", "/batches", body={"vms": vms, "per_item": per_item}, headers=headers
        )


def show_batch(found: Mapping[str, Any]) -> None:
    """What became of a batch, a line for each VM."""
    rows = []
    for item in found["items"]:
        placed, problem = item.get("placed"), item.get("problem")
        became = (
            f"runs on {placed['node']}" if placed else f"{problem['detail']} ({problem['code']})"
        )
        rows.append((item["id"], became))
    print_table(("vm", "became"), rows)


def show(found: Mapping[str, Any]) -> None:
    """One VM as it was answered, with its ports."""
    show_vms([found])
    vm = found.get("vm") or found
    for port in vm.get("ports", ()):
        where = f"{found['node']}:{port['host']}" if "node" in found else "open"
        typer.echo(f"port {port['guest']}/{port['protocol']}: {where}")
    for warning in found.get("warnings", ()):
        typer.echo(f"ppn: {warning}", err=True)


def show_vms(found: Iterable[Mapping[str, Any]]) -> None:
    """VMs as they were answered: by a controller with their nodes, by a tenant proxy without."""
    every = list(found)
    placed = any("node" in one for one in every) or not every
    columns = ("vm", *(("node",) if placed else ()), "state", "owner", "size", "address", "label")
    print_table(columns, (_cells(one, placed) for one in every))


def _cells(one: Mapping[str, Any], placed: bool) -> tuple[str, ...]:
    vm = one.get("vm", one)
    silent = " (silent)" if one.get("stale") or vm.get("stale") else ""
    return (
        str(vm["id"]),
        *((str(one.get("node", "-")) + silent,) if placed else ()),
        str(vm.get("state", "-")) + ("" if placed else silent),
        str(vm.get("owner") or "-"),
        f"{vm.get('vcpus')} vCPU, {vm.get('memory_mib')} MiB",
        str(vm.get("address") or "-"),
        str(vm.get("label") or "-"),
    )
