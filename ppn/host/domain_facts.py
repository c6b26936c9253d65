"""What libvirt says of its domains; with `ppn.host.backend` the only code that talks to it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import fromstring

import libvirt

from ppn.host.devices import drives_of, files_of
from ppn.host.domain import DOMAIN_TYPE, NAMESPACE
from ppn.host.model import Accelerator

ACCELERATORS: dict[str, Accelerator] = {kind: name for name, kind in DOMAIN_TYPE.items()}
STATISTICS = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
)
NO_WAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT  # type: ignore[attr-defined]  # of stubs
NOT_RUNNING = frozenset({libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED})
# Another call, of whoever asks too, holds a domain for milliseconds.
HELD_TRIES = 10
HELD_SECONDS = 0.1


@dataclass(frozen=True)
class DomainFacts:
    """A domain as libvirt has it; memory in MiB.

    Args:
        owner: from ppn's metadata; None when the domain came another way.
        digest: of the spec its lasting definition was made from.
        accelerator: what it runs under, or would.
        cpu_seconds: CPU time its QEMU has used since it started.
        disks: files of its block devices.
        drives: PCI addresses of the node's devices that the running domain has.
        weight: its CPU weight; None when it has none to read.
        weight_error: why the weight could not be read.
        answers: False when its QEMU does not answer libvirt, which then tells nothing but the name,
            the UUID and the CPU time.
    """

    name: str
    uuid: str
    running: bool
    owner: str | None
    digest: str
    accelerator: Accelerator | None
    vcpus: int
    maximum_mib: int
    current_mib: int | None
    unused_mib: int | None
    cpu_seconds: float | None = None
    disks: frozenset[str] = frozenset()
    drives: frozenset[str] = frozenset()
    weight: int | None = None
    weight_error: str = ""
    answers: bool = True


def all_domains(connection: libvirt.virConnect) -> tuple[DomainFacts, ...]:
    """Every domain, by name; waits for a QEMU that does not answer as long as that takes."""
    return _sorted(_facts(*record) for record in connection.getAllDomainStats(STATISTICS))


def answering_domains(
    connection: libvirt.virConnect, known: frozenset[str]
) -> tuple[DomainFacts, ...]:
    """Every domain, by name, without waiting for one whose QEMU has another call waiting.

    Args:
        connection: to libvirt.
        known: those that were silent before; the others may be held for a moment.
    """
    for _ in range(HELD_TRIES):
        records = connection.getAllDomainStats(STATISTICS, NO_WAIT)
        if not any(_is_held(stats) and domain.name() not in known for domain, stats in records):
            break
        time.sleep(HELD_SECONDS)
    return _sorted(
        _silent(domain, stats) if _is_held(stats) else _facts(domain, stats)
        for domain, stats in records
    )


def _sorted(records: Iterable[DomainFacts | None]) -> tuple[DomainFacts, ...]:
    found = [facts for facts in records if facts is not None]
    return tuple(sorted(found, key=lambda facts: facts.name))


def _is_held(stats: Mapping[str, Any]) -> bool:
    """Whether libvirt told of a running domain what it knows without it, and not what it reads."""
    return "balloon.current" in stats and _runs(stats) and "balloon.rss" not in stats


def _runs(stats: Mapping[str, Any]) -> bool:
    return stats.get("state.state", libvirt.VIR_DOMAIN_SHUTOFF) not in NOT_RUNNING


def _silent(domain: libvirt.virDomain, stats: Mapping[str, Any]) -> DomainFacts:
    """Of a domain that is held: libvirt would wait before it told more, even its definition."""
    return DomainFacts(
        name=domain.name(),
        uuid=domain.UUIDString(),
        running=True,
        owner=None,
        digest="",
        accelerator=None,
        vcpus=0,
        maximum_mib=0,
        current_mib=None,
        unused_mib=None,
        cpu_seconds=_cpu_seconds(stats),
        answers=False,
    )


def _facts(domain: libvirt.virDomain, stats: Mapping[str, Any]) -> DomainFacts | None:
    try:
        return _read(domain, stats)
    except libvirt.libvirtError as error:
        # It was undefined between the listing and this look.
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _read(domain: libvirt.virDomain, stats: Mapping[str, Any]) -> DomainFacts:
    running = _runs(stats)
    lasting = fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    now = fromstring(domain.XMLDesc()) if running else lasting
    mark = lasting.find(f"metadata/{{{NAMESPACE}}}vm")
    weight, weight_error = _weight(domain) if running else (None, "")
    return DomainFacts(
        name=domain.name(),
        uuid=domain.UUIDString(),
        running=running,
        owner=mark.get("owner") if mark is not None else None,
        digest=mark.get("digest", "") if mark is not None else "",
        accelerator=ACCELERATORS.get(now.get("type", "")),
        vcpus=int(lasting.findtext("vcpu", "0")),
        maximum_mib=int(lasting.findtext("memory", "0")) // 1024,
        current_mib=_mib(stats, "balloon.current") if running else None,
        unused_mib=_mib(stats, "balloon.unused") if running else None,
        cpu_seconds=_cpu_seconds(stats) if running else None,
        disks=files_of(now),
        drives=drives_of(now) if running else frozenset(),
        weight=weight,
        weight_error=weight_error,
    )


def _mib(stats: Mapping[str, Any], name: str) -> int | None:
    return int(stats[name]) // 1024 if name in stats else None


def _weight(domain: libvirt.virDomain) -> tuple[int | None, str]:
    try:
        parameters = domain.schedulerParametersFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None, error.get_error_message() or "no reason given"
    return parameters.get("cpu_shares"), ""


def _cpu_seconds(stats: Mapping[str, Any]) -> float | None:
    return stats["cpu.time"] / 1e9 if "cpu.time" in stats else None
