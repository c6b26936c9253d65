"""Causes that nobody says: they follow from times, states and figures of a node."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from ppn.diagnosis.evidence import Evidence
from ppn.wire.diagnosis import CertificateReport, Examination, MeshReport, ServiceReport

# What a heartbeat's way and a slow answer may take.
CLOCK_SECONDS = 30.0
ENDS_SOON_SECONDS = 14 * 24 * 3600.0
# The path keeper writes every five seconds.
KEEPER_SECONDS = 15.0
# WireGuard makes a new handshake every two minutes on a tunnel that is used.
HANDSHAKE_SECONDS = 240.0
DISK_MIB = 512
# Units that run all the time where they are installed.
LASTING = {"ppn-agent.service": "agent_down", "ppn-node-proxy.service": "proxy_down"}

# A cause's code, the node, and what shows it.
Found = tuple[str, str, str]


def reckoned(evidence: Evidence) -> Iterator[Found]:
    """What follows from the figures of the evidence.

    Args:
        evidence: what was found out.
    """
    if evidence.examination is not None:
        yield from _examined(evidence, evidence.examination)
    yield from _hypervisor(evidence)
    yield from _seed(evidence)
    yield from _quota(evidence)


def _examined(evidence: Evidence, found: Examination) -> Iterator[Found]:
    name = evidence.node_name or found.node or "this node"
    ahead = _seconds(found.at) - evidence.now
    if abs(ahead) > CLOCK_SECONDS:
        how = "ahead of" if ahead > 0 else "behind"
        yield "clock_wrong", name, f"{name}: its clock is {abs(ahead):.0f} s {how} this machine's"
    for certificate in found.certificates:
        yield from _certificate(name, certificate, evidence.now)
    for service in found.services:
        yield from _service(name, service)
    if found.mesh is not None:
        yield from _mesh(name, found.mesh)
    version = found.versions.get("ppn", "")
    if evidence.version and version and version != evidence.version:
        yield "versions_differ", name, f"{name}: ppn {version}; here it is {evidence.version}"


def _certificate(name: str, found: CertificateReport, now: float) -> Iterator[Found]:
    whose = f"{name}: the certificate of {found.of} in {found.file}"
    if now < _seconds(found.begins):
        yield "clock_wrong", name, f"{whose} holds from {found.begins} only"
    if now >= _seconds(found.ends):
        yield "proxy_certificate_ended", name, f"{whose} has ended at {found.ends}"
    elif now + ENDS_SOON_SECONDS >= _seconds(found.ends):
        yield "certificate_ends_soon", name, f"{whose} ends at {found.ends}"


def _service(name: str, found: ServiceReport) -> Iterator[Found]:
    idle = found.unit in LASTING and found.state == "inactive" and found.result != "condition"
    if found.state in ("failed", "activating") or idle:
        code = LASTING.get(found.unit, "service_down")
        why = f" ({found.result})" if found.result not in ("", "success") else ""
        yield code, name, f"{name}: {found.unit} is {found.state}{why}"


def _mesh(name: str, found: MeshReport) -> Iterator[Found]:
    if found.up is False:
        yield "mesh_down", name, f"{name}: WireGuard has no interface {found.interface}"
        return
    if found.keeper_seconds is None or found.keeper_seconds > KEEPER_SECONDS:
        age = "never" if found.keeper_seconds is None else f"{found.keeper_seconds:.0f} s ago"
        yield "path_keeper_stopped", name, f"{name}: the path keeper wrote its state {age}"
    if found.firewall is False:
        yield "firewall_missing", name, f"{name}: nft has no table of the pool"
    for peer in found.peers:
        if peer.path == "none":
            yield "peer_silent", name, f"{name}: peer {peer.name} has no path"
            continue
        last = peer.handshake_seconds
        is_late = last is None or last >= HANDSHAKE_SECONDS
        # What goes through the relay needs no handshake of its own.
        if found.up and peer.path == "direct" and peer.tunnel and is_late:
            when = "never" if last is None else f"{last:.0f} s ago"
            yield "peer_silent", name, f"{name}: last handshake with {peer.name}: {when}"


def _hypervisor(evidence: Evidence) -> Iterator[Found]:
    if evidence.report is None:
        return
    node, name = evidence.report.node, evidence.node_name
    if node.disk.free_mib < DISK_MIB:
        yield "disk_full", name, f"{name}: {node.disk.free_mib} MiB are free below /var/lib/ppn"
    emulated = evidence.placed is not None and evidence.placed.vm.accelerator == "tcg"
    if node.kvm.usable and emulated:
        yield (
            "kvm_broken",
            name,
            f"{name}: KVM counts as usable, and {evidence.subject} is emulated",
        )
    if not node.kvm.usable and (emulated or not evidence.vm):
        yield "kvm_missing", name, f"{name}: {node.kvm.reason}"


def _seed(evidence: Evidence) -> Iterator[Found]:
    found = evidence.inspection
    if found is None or found.sidecar is None or found.sidecar.get("phase") != "ready":
        return
    if found.seed != "ok":
        name = evidence.node_name
        yield "seed_damaged", name, f"{name}: the seed volume of {found.vm} is {found.seed}"


def _quota(evidence: Evidence) -> Iterator[Found]:
    """A full ceiling explains a VM that is not there; one that is there it does not harm."""
    if not any(trouble.error.code == "vm_unknown" for trouble in evidence.troubles):
        return
    for name, (used, ceiling) in evidence.quota.items():
        if used >= ceiling:
            yield "quota_exceeded", "", f"of {name} {used} of {ceiling} are taken"


def _seconds(moment: str) -> float:
    """A moment in RFC 3339 as seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()
