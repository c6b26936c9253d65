"""Ids that the shell completes: asked of whoever the command would ask, briefly and in silence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ppn.errors import PpnError

if TYPE_CHECKING:
    from ppn.cli.target import Target

SECONDS = 1.0
MOST = 200
# What shells hand over: the whole line as far as it was typed.
LINES = ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")


def typed_words(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The words of the line that a shell wants completed, without the program; none otherwise."""
    if "_PPN_COMPLETE" not in environment:
        return []
    line = next((environment[name] for name in LINES if name in environment), "")
    return line.split()[1:]


def vm_ids(context: typer.Context, incomplete: str) -> list[str]:
    """The ids of VMs that begin so; none when nobody answers within a second."""
    found = _asked(context, "/vms")
    ids = (one.get("vm", one).get("id", "") for one in found if isinstance(one, dict))
    return sorted(one for one in ids if one.startswith(incomplete))[:MOST]


def node_names(context: typer.Context, incomplete: str) -> list[str]:
    """The names of nodes that begin so; none when nobody answers within a second."""
    names = (one.get("name", "") for one in _asked(context, "/nodes") if isinstance(one, dict))
    return sorted(one for one in names if one.startswith(incomplete))[:MOST]


def _asked(context: typer.Context, path: str) -> list[Any]:
    try:
        found = _target(context.params).ask("GET", path, seconds=SECONDS)
    except (PpnError, typer.BadParameter):
        return []
    return found if isinstance(found, list) else []


def _target(given: Mapping[str, Any]) -> Target:
    from ppn.cli.target import TRUST, target_of

    def value(name: str, variable: str) -> str | None:
        return given.get(name) or os.environ.get(variable)

    token_file = value("token_file", "PPN_TOKEN_FILE")
    return target_of(
        controller=value("controller", "PPN_CONTROLLER"),
        proxy=value("proxy", "PPN_PROXY"),
        token_file=Path(token_file) if token_file is not None else None,
        ca=Path(value("ca", "PPN_CA_CERTIFICATE") or TRUST),
    )
