"""Carries out network plans with `ip` and `nft`, and takes them down again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from os.path import samestat
from pathlib import Path

from lab.errors import LabError
from lab.network import (
    SWITCH,
    TAP,
    Cable,
    Namespace,
    Network,
    cut_rules,
    hardware_address,
    interface_commands,
    plan,
)
from lab.paths import LabPaths
from lab.topology import INTERNET, PORTS, Kind, kinds_of
from ppn.durable import write_atomic
from ppn.run import run

SECONDS = 60
SPACES = tuple(space.name for space in plan(kinds_of(Kind.CONTAINER)).namespaces)


def wire(lab: LabPaths, network: Network) -> bool:
    """Make a lab's networks as planned, adding what is missing and leaving what is there.

    Args:
        lab: whose networks.
        network: the plan.

    Returns:
        Whether anything was missing.

    Raises:
        CommandFailed: the kernel refused something.
    """
    changed = False
    present = namespaces()
    for space in network.namespaces:
        if lab.namespace(space.name) not in present:
            run(["ip", "netns", "add", lab.namespace(space.name)], timeout=SECONDS)
            changed = True
    links = {space.name: link_names(lab, space.name) for space in network.namespaces}
    for space in network.namespaces:
        changed |= add_local_links(lab, space, links[space.name])
    for cable in network.cables:
        changed |= add_cable(lab, cable, links)
    for space in network.namespaces:
        configure(lab, space)
    return changed


def add_local_links(lab: LabPaths, space: Namespace, present: set[str]) -> bool:
    """Add a namespace's switch and tap where they are missing."""
    changed = False
    if space.switch and SWITCH not in present:
        # No forward delay: a port carries traffic from its first moment.
        kind = ["type", "bridge", "forward_delay", "0", "mcast_snooping", "0"]
        ip(lab, space.name, ["link", "add", SWITCH, *kind])
        changed = True
    if space.tap and TAP not in present:
        ip(lab, space.name, ["tuntap", "add", "dev", TAP, "mode", "tap"])
        changed = True
    return changed


def add_cable(lab: LabPaths, cable: Cable, present: dict[str, set[str]]) -> bool:
    """Lay a cable unless both its ends are there."""
    near = cable.end in present[cable.namespace]
    far = cable.far_end in present[cable.far_namespace]
    if near and far:
        return False
    if near:
        ip(lab, cable.namespace, ["link", "delete", cable.end])
    if far:
        ip(lab, cable.far_namespace, ["link", "delete", cable.far_end])
    end = [cable.end, "address", hardware_address(cable.namespace, cable.end)]
    far_end = [cable.far_end, "address", hardware_address(cable.far_namespace, cable.far_end)]
    far_end += ["netns", lab.namespace(cable.far_namespace)]
    ip(lab, cable.namespace, ["link", "add", *end, "type", "veth", "peer", "name", *far_end])
    return True


def configure(lab: LabPaths, space: Namespace) -> None:
    """Set a namespace's addresses, routes, kernel settings and rules."""
    batch = "\n".join(interface_commands(space)) + "\n"
    name = lab.namespace(space.name)
    run(["ip", "-n", name, "-batch", "-"], input=batch, timeout=SECONDS)
    for key, value in space.settings:
        setting = f"/proc/sys/{key.replace('.', '/')}"
        run(inside(lab, space.name, ["tee", setting]), input=value, timeout=SECONDS)
    if space.rules:
        run(inside(lab, space.name, ["nft", "-f", "-"]), input=space.rules, timeout=SECONDS)


def unwire(lab: LabPaths) -> None:
    """Remove all of a lab's namespaces, with everything in them."""
    for space in present(lab):
        run(["ip", "netns", "delete", lab.namespace(space)], timeout=SECONDS)
    # `ip` mounts its folder for the first namespace of the machine: it goes with the last.
    if not namespaces():
        run(["umount", "--quiet", "/run/netns"], timeout=SECONDS, accept=(0, 1, 32))


def present(lab: LabPaths) -> tuple[str, ...]:
    """Which of a lab's namespaces are there."""
    existing = namespaces()
    return tuple(space for space in SPACES if lab.namespace(space) in existing)


def all_processes(lab: LabPaths) -> set[int]:
    """Numbers of all processes in any of a lab's networks."""
    return set().union(*(processes(lab, space) for space in present(lab)))


def namespaces() -> set[str]:
    """Names of all network namespaces of this machine."""
    listed = run(["ip", "-json", "netns", "list"], timeout=SECONDS).stdout
    return {entry["name"] for entry in json.loads(listed or "[]")}


def link_names(lab: LabPaths, space: str) -> set[str]:
    """Names of the interfaces in a namespace."""
    listed = run(["ip", "-n", lab.namespace(space), "-json", "link"], timeout=SECONDS).stdout
    return {entry["ifname"] for entry in json.loads(listed or "[]")}


def ip(lab: LabPaths, space: str, words: Sequence[str]) -> None:
    """Run `ip` on a namespace."""
    run(["ip", "-n", lab.namespace(space), *words], timeout=SECONDS)


def processes(lab: LabPaths, space: str) -> set[int]:
    """Numbers of all processes that are in a namespace's network, whoever started them."""
    try:
        wanted = lab.namespace_path(space).stat()
    except FileNotFoundError:
        return set()
    found = set()
    for entry in Path("/proc").iterdir():
        # A process may end while we look; one that even root may not look at is not ours.
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if entry.name.isdigit() and samestat((entry / "ns/net").stat(), wanted):
                found.add(int(entry.name))
    return found


def inside(lab: LabPaths, space: str, argv: Iterable[str]) -> list[str]:
    """A command line that runs in a namespace's network and is otherwise unchanged."""
    return ["nsenter", f"--net={lab.namespace_path(space)}", "--", *argv]


def cut(lab: LabPaths, one: str, other: str) -> None:
    """Stop all traffic between two ports of the internet, both ways.

    Args:
        lab: whose internet.
        one: `relay`, `site-a`, `site-b`, `operator` or `customer`.
        other: another of them.

    Raises:
        LabError: no such port.
    """
    change_cuts(lab, current_cuts(lab) | {pair(one, other)})


def heal(lab: LabPaths, one: str, other: str) -> None:
    """Undo `cut`; nothing happens when the two were not cut."""
    change_cuts(lab, current_cuts(lab) - {pair(one, other)})


def pair(one: str, other: str) -> tuple[str, str]:
    """Two different ports, in the order in which they are remembered."""
    for port in (one, other):
        if port not in PORTS:
            raise LabError(f"the internet has no port {port!r}", hint=f"it has {', '.join(PORTS)}")
    if one == other:
        raise LabError(f"{one} cannot be cut off from itself", hint="name two ports")
    return min(one, other), max(one, other)


def current_cuts(lab: LabPaths) -> frozenset[tuple[str, str]]:
    """Pairs of ports between which nothing passes now."""
    record = lab.state_dir / "cuts.json"
    if not record.exists():
        return frozenset()
    return frozenset((one, other) for one, other in json.loads(record.read_bytes()))


def change_cuts(lab: LabPaths, cuts: frozenset[tuple[str, str]]) -> None:
    """Put cuts in force and remember them."""
    if lab.namespace(INTERNET) not in namespaces():
        raise LabError(f"lab {lab.name} is not up", hint="start it with `scripts/lab up`")
    run(inside(lab, INTERNET, ["nft", "-f", "-"]), input=cut_rules(cuts), timeout=SECONDS)
    write_atomic(lab.state_dir / "cuts.json", json.dumps(sorted(cuts)).encode())
