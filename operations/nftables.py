"""The operation on ppn's own nftables table; no other table is touched."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation

from facts.nftables import UNIT, UNIT_FILE, Firewall, FirewallState
from operations.failure import unreadable
from operations.files import INSTALLER, File, payload
from operations.files import plan as differing_files
from operations.systemd import command
from ppn.mesh.firewall import FILE


@operation()
def loaded(ruleset: str, unit: str) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Declare what the table `inet ppn` holds, now and after each boot.

    The file is checked with `nft -c` before it replaces the old, and loaded in one transaction.
    A table that somebody changed or removed by hand is loaded anew.

    + ruleset: the whole file for `nft -f`.
    + unit: the text of the unit that loads it.

    **Example:**

    .. code:: python

        nftables.loaded(name="Firewall", ruleset=ruleset(pool, pool.node(host.name)), unit=text)
    """
    state = host.get_fact(Firewall)
    if state is None:
        yield unreadable("the firewall of this node")
        return
    files = wanted_files(ruleset, unit)
    differing = differing_files(files, state.files)
    calls = plan(files, differing, state)
    if not differing and not calls:
        host.noop("the table inet ppn is as declared")
        return
    if differing:
        text = payload(files, differing)
        yield StringCommand("python3", "-I", "-c", QuoteString(INSTALLER), _stdin=text)
    for call in calls:
        yield command(*call)


def wanted_files(ruleset: str, unit: str) -> dict[str, File]:
    """The files of the firewall."""
    return {
        FILE: File(ruleset, check=("nft", "-c", "-f", "{}")),
        UNIT_FILE: File(unit),
    }


def plan(
    files: dict[str, File], differing: tuple[str, ...], state: FirewallState
) -> tuple[tuple[str, ...], ...]:
    """What brings the firewall into force, once the files are written: verbs with their unit.

    Args:
        files: what was declared.
        differing: the paths that are about to be written.
        state: what the node has.
    """
    calls: list[tuple[str, ...]] = []
    if not state.enabled:
        calls.append(("enable", UNIT))
    if calls or state.needs_reload or UNIT_FILE in differing:
        calls.append(("settle", UNIT))
    if not state.active:
        calls.append(("start", UNIT))
    elif FILE in differing or state.loaded != files[FILE].status.sha256:
        calls.append(("reload", UNIT))
    return tuple(calls)
