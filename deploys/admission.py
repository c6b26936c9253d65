"""Judges one host before anything is changed on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from pyinfra import host, state

from deploys.declared import Declaration, admission_problems, local_image
from deploys.pool import DeclaredPool
from deploys.wheelhouse import PYTHON_OF_DEBIAN, Wheelhouse, wheelhouse
from facts.hardware import Hardware, NodeHardware
from facts.host_state import HypervisorState
from facts.shared import shared_fact
from facts.software import NodePlatform, Platform
from ppn.host.forecast import blank_node
from ppn.host.model import Settings
from ppn.inventory import Pool

UNREAD = "cannot read {what}: refusing to act on an unknown state; run with -vv to see why"


@dataclass(frozen=True)
class AdmittedNode:
    """A host that may be changed, with what was learnt of it."""

    wheels: Wheelhouse
    declaration: Declaration
    hardware: Hardware


def admitted(declared: DeclaredPool) -> AdmittedNode | None:
    """This host, or `None` after it was refused with every reason (and no other host with it)."""
    platform = host.get_fact(NodePlatform)
    hardware = host.get_fact(NodeHardware)
    declaration = declared.declarations.get(host.name, Declaration(Settings(name=host.name)))
    problems = list(declared.problems[host.name])
    problems += platform_problems(platform)
    if platform is not None:
        problems += caller_problems(platform, declared.pool)
    if hardware is None:
        problems.append(UNREAD.format(what="the hardware"))
    elif not problems and "hypervisor" in host.data.roles:
        problems += capacity_problems(declaration, hardware)
    if problems or platform is None or hardware is None:
        refuse(problems)
        return None
    if declared.outside_mesh:
        names = ", ".join(sorted(declared.outside_mesh))
        host.log_styled(f"the mesh stays as it is until {names} can be placed in it", fg="yellow")
    return AdmittedNode(wheelhouse(PYTHON_OF_DEBIAN[platform.release]), declaration, hardware)


def platform_problems(platform: Platform | None) -> Iterator[str]:
    """Why ppn cannot run on this operating system; nothing when it can."""
    if platform is None:
        yield UNREAD.format(what="the operating system")
    elif platform.distribution != "debian" or platform.release not in PYTHON_OF_DEBIAN:
        yield (
            f"node {host.name} runs {platform.distribution} {platform.release}: install Debian"
            f" {' or '.join(PYTHON_OF_DEBIAN)} (platform_unsupported)"
        )
    elif platform.architecture != "x86_64":
        yield (
            f"node {host.name} is {platform.architecture}: only x86_64 nodes are supported"
            " (platform_unsupported)"
        )


def caller_problems(platform: Platform, pool: Pool) -> Iterator[str]:
    """Why the firewall would shut this very operator out; nothing when it would not."""
    try:
        caller = ip_address(platform.caller)
    except ValueError:
        return
    if pool.ssh_from is not None and not any(
        caller in network for network in (pool.range, *pool.ssh_from)
    ):
        yield (
            f"node {host.name} sees you at {caller}, which is not in ssh_from: add it, or you would"
            " not get in again (ssh_from_locks_out)"
        )


def capacity_problems(declaration: Declaration, hardware: Hardware) -> list[str]:
    """Why the declared VMs cannot be on this node; empty when they can."""
    hypervisor = shared_fact(HypervisorState)
    if hypervisor is None:
        return [UNREAD.format(what="the VMs of this node")]
    folders: dict[str, str] = host.data.get("images", {})
    images = []
    for name, folder in folders.items():
        if not (Path(folder) / "manifest.json").is_file():
            return [f"image {name}: {folder} has no manifest.json (image_missing)"]
        images.append(local_image(name, Path(folder)))
    node = hypervisor.node
    if node is None:
        node = blank_node(declaration.settings, hardware.topology, hardware.disk, tuple(images))
    known = {image.name for image in node.images}
    added = tuple(image for image in images if image.name not in known)
    node = node.model_copy(update={"images": (*node.images, *added)})
    return admission_problems(declaration, node)


def refuse(problems: list[str]) -> None:
    """Fail this host, after printing every reason; pyinfra leaves it out of the run."""
    for problem in problems:
        host.log_styled(f"refused: {problem}", fg="red")
    # The host itself: `host` is a stand-in that means another one in another greenlet.
    state.fail_hosts({state.inventory.get_host(host.name)})
