"""A VM's serial console and its operations, as they are shown."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import typer

from ppn.cli.output import print_json, print_table
from ppn.cli.target import Target

POLL_SECONDS = 1.0
PIECE_BYTES = 256 * 1024


def console(target: Target, vm: str, size: int, *, follow: bool, as_json: bool) -> None:
    """Print the end of a guest's console, and what comes after it.

    Args:
        target: who is asked.
        vm: its id.
        size: bytes of the first piece, at most.
        follow: go on until interrupted.
        as_json: one document for each piece.
    """
    found = target.ask("GET", f"/vms/{vm}/console", query={"bytes": str(size)})
    _print(found, found["text"], as_json)
    while follow:
        time.sleep(POLL_SECONDS)
        seen = int(found["size_bytes"])
        found = target.ask("GET", f"/vms/{vm}/console", query={"bytes": str(PIECE_BYTES)})
        # A console that has become shorter is another one: the VM was started anew.
        fresh = int(found["size_bytes"]) - seen if found["size_bytes"] >= seen else PIECE_BYTES
        if fresh:
            _print(found, end_of(found["text"], fresh), as_json)


def end_of(text: str, size: int) -> str:
    """The last bytes of a text in which a byte that was no text stands as one character."""
    encoded = text.replace("\ufffd", "?").encode()
    return encoded[-size:].decode(errors="replace") if size < len(encoded) else text


def show_timeline(operations: Iterable[Mapping[str, Any]]) -> None:
    """A VM's operations, and under each its steps with their times."""
    rows = []
    for one in operations:
        outcome = one["outcome"] + (f" ({one['code']})" if one.get("code") else "")
        rows.append((one["began"], one["operation"], "", outcome))
        for step in one["steps"]:
            took = "" if step["seconds"] is None else f"{step['seconds']:.3f} s"
            rows.append(("", f"  {step['name']}", f"+{step['at_seconds']:.3f} s", took))
        if one.get("message"):
            rows.append(("", "", "", one["message"]))
    print_table(("began", "operation", "at", "took, or became"), rows, whole=2)


def _print(found: Mapping[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        print_json({**found, "text": text})
    else:
        typer.echo(text, nl=False)
