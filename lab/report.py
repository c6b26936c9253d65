"""What the pool's own commands say about each node, gathered over SSH and shown as two tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from lab import ssh
from lab.paths import LabPaths
from lab.topology import NODES
from ppn.run import CommandFailed, run

ASK_SECONDS = 60
# One round trip a node; a node without ppn still answers.
QUESTIONS = """\
command -v ppn >/dev/null || { echo '{"missing": true}'; exit 0; }
printf '{"mesh": %s, "host": %s}' "$(ppn mesh status --json 2>/dev/null || echo null)" \
"$(ppn host state --json 2>/dev/null || echo null)"
"""


@dataclass(frozen=True)
class Answer:
    """What one node said.

    Args:
        node: its name.
        mesh: its `ppn mesh status --json`, or None.
        host: its `ppn host state --json`, or None.
        problem: why there is nothing to show; empty when there is.
    """

    node: str
    mesh: Mapping[str, Any] | None = None
    host: Mapping[str, Any] | None = None
    problem: str = ""


def ask(lab: LabPaths, node: str) -> Answer:
    """What a node's own commands say now; a node that cannot answer says why."""
    try:
        text = run(ssh.command(lab, node, [QUESTIONS]), timeout=ASK_SECONDS).stdout
    except CommandFailed:
        return Answer(node, problem="unreachable")
    return answer(node, text)


def answer(node: str, text: str) -> Answer:
    """Read what a node printed."""
    try:
        said = json.loads(text)
    except ValueError:
        return Answer(node, problem="answers no JSON")
    if not isinstance(said, dict) or "missing" in said:
        return Answer(node, problem="not installed")
    return Answer(node, said.get("mesh"), said.get("host"))


def ask_all(lab: LabPaths) -> list[Answer]:
    """What every node says, all asked at once."""
    with ThreadPoolExecutor(len(NODES)) as pool:
        return list(pool.map(lambda node: ask(lab, node.name), NODES))


def node_rows(
    answers: Sequence[Answer], declared: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, ...]]:
    """One row for each node: name, roles, site, mesh address, paths, KVM.

    Args:
        answers: what the nodes say.
        declared: what the inventory says of each node.
    """
    rows: list[tuple[str, ...]] = []
    for said in answers:
        data = declared.get(said.node, {})
        rows.append(
            (
                said.node,
                ", ".join(data.get("roles", ())) or "-",
                str(data.get("site", "-")),
                str(data.get("mesh_address", "-")),
                said.problem or paths(said.mesh),
                said.problem or kvm(said.host) if "hypervisor" in data.get("roles", ()) else "-",
            )
        )
    return rows


def paths(mesh: Mapping[str, Any] | None) -> str:
    """How a node reaches its peers: `laptop direct, relay direct`."""
    if mesh is None:
        return "no mesh"
    peers = [f"{peer.get('name', '?')} {peer.get('path', '?')}" for peer in mesh.get("peers", ())]
    return ", ".join(peers) or "no peers"


def kvm(host: Mapping[str, Any] | None) -> str:
    """Whether a node has a working KVM, and why not."""
    if not host:
        return "no hypervisor"
    verdict = host.get("kvm") or {}
    reason = verdict.get("reason", "")
    word = "yes" if verdict.get("usable") else "no"
    return f"{word}: {reason}" if reason else word


def vm_rows(answers: Sequence[Answer]) -> list[tuple[str, ...]]:
    """One row for each VM: name, node, state, memory, minimum, weight, enforced or not."""
    rows: list[tuple[str, ...]] = []
    for said in answers:
        for vm in (said.host or {}).get("vms", ()):
            memory, weight = vm.get("memory") or {}, vm.get("weight") or {}
            rows.append(
                (
                    str(vm.get("name", "?")),
                    said.node,
                    str(vm.get("state", "?")),
                    str(vm.get("accelerator") or "-"),
                    f"{number(memory, 'current_mib')} of {number(memory, 'maximum_mib')}",
                    number(memory, "minimum_mib"),
                    number(weight, "wanted"),
                    "yes" if weight.get("enforced") else "no",
                )
            )
    return rows


def unenforced(answers: Sequence[Answer]) -> list[str]:
    """Why weights take no effect, a line for each node and reason."""
    return sorted(
        {
            f"{said.node}: weights are not enforced: {vm['weight'].get('reason', '')}"
            for said in answers
            for vm in (said.host or {}).get("vms", ())
            if not (vm.get("weight") or {"enforced": True}).get("enforced")
        }
    )


def number(fields: Mapping[str, Any], key: str) -> str:
    """A figure, or a dash where there is none."""
    value = fields.get(key)
    return "-" if value is None else str(value)


def tables(
    answers: Sequence[Answer], declared: Mapping[str, Mapping[str, Any]]
) -> tuple[Table, Table]:
    """The nodes and the VMs of the pool, ready to print."""
    nodes = table("Nodes", ("node", "roles", "site", "mesh address", "path", "KVM"))
    for row in node_rows(answers, declared):
        nodes.add_row(*row)
    columns = ("VM", "node", "state", "on", "MiB", "minimum", "weight", "enforced")
    vms = table("VMs", columns)
    for row in vm_rows(answers):
        vms.add_row(*row)
    vms.caption = "\n".join(unenforced(answers)) or None
    vms.caption_justify = "left"
    return nodes, vms


def table(title: str, columns: Sequence[str]) -> Table:
    """An empty table with headed columns."""
    made = Table(title=title, title_justify="left", header_style="bold", title_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made
