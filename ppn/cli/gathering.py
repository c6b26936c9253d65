"""Gathers what there is to know about a VM or a node; what cannot be had is evidence too."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ppn import __version__
from ppn.cli.target import Target, target_of
from ppn.diagnosis.evidence import Evidence, Trouble
from ppn.errors import PpnError
from ppn.wire.agent import AgentReport, Console, Timeline
from ppn.wire.diagnosis import Examination, Inspection
from ppn.wire.fleet import Decision, NodeReport, PlacedVm
from ppn.wire.heartbeat import Alert

Model = TypeVar("Model", bound=BaseModel)

SECONDS = 30.0
CONSOLE_BYTES = 8192
# After these there is no use in asking the same one anything more.
DEAF = frozenset({"controller_unreachable", "server_untrusted", "source_wrong", "token_refused"})
NODE_DEAF = frozenset({"agent_unavailable", "node_unknown", "node_unreachable", "outcome_unknown"})


@dataclass
class Questions:
    """Asks one question after the other, and notes what was not answered.

    Args:
        target: who is asked.
        troubles: what was not answered so far.
        deaf: a node that does not answer, or everyone, is asked no more.
    """

    target: Target
    troubles: list[Trouble] = field(default_factory=list)
    deaf: bool = False

    def ask(
        self,
        model: type[Model],
        path: str,
        who: str,
        *,
        node: str = "",
        query: Mapping[str, str] | None = None,
    ) -> Model | None:
        """An answer, or None.

        Args:
            model: of the answer.
            path: behind the version.
            who: is asked, in words.
            node: the node the question goes to; empty for the service itself.
            query: fields behind the question mark.
        """
        found = self.raw(path, who, node=node, query=query)
        if not isinstance(found, dict):
            return None
        known = {name: found[name] for name in model.model_fields if name in found}
        try:
            return model.model_validate(known, strict=False)
        except ValidationError as error:
            text = f"the answer has another form than expected: {error.error_count()} fields"
            self.troubles.append(Trouble(who, PpnError(text, code="answer_unknown"), node))
            return None

    def raw(
        self, path: str, who: str, *, node: str = "", query: Mapping[str, str] | None = None
    ) -> Any:
        """An answer as it came, or None."""
        if self.deaf:
            return None
        try:
            return self.target.ask("GET", path, query=query, seconds=SECONDS)
        except PpnError as error:
            self.troubles.append(Trouble(who, error, node))
            self.deaf = error.code in DEAF or (bool(node) and error.code in NODE_DEAF)
            return None


def of_vm(target: Target, vm: str) -> Evidence:
    """What there is to know about a VM.

    Args:
        target: who is asked.
        vm: its id.
    """
    questions = Questions(target)
    path = f"/vms/{vm}"
    if target.is_proxy:
        questions.raw(path, "the tenant proxy")
        decision = placed = None
    else:
        placed = questions.ask(PlacedVm, path, "the controller")
        decision = questions.ask(Decision, f"{path}/decision", "the controller")
    alerts = () if target.is_proxy else _alerts(questions)
    known = Evidence(vm, True, time.time(), __version__, placed=placed, decision=decision)
    node = known.node_name
    if not node and not target.is_proxy:
        return _with(known, questions, alerts=alerts)
    query = {"node": node} if node and placed is None else {}
    who = f"node {node}" if node else "the tenant proxy"
    timeline = questions.ask(Timeline, f"{path}/timeline", who, node=node, query=query)
    console = questions.ask(
        Console,
        f"{path}/console",
        who,
        node=node,
        query={**query, "bytes": str(CONSOLE_BYTES)},
    )
    more: dict[str, Any] = {"quota": {} if node else _quota(questions)}
    if node:
        more["inspection"] = questions.ask(
            Inspection, f"{path}/inspect", who, node=node, query=query
        )
        more |= _node(questions, node)
    return _with(
        known,
        questions,
        alerts=alerts,
        timeline=timeline,
        console=console.text if console is not None else "",
        **more,
    )


def of_node(target: Target, name: str) -> Evidence:
    """What there is to know about a node, through a controller.

    Args:
        target: the controller.
        name: the node.
    """
    questions = Questions(target)
    alerts = tuple(alert for alert in _alerts(questions) if alert.subject == name)
    known = Evidence(name, False, time.time(), __version__)
    return _with(known, questions, alerts=alerts, **_node(questions, name))


def of_this_node(root: Path = Path("/")) -> Evidence:
    """What there is to know about the node this runs on, whoever of its services is down.

    Args:
        root: below which the node's files are.
    """
    from ppn.host.agent.client import ask, operation_of
    from ppn.host.examination import examine
    from ppn.host.paths import Paths

    paths = Paths(root)
    examination = examine(paths)
    name = examination.node or "this node"
    known = Evidence(name, False, time.time(), __version__, examination=examination)
    if not paths.agent_settings.exists():
        return known
    troubles: list[Trouble] = []
    report = None
    try:
        answer = ask(paths.agent_socket, operation_of({"operation": "node"}), deadline=SECONDS)
        if answer is None:
            silent = f"no agent listens at {paths.agent_socket}"
            raise PpnError(silent, code="agent_unavailable")
        report = AgentReport.model_validate(answer, strict=False)
    except PpnError as error:
        troubles.append(Trouble("the host agent", error, name))
    return replace(known, troubles=tuple(troubles), report=report)


def _node(questions: Questions, name: str) -> dict[str, Any]:
    """A node, as the controller sees it and as it sees itself."""
    who = f"node {name}"
    return {
        "node": questions.ask(NodeReport, f"/nodes/{name}", "the controller"),
        "report": questions.ask(AgentReport, f"/nodes/{name}/report", who, node=name),
        "examination": questions.ask(Examination, f"/nodes/{name}/examination", who, node=name),
    }


def _quota(questions: Questions) -> dict[str, tuple[int, int]]:
    """What is used and what may be of the tenant who asks, by what is counted."""
    found = questions.raw("/quota", "the tenant proxy") or {}
    used, ceiling = found.get("used", {}), found.get("ceiling", {})
    return {name: (used[name], ceiling[name]) for name in sorted(used.keys() & ceiling.keys())}


def _alerts(questions: Questions) -> tuple[Alert, ...]:
    found = questions.raw("/alerts", "the controller") or ()
    return tuple(Alert.model_validate(one, strict=False) for one in found)


def _with(known: Evidence, questions: Questions, **more: Any) -> Evidence:
    return replace(known, troubles=tuple(questions.troubles), **more)


def of_mesh(controller: str | None, root: Path = Path("/")) -> list[Evidence]:
    """What there is to know about the mesh: from this node, and from each hypervisor.

    Args:
        controller: its URL; this machine's own when None, if one runs here.
        root: below which this node's files are.

    Raises:
        PpnError: this machine is no node and no controller is named.
    """
    own = of_this_node(root)
    here = own.examination is not None and own.examination.mesh is not None
    found = [own] if here else []
    try:
        target = target_of(controller)
    except PpnError:
        if controller is not None or not found:
            raise
        return found
    questions = Questions(target)
    nodes = questions.raw("/nodes", "the controller") or ()
    alerts = _alerts(questions)
    names = {one["name"] for one in nodes} | {
        alert.subject for alert in alerts if alert.code == "node_stale"
    }
    if questions.troubles:
        found.append(Evidence("", False, time.time(), troubles=tuple(questions.troubles)))
    return [*found, *(of_node(target, name) for name in sorted(names - {own.subject}))]
