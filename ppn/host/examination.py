"""Reads a node beyond its VMs: services, certificates, mesh, firewall, versions, clock.

Every look has a short deadline of its own; what could not be looked at is told as such.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from ppn import __version__
from ppn.errors import PpnError
from ppn.host.agent.settings import AgentSettings
from ppn.host.paths import Paths
from ppn.mesh import status
from ppn.mesh.firewall import TABLE
from ppn.mesh.paths import MeshPaths
from ppn.mesh.peers import Interface, Peer
from ppn.mesh.status import PeerPath
from ppn.mesh.tunnels import load_config
from ppn.pool.tls import AGENT_CERTIFICATE, NODE_CERTIFICATE, NODE_TRUST
from ppn.run import CommandFailed, Completed, run
from ppn.settings import read_model
from ppn.wire.diagnosis import (
    CertificateReport,
    Examination,
    MeshReport,
    PeerReport,
    ServiceReport,
    Unread,
)

Result = TypeVar("Result")

SECONDS = 1.5
# The pool's own units, and those that they stand on.
UNITS = (
    "ppn-agent.service",
    "ppn-node-proxy.service",
    "ppn-fleet.service",
    "ppn-tenant.service",
    "ppn-witness.service",
    "ppn-path-keeper.service",
    "ppn-vm-network.service",
    "ppn-nftables.service",
    "ppn-kvm-probe.service",
    "libvirtd.service",
    "virtlogd.service",
)
PROGRAMS = {
    "qemu": ("qemu-system-x86_64", "--version"),
    "libvirt": ("libvirtd", "--version"),
    "nftables": ("nft", "--version"),
    "wireguard-tools": ("wg", "--version"),
}


def examine(paths: Paths) -> Examination:
    """This node, as it is now.

    Args:
        paths: its files.
    """
    unread: list[Unread] = []
    mesh = MeshPaths(paths.root)
    interface = _interface(mesh, unread)
    return Examination(
        node=interface.node if interface is not None else _name(paths, unread),
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        synchronised=_synchronised(),
        versions=_versions(),
        services=_services(interface, unread),
        certificates=tuple(_certificates(paths, unread)),
        mesh=_mesh(mesh, interface, unread) if interface is not None else None,
        unread=tuple(unread),
    )


def _looked(what: str, unread: list[Unread], look: Callable[[], Result]) -> Result | None:
    """What a look finds; None, and a word of it in `unread`, when it fails."""
    try:
        return look()
    except PpnError as error:
        unread.append(Unread(what=what, code=error.code, message=error.message))
    except OSError as error:
        message = f"cannot read {error.filename}: {error.strerror}"
        unread.append(Unread(what=what, code="unreadable", message=message))
    return None


def _name(paths: Paths, unread: list[Unread]) -> str:
    """The node's name where it has no mesh interface of the pool."""
    read = partial(read_model, paths.agent_settings, AgentSettings)
    settings = _looked("settings", unread, read)
    return settings.node if settings is not None else ""


def _synchronised() -> bool | None:
    try:
        words = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
        said = run(words, timeout=SECONDS).stdout.strip()
    except CommandFailed:
        return None
    return {"yes": True, "no": False}.get(said)


def _versions() -> dict[str, str]:
    found = {"ppn": __version__, "kernel": os.uname().release, "python": platform.python_version()}
    for name, words in PROGRAMS.items():
        try:
            said = run(words, timeout=SECONDS).stdout.strip()
        except CommandFailed:
            continue
        found[name] = said.splitlines()[0][:100] if said else ""
    return found


def _services(interface: Interface | None, unread: list[Unread]) -> tuple[ServiceReport, ...]:
    more = [f"wg-quick@{interface.interface}.service"] if interface is not None else []
    asked = "--property=Id,LoadState,ActiveState,Result,ConditionResult"
    words = ["systemctl", "show", asked, *UNITS, *more]
    done = _looked("services", unread, partial(run, words, timeout=2 * SECONDS))
    return tuple(service_reports(done.stdout)) if done is not None else ()


def service_reports(said: str) -> Iterator[ServiceReport]:
    """What `systemctl show` says, unit by unit; those that are not installed are left out.

    Args:
        said: blocks of `Key=value` lines, one empty line between two units.
    """
    for block in said.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("LoadState") not in (None, "not-found", "masked"):
            yield ServiceReport(
                unit=values.get("Id", ""),
                state=values.get("ActiveState", ""),
                result="condition" if unmet(values) else values.get("Result", ""),
            )


def unmet(values: Mapping[str, str]) -> bool:
    """Whether a unit does not run because it is not meant to, its condition says."""
    return values.get("ActiveState") == "inactive" and values.get("ConditionResult") == "no"


def _certificates(paths: Paths, unread: list[Unread]) -> Iterator[CertificateReport]:
    for file in (NODE_CERTIFICATE, AGENT_CERTIFICATE, NODE_TRUST):
        path = paths.root / file.lstrip("/")
        if path.exists():
            yield from _looked("certificates", unread, partial(_bundle, path, file)) or ()


def _bundle(path: Path, file: str) -> tuple[CertificateReport, ...]:
    # Imported here: a VM is applied without cryptography.
    from ppn.pool import certificates

    found = []
    for one in certificates.read_bundle(path):
        subject = certificates.subject_of(one)
        address = subject.address if subject is not None else None
        found.append(
            CertificateReport(
                file=file,
                of=subject.node if subject is not None else one.subject.rfc4514_string(),
                begins=one.not_valid_before_utc.isoformat(),
                ends=one.not_valid_after_utc.isoformat(),
                addresses=(str(address),) if address is not None else (),
            )
        )
    return tuple(found)


def _interface(mesh: MeshPaths, unread: list[Unread]) -> Interface | None:
    if not mesh.config.exists():
        return None
    return _looked("mesh", unread, partial(load_config, mesh))


def _mesh(mesh: MeshPaths, interface: Interface, unread: list[Unread]) -> MeshReport:
    asked = _looked("wireguard", unread, partial(_wireguard, interface, "latest-handshakes"))
    handshakes = _by_key(asked)
    endpoints = _by_key(_looked("wireguard", [], partial(_wireguard, interface, "endpoints")))
    state = _looked("path keeper", unread, partial(status.read, mesh.state))
    paths = {peer.name: peer for peer in state.peers} if state is not None else {}
    now = time.time()
    peers = (
        _peer(peer, paths.get(peer.name), handshakes, endpoints, now) for peer in interface.peers
    )
    return MeshReport(
        interface=interface.interface,
        address=str(interface.address),
        up=asked.returncode == 0 if asked is not None else None,
        keeper_seconds=max(now - state.written, 0.0) if state is not None else None,
        firewall=_firewall(),
        peers=tuple(peers),
    )


def _peer(
    peer: Peer,
    path: PeerPath | None,
    handshakes: Mapping[str, str],
    endpoints: Mapping[str, str],
    now: float,
) -> PeerReport:
    last = int(handshakes.get(peer.public_key, "0"))
    endpoint = endpoints.get(peer.public_key, "")
    return PeerReport(
        name=peer.name,
        address=str(peer.address),
        path=path.path if path is not None else "none",
        via=(path.via or "") if path is not None else "",
        tunnel=peer.has_tunnel,
        handshake_seconds=max(now - last, 0.0) if last else None,
        endpoint="" if endpoint == "(none)" else endpoint,
    )


def _wireguard(interface: Interface, what: str) -> Completed:
    """A column of what WireGuard knows; it ends with 1 when there is no such interface.

    Raises:
        CommandFailed: it does not say, as on a node that is too busy.
    """
    return run(["wg", "show", interface.interface, what], timeout=SECONDS, accept=(0, 1))


def _by_key(done: Completed | None) -> dict[str, str]:
    """The column by public key; empty where there is none."""
    lines = done.stdout.splitlines() if done is not None else []
    return dict(line.split("\t", 1) for line in lines)


def _firewall() -> bool | None:
    try:
        done = run(["nft", "list", "table", "inet", TABLE], timeout=SECONDS, accept=(0, 1))
    except CommandFailed:
        return None
    return done.returncode == 0
