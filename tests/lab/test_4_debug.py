"""`ppn debug` in a whole pool: systemd, WireGuard and hardened services are real here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lab.pool import LabPool, eventually


def debug(pool: LabPool, node: str, *words: str) -> dict[str, Any]:
    """What `ppn debug` says on a node, once all it looks at could be seen."""

    def looked() -> dict[str, Any] | None:
        done = pool.node(node).run_expect([0, 7], f"ppn debug {' '.join(words)} --json")
        found: dict[str, Any] = json.loads(done.stdout)
        return found if all(map(seen, found["evidence"])) else None

    told: dict[str, Any] = eventually(looked, f"nothing stays unseen: {' '.join(words)}")
    return told


def seen(evidence: dict[str, Any]) -> bool:
    """Whether each look at a node came to its end; it has 1.5 s, which a busy node overruns."""
    found = evidence["examination"]
    if found is None:
        return True
    return not found["unread"] and (found["mesh"] is None or found["mesh"]["firewall"] is not None)


def errors(found: dict[str, Any]) -> list[str]:
    """The codes of what keeps something from working."""
    return [cause["code"] for cause in found["causes"] if cause["grade"] == "error"]


def test_a_sound_node_is_shown_through_a_controller(pool: LabPool) -> None:
    """CLI-03: services, certificates, mesh and clock, read by the hardened agent."""

    def sound() -> Any:
        found = debug(pool, "relay", "node", "laptop")
        return found if not errors(found) else None

    examined = eventually(sound, "nothing is wrong with the laptop")["evidence"][0]["examination"]
    services = {one["unit"]: one["state"] for one in examined["services"]}
    for unit in ("ppn-agent", "ppn-node-proxy", "ppn-path-keeper", "wg-quick@ppn0"):
        assert services[f"{unit}.service"] == "active", services
    assert examined["mesh"]["up"] and examined["mesh"]["firewall"] is True
    peers = {peer["name"]: peer for peer in examined["mesh"]["peers"]}
    assert peers["relay"]["handshake_seconds"] is not None
    assert {one["of"] for one in examined["certificates"]} >= {"laptop"}
    assert examined["unread"] == []


def test_a_node_without_an_agent_looks_at_itself(pool: LabPool) -> None:
    """CLI-03: the relay runs no VMs, so no controller knows it as a node."""
    assert debug(pool, "server", "node", "relay")["causes"][0]["code"] == "node_unknown"
    found = debug(pool, "relay", "node")
    assert errors(found) == [] and found["evidence"][0]["subject"] == "relay"
    mesh = debug(pool, "relay", "mesh")
    assert {one["subject"] for one in mesh["evidence"]} == {"relay", "server", "laptop"}


@pytest.mark.fault("an agent is stopped in the lab", "`ppn debug node` names it and its unit")
def test_a_stopped_agent_is_named_from_afar_and_on_the_spot(pool: LabPool) -> None:
    """CLI-04: the step that is named mends it."""
    pool.run("laptop", "systemctl stop ppn-agent")
    try:
        codes = [
            debug(pool, *words)["causes"][0]["code"]
            for words in (("relay", "node", "laptop"), ("laptop", "node"))
        ]
    finally:
        pool.run("laptop", "systemctl start ppn-agent")
    assert codes == ["agent_down", "agent_down"]
