"""`ppn debug mesh` on a node of a real mesh: what is well, and what is not (CLI-03, CLI-04)."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

import pytest

from tests.integration.mesh.conftest import Mesh
from tests.integration.mesh.namespaces import WITHOUT_RULES, Namespace, wait_for

STATE = "/run/ppn/mesh/paths.json"
DEBUG = (sys.executable, "-c", "from ppn.cli.debug import debug_app; debug_app()")


def debug(node: Namespace, *words: str) -> dict[str, Any]:
    """What `ppn debug` finds on a node."""
    done = node(*DEBUG, *(words or ("mesh",)), "--json", accept=(0, 7))
    found: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 7) == any(one["grade"] == "error" for one in found["causes"])
    return found


def codes(node: Namespace) -> set[str]:
    """The codes of what is found."""
    return {cause["code"] for cause in debug(node)["causes"]}


@pytest.fixture
def kept(mesh: Mesh) -> Namespace:
    """The server, whose path keeper has told how it is, with a handshake with the relay."""
    for node in mesh.members:
        node.keep_paths()
    exists = ("test", "-e", STATE)
    wait_for(lambda: mesh.server(*exists, accept=(0, 1)).returncode == 0, 180, "a state")
    assert mesh.server.reaches("10.8.0.1")
    return mesh.server


@pytest.mark.fault("firewall, path keeper or mesh interface of a node are gone", "each is named")
def test_what_is_wrong_with_the_mesh_is_named(kept: Namespace) -> None:
    """CLI-04: also on a node that reaches nobody, for nobody is asked."""
    found = debug(kept)
    mesh = found["evidence"][0]["examination"]["mesh"]
    assert (mesh["address"], mesh["up"], mesh["firewall"]) == ("10.8.0.2", True, True)
    (relay,) = [peer for peer in mesh["peers"] if peer["name"] == "relay"]
    assert relay["handshake_seconds"] < 240 and relay["endpoint"] == "198.51.100.1:51820"
    assert not [one for one in found["causes"] if one["grade"] == "error"]
    table = kept(*DEBUG, "mesh").stdout
    assert "198.51.100.1:51820" in table and "firewall rules loaded" in table
    with kept.changed(*WITHOUT_RULES):
        assert "firewall_missing" in codes(kept)
    kept.end_keeper(signal.SIGKILL)
    kept.sh(f"rm {STATE}")
    assert "path_keeper_stopped" in codes(kept)
    kept.sh("wg-quick down ppn0")
    first = debug(kept, "node")["causes"][0]
    assert first["code"] == "mesh_down" and "wg-quick@ppn0" in first["next_step"]
