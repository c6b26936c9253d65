"""Reads one VM: its sidecar and disks, joined with its domain and its ledger entry."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ppn.host.affinity import judge_pinning, vcpu_affinity
from ppn.host.disk import MIB, DiskDamaged, disk_sizes
from ppn.host.model import (
    Enforcement,
    LedgerGrant,
    Problem,
    Topology,
    VmDisk,
    VmMemory,
    VmPinning,
    VmView,
    VmWeight,
)
from ppn.host.paths import Paths, VmPaths
from ppn.host.plan import MIB_PER_GIB, wanted_disks
from ppn.host.sidecar import Sidecar, SidecarDamaged, read_sidecar
from ppn.host.spec import VmSpec
from ppn.pool.policy import DEFAULT_WEIGHT

if TYPE_CHECKING:
    from ppn.host.domain_facts import DomainFacts


@dataclass(frozen=True)
class NodeFacts:
    """What a node can do for its VMs: CPU weights, pinning, and its hardware."""

    cpu_weight: Enforcement
    pinning: Enforcement
    topology: Topology


@dataclass(frozen=True)
class VmReading:
    """A VM with what it takes from the node.

    Args:
        view: the VM.
        vcpus: of the node's.
        growth_mib: what its disks may still grow by.
        awaited_mib: memory it will need when its move ends, here or back here.
    """

    view: VmView
    vcpus: int
    growth_mib: int
    awaited_mib: int = 0


def read_vm(
    paths: Paths,
    name: str,
    *,
    domain: DomainFacts | None,
    answers: bool,
    grant: LedgerGrant | None,
    node: NodeFacts,
) -> VmReading:
    """One VM as it is.

    Args:
        paths, name: the node's files, and the VM.
        domain: what libvirt has of it; None when it has none, or is silent.
        answers: tells those two cases apart.
        grant: what the ledger gives it; None when it says nothing.
        node: what this node can do for its VMs.
    """
    files = paths.vm(name)
    problems: list[Problem] = []
    sidecar, condition = _sidecar(files, problems)
    spec = sidecar.spec if sidecar is not None else None
    disks, growth = _disks(files, sidecar, domain, problems)
    memory = _memory(sidecar, domain, grant)
    problems += [_no_entry(name, memory.minimum_mib)] if grant is None else []
    pid = _pid(paths, name) if domain is not None and domain.running else None
    view = VmView(
        name=name,
        spec=spec,
        uuid=_uuid(sidecar, domain),
        state=_state(domain, answers),
        phase=sidecar.phase if sidecar is not None else None,
        digest=domain.digest if domain is not None else "",
        seed=files.seed.exists(),
        owner=_owner(spec, domain),
        order=sidecar.order if sidecar is not None else "",
        created=sidecar.created if sidecar is not None else "",
        cpu_seconds=domain.cpu_seconds if domain is not None else None,
        accelerator=domain.accelerator if domain is not None else None,
        pid=pid,
        memory=memory,
        weight=_weight(domain, grant, node.cpu_weight),
        pinning=_pinning(sidecar, pid, node),
        disks=disks,
        lease=sidecar.lease if sidecar is not None else None,
        drives=sidecar.drives if sidecar is not None else (),
        sidecar=condition,
        problems=tuple(problems),
    )
    return VmReading(view, _vcpus(spec, domain), growth, _awaited_mib(sidecar, domain))


def _still_to_come(files: VmPaths, spec: VmSpec) -> int:
    """What an arriving VM's disks may grow to, less what of them is there, in MiB."""
    blocks = 0
    for path in files.moving.glob("*"):
        # It may take its place, or go, between the listing and this look.
        with suppress(FileNotFoundError):
            blocks += path.stat().st_blocks
    return max(spec.promised_gib * MIB_PER_GIB - blocks * 512 // MIB, 0)


def _awaited_mib(sidecar: Sidecar | None, domain: DomainFacts | None) -> int:
    """The memory in MiB of a VM that shall run once its move has ended."""
    if sidecar is None or sidecar.phase not in ("moving", "arriving"):
        return 0
    runs = domain is not None and domain.running
    return sidecar.spec.memory_mib if sidecar.spec.state == "running" and not runs else 0


def _uuid(sidecar: Sidecar | None, domain: DomainFacts | None) -> str | None:
    if sidecar is not None:
        return sidecar.uuid
    return domain.uuid if domain is not None else None


def _vcpus(spec: VmSpec | None, domain: DomainFacts | None) -> int:
    if spec is not None:
        return spec.vcpus
    return domain.vcpus if domain is not None else 0


def _pinning(sidecar: Sidecar | None, pid: int | None, node: NodeFacts) -> VmPinning:
    return judge_pinning(
        sidecar.pins if sidecar is not None else None,
        vcpu_affinity(pid) if pid is not None else (),
        running=pid is not None,
        support=node.pinning,
        topology=node.topology,
    )


def _owner(spec: VmSpec | None, domain: DomainFacts | None) -> str:
    if spec is not None:
        return spec.owner
    return (domain.owner or "") if domain is not None else ""


def _memory(
    sidecar: Sidecar | None, domain: DomainFacts | None, grant: LedgerGrant | None
) -> VmMemory:
    maximum = sidecar.spec.memory_mib if sidecar else domain.maximum_mib if domain else 0
    # A drive may write to all of a VM's memory, so nothing of it can be taken away.
    whole = sidecar is not None and bool(sidecar.drives)
    return VmMemory(
        maximum_mib=maximum,
        current_mib=domain.current_mib if domain is not None else None,
        minimum_mib=maximum if grant is None or whole else grant.minimum_mib,
        unused_mib=domain.unused_mib if domain is not None else None,
    )


def _no_entry(name: str, minimum_mib: int) -> Problem:
    return Problem(
        code="no_ledger_entry",
        message=f"vm {name} has no ledger entry: weight {DEFAULT_WEIGHT},"
        f" minimum {minimum_mib} MiB",
        hint="ppn ledger set",
    )


def _state(
    domain: DomainFacts | None, answers: bool
) -> Literal["running", "stopped", "missing", "unknown"]:
    if domain is None:
        return "missing" if answers else "unknown"
    return "running" if domain.running else "stopped"


def _sidecar(
    files: VmPaths, problems: list[Problem]
) -> tuple[Sidecar | None, Literal["ok", "missing", "damaged"]]:
    try:
        sidecar = read_sidecar(files.sidecar)
    except SidecarDamaged as error:
        problems.append(Problem(code=error.code, message=error.message, hint=error.hint))
        return None, "damaged"
    return sidecar, "missing" if sidecar is None else "ok"


def _disks(
    files: VmPaths, sidecar: Sidecar | None, domain: DomainFacts | None, problems: list[Problem]
) -> tuple[tuple[VmDisk, ...], int]:
    """Every disk file in the VM's folder, and by how much they may still grow in MiB."""
    declared = [name for name, _ in wanted_disks(sidecar.spec)] if sidecar is not None else []
    names = _disk_names(files)
    attached = domain.disks if domain is not None and domain.running else frozenset()
    disks: list[VmDisk] = []
    growth = 0
    for name in sorted(names, key=lambda name: (name not in declared, name)):
        path = files.disk(name)
        try:
            virtual, allocated = disk_sizes(path)
        except DiskDamaged as error:
            problems.append(Problem(code=error.code, message=error.message, hint=error.hint))
            continue
        except FileNotFoundError:
            # Another operation removed it between the listing and this look.
            continue
        growth += max(virtual - allocated, 0)
        disks.append(
            VmDisk(
                name=name,
                size_mib=virtual,
                attached=str(path) in attached,
                # Of a VM without a readable sidecar nobody knows what was declared.
                detached=sidecar is not None and name not in declared,
            )
        )
    if sidecar is not None and sidecar.phase == "arriving":
        growth += _still_to_come(files, sidecar.spec)
    return tuple(disks), growth


def _disk_names(files: VmPaths) -> tuple[str, ...]:
    try:
        return files.disk_names()
    except FileNotFoundError:
        # The whole VM went while it was looked at.
        return ()


def _weight(
    domain: DomainFacts | None, grant: LedgerGrant | None, enforcement: Enforcement
) -> VmWeight:
    wanted = grant.weight if grant is not None else DEFAULT_WEIGHT
    actual = domain.weight if domain is not None else None
    if not enforcement.enforced:
        reason = enforcement.reason
    elif domain is None or not domain.running:
        reason = "not running"
    elif actual is None:
        reason = domain.weight_error or "libvirt reports no weight"
    elif actual != wanted:
        reason = f"the kernel has {actual}; ppn host enforce puts it right"
    else:
        return VmWeight(wanted=wanted, actual=actual, enforced=True)
    return VmWeight(wanted=wanted, actual=actual, enforced=False, reason=reason)


def _pid(paths: Paths, name: str) -> int | None:
    try:
        return int(paths.pid_file(name).read_text())
    except (OSError, ValueError):
        return None
