"""What `ppn debug` found, as it is shown: the causes first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import typer
from pydantic import BaseModel

from ppn.cli.output import print_table, say
from ppn.cli.watching import show_timeline
from ppn.diagnosis.causes import Cause
from ppn.diagnosis.evidence import Evidence, said
from ppn.text import printable
from ppn.wire.agent import Timeline
from ppn.wire.diagnosis import Examination, Inspection, MeshReport
from ppn.wire.fleet import Decision

CONSOLE_LINES = 20


def as_json(causes: Iterable[Cause], found: Iterable[Evidence]) -> dict[str, Any]:
    """Causes and evidence as one document.

    Args:
        causes: the likeliest first.
        found: what was found out, of each subject.
    """
    return {
        "causes": [cause.as_dict() for cause in causes],
        "evidence": [_plain(evidence) for evidence in found],
    }


def _plain(evidence: Evidence) -> dict[str, Any]:
    parts = ("placed", "decision", "timeline", "inspection", "node", "report", "examination")
    found: dict[str, Any] = {"subject": evidence.subject, "console": evidence.console}
    for name in parts:
        part: BaseModel | None = getattr(evidence, name)
        found[name] = part.model_dump(mode="json") if part is not None else None
    found["quota"] = {
        name: {"used": used, "ceiling": ceiling} for name, (used, ceiling) in evidence.quota.items()
    }
    found["alerts"] = [alert.model_dump(mode="json") for alert in evidence.alerts]
    found["troubles"] = [
        {"who": one.who, "node": one.node, **one.error.as_dict()} for one in evidence.troubles
    ]
    return found


def show_causes(causes: Sequence[Cause]) -> None:
    """Each cause with its next step and what shows it."""
    if not causes:
        say("nothing is wrong, as far as can be seen", fg=typer.colors.GREEN)
    for cause in causes:
        colour = typer.colors.YELLOW if cause.grade == "warning" else typer.colors.RED
        say(f"{cause.grade}  {cause.title} ({cause.code})", fg=colour, bold=True)
        typer.echo(f"  next step  {cause.step}")
        _lines(f"  shown by   {line}" for line in cause.evidence)


def show_evidence(evidence: Evidence) -> None:
    """What was found out about one VM or node, part by part."""
    if evidence.placed is not None:
        vm = evidence.placed.vm
        where = evidence.placed.node + (" (silent)" if evidence.placed.stale else "")
        _head("where")
        typer.echo(f"{vm.id} is {vm.state} on {where}, owner {vm.owner}, image {vm.image}")
    if evidence.decision is not None:
        _decision(evidence.decision)
    if evidence.timeline is not None and evidence.timeline.operations:
        _head("timeline")
        show_timeline(one.model_dump(mode="json") for one in evidence.timeline.operations)
        _last_error(evidence.timeline)
    if evidence.report is not None:
        _head(f"node {evidence.node_name}")
        _lines(_node_lines(evidence))
    if evidence.examination is not None:
        _examination(evidence.examination)
    if evidence.inspection is not None:
        _inspection(evidence.inspection)
    if evidence.console:
        _head("serial console")
        _lines(evidence.console.splitlines()[-CONSOLE_LINES:])
    if evidence.quota:
        _head("quota")
        for name, (used, ceiling) in evidence.quota.items():
            typer.echo(f"{name}  {used} of {ceiling}")
    if evidence.troubles:
        _head("not answered")
        _lines(line for one in evidence.troubles for line in str(said(one)).split("\n"))


def _lines(lines: Iterable[str]) -> None:
    """Lines with what others may have written: nothing in them moves the terminal's cursor."""
    for line in lines:
        typer.echo(printable(line.expandtabs()))


def _head(title: str) -> None:
    say(f"\n{title}", bold=True)


def _decision(decision: Decision) -> None:
    _head(f"placement decision of {decision.at}")
    became = f"to {decision.node}" if decision.node is not None else "to no node"
    tried = f", asked: {', '.join(decision.tried)}" if decision.tried else ""
    typer.echo(
        f"{became}, policy {decision.policy}, {decision.candidates} candidates{tried}"
        + (f", {decision.left_out} more not shown" if decision.left_out else "")
    )
    if decision.problem is not None:
        _lines([f"{decision.problem.detail} ({decision.problem.code})"])
    rows = []
    for one in decision.refused:
        figures = f"{one.wanted} / {one.free} {one.unit}" if one.wanted is not None else ""
        rows.append((one.node, one.code, figures, one.message))
    if rows:
        print_table(("node", "why not", "wanted / free", "in words"), rows, whole=2)


def _last_error(timeline: Timeline) -> None:
    """The last operation that did not end well, even if others have since."""
    failed = [one for one in timeline.operations if one.outcome in ("failed", "cut_short")]
    if failed:
        _head("last error")
        _lines([f"{failed[-1].began}  {failed[-1].operation}: {failed[-1].message}"])


def _node_lines(evidence: Evidence) -> Iterator[str]:
    report = evidence.report
    if report is None:
        return
    node = report.node
    yield f"kvm      {'usable' if node.kvm.usable else 'not usable'}: {node.kvm.reason}"
    yield f"memory   {node.pool.free_mib} MiB free, {node.pool.available_mib} MiB not promised"
    yield f"disk     {node.disk.free_mib} MiB free, {node.disk.promised_mib} MiB promised"
    yield f"images   {', '.join(image.name for image in node.images) or 'none'}"
    yield f"VMs      {len(node.vms)}"
    for going in report.operations:
        yield f"at work  {going.operation} {going.vm} for {going.seconds:.0f} s"
    for alert in node.alerts:
        yield f"alert    {alert.subject}: {alert.message} ({alert.code})"


def _examination(found: Examination) -> None:
    _head(f"services and clock of {found.node or 'this node'}")
    clock = {True: "synchronised", False: "not synchronised", None: "synchronised: not known"}
    typer.echo(f"clock  {found.at}, {clock[found.synchronised]}")
    for name, version in sorted(found.versions.items()):
        typer.echo(f"{name}  {version}")
    for service in found.services:
        typer.echo(f"{service.unit}  {service.state}")
    for one in found.certificates:
        typer.echo(f"certificate of {one.of}  until {one.ends}  ({one.file})")
    if found.mesh is not None:
        _mesh(found.mesh)
    for unread in found.unread:
        typer.echo(f"not read: {unread.what}: {unread.message}")


def _mesh(mesh: MeshReport) -> None:
    rules = {True: "loaded", False: "not loaded", None: "not known"}[mesh.firewall]
    keeper = "never" if mesh.keeper_seconds is None else f"{mesh.keeper_seconds:.0f} s ago"
    up = {True: "up", False: "not there", None: "not known"}[mesh.up]
    _head(f"mesh: {mesh.interface} {mesh.address} is {up}, firewall rules {rules}, keeper {keeper}")
    rows = []
    for peer in mesh.peers:
        last = peer.handshake_seconds
        handshake = "" if not peer.tunnel else "never" if last is None else f"{last:.0f} s ago"
        path = f"relay ({peer.via})" if peer.via else peer.path
        rows.append((peer.name, peer.address, path, handshake, peer.endpoint))
    print_table(("peer", "address", "path", "handshake", "endpoint"), rows)


def _inspection(found: Inspection) -> None:
    if found.files:
        _head("files")
        for file in found.files:
            typer.echo(f"{file.name}  {file.size_bytes} bytes")
        _lines([f"seed is {found.seed}; user data has {', '.join(found.user_data_keys) or 'none'}"])
    if found.argv:
        _head(f"QEMU, process {found.pid}")
        typer.echo(" ".join(found.argv))
    if found.qemu_log:
        _head("QEMU's log")
        _lines(found.qemu_log)
    if found.domain_xml:
        _head("domain XML")
        typer.echo(found.domain_xml.rstrip())
