"""`ppn vm end-move` through a real controller and real node proxies to nodes that keep sidecars."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ppn.errors import Refusal
from ppn.host.agent.policy import unknown
from ppn.host.moving import policy
from ppn.host.sidecar import Sidecar
from ppn.wire.diagnosis import Inspection
from ppn.wire.moving import MoveView
from tests.integration.fleet.node import Node
from tests.integration.fleet.parts import Pool, pool
from tests.integration.host.node import PPN
from tests.integration.proxy.parts import wait_for
from tests.logged import logged
from tests.unit.moving.test_policy import destination, source
from tests.unit.moving.world import MOVE, VM

STATES = {"moved": "moving", "arriving": "arriving", "ready": "running"}


@dataclass
class Keeper(Node):
    """A node that does to one VM's sidecar what a real agent does.

    Args:
        sidecar: None for nothing of the VM.
        process: of a VM that has no sidecar any more.
    """

    sidecar: Sidecar | None = None
    process: int | None = None

    def put(self, sidecar: Sidecar | None) -> None:
        """Have this of the VM, and tell the controller."""
        self.sidecar, self.process = sidecar, None
        self._tell()
        self.beat()

    def _tell(self) -> None:
        with self.lock:
            self.vms.clear()
            if self.sidecar is not None:
                self._admit(self.sidecar.spec.model_dump())
                self.vms[VM]["state"] = STATES[self.sidecar.phase]

    def _do(self, body: dict[str, Any], ticket: dict[str, Any] | None) -> dict[str, Any]:
        match body["operation"]:
            case "inspect":
                if self.process is None:
                    raise unknown(VM)
                return Inspection(vm=VM, pid=self.process).model_dump(mode="json")
            case "move_step":
                assert ticket is not None
                self._step(body["step"], body["move"])
                self._tell()
            case "show_move":
                pass
            case _:
                return super()._do(body, ticket)
        return self._view().model_dump(mode="json")

    def _step(self, step: str, move: str) -> None:
        if self.sidecar is None:
            raise policy.not_in_move(VM, move)
        if step == "reclaim":
            self.sidecar = policy.reclaimed(self.sidecar, move)
        elif step == "settle":
            self.sidecar = policy.settled(self.sidecar, move, self.sidecar)
        else:
            check = {"release": policy.check_release, "drop": policy.check_drop}[step]
            check(self.sidecar, move)
            self.sidecar = None

    def _view(self) -> MoveView:
        move = self.sidecar.move if self.sidecar is not None else None
        return MoveView(
            vm=VM,
            stage=policy.stage_of(self.sidecar),
            move=move.id if move is not None else "",
            peer=move.peer if move is not None else "",
            settled=policy.can_run(self.sidecar),
        )


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Two nodes and one controller."""
    nodes: list[Node] = [Keeper("a", "127.0.1.1"), Keeper("b", "127.0.1.2")]
    with pool(tmp_path_factory.mktemp("lost"), nodes) as made:
        yield made


@pytest.fixture
def two(started: Pool) -> tuple[Keeper, Keeper]:
    """The nodes, with nothing of the VM."""
    started.reset()
    a, b = started.nodes
    assert isinstance(a, Keeper) and isinstance(b, Keeper)
    a.put(None)
    b.put(None)
    return a, b


def end_move(pool: Pool, *words: str, code: int = 0) -> str:
    """What the command prints, errors last."""
    done = subprocess.run(
        [PPN, "vm", "end-move", VM, *words],
        env=os.environ | {"PPN_CONTROLLER": pool.first.url},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def error(text: str) -> Any:
    """The code of an error under `--json`."""
    return json.loads(text.splitlines()[-1])["error"]["code"]


@pytest.mark.fault(
    "a VM is removed by hand where it moved to, before its source let go of what it keeps",
    "the operator is told what each node has, and the source has it again when told so",
)
def test_a_vm_that_its_source_keeps_is_had_again(started: Pool, two: tuple[Keeper, Keeper]) -> None:
    """MIG-01, CLI-01: what is found, what is refused with nothing done, and how it ends."""
    a, b = two
    assert error(end_move(started, "--json", code=4)) == "move_unknown"
    a.put(source("moved"))
    said = end_move(started, code=7)
    assert "from a: keeps all of it" in said and "to b: has nothing of it" in said
    assert f"ppn vm end-move {VM} --keep a --gone b" in said
    told = json.loads(end_move(started, "--json", code=7))
    assert [one["keep"] for one in told["ends"]] == ["a", None]
    b.process = 77
    for words, wanted in (
        (("--keep", "b", "--gone", "a"), "move_end_unsafe"),
        (("--keep", "a", "--gone", "b"), "move_end_unsafe"),
        (("--keep", "a", "--gone", "c"), "move_end_wrong"),
    ):
        assert error(end_move(started, *words, "--json", code=3)) == wanted
    end_move(started, "--keep", "a", code=2)
    assert a.sidecar == source("moved")
    b.process = None
    assert f"{VM} is on a now" in end_move(started, "--keep", "a", "--gone", "b")
    assert a.sidecar == source("ready") and b.sidecar is None
    assert error(end_move(started, "--keep", "a", "--gone", "b", "--json", code=4)) == (
        "move_unknown"
    )


def test_what_was_said_is_written_down(
    started: Pool, two: tuple[Keeper, Keeper], tmp_path: Path
) -> None:
    """MIG-01: by the controller, and by the node's proxy, under one correlation id."""
    _, b = two
    b.put(destination("arriving", verified=True))
    done = json.loads(end_move(started, "--keep", "b", "--gone", "a", "--json"))
    assert (done["outcome"], done["problem"]) == ("done", None)
    assert b.sidecar is not None and b.sidecar.phase == "ready"
    line = started.first.lines("move ended by an operator")[-1]
    assert (line["vm"], line["move"], line["keep"], line["gone"]) == (VM, MOVE, "b", ["a"])
    assert (line["source_found"], line["node_found"]) == ("gone", "verified")

    path, same = started.doors["b"].folder / "b.log", line["correlation_id"]
    wait_for(
        lambda: bool(logged(path, operation="move_step", correlation_id=same)), "the audit line"
    )


def test_what_nobody_needs_is_given_up(started: Pool, two: tuple[Keeper, Keeper]) -> None:
    """MIG-01: at either node; and what is another VM's own stays."""
    a, b = two
    a.put(source("moved"))
    assert f"{VM} is given up" in end_move(started, "--gone", "a", "--gone", "b")
    assert a.sidecar is None and b.sidecar is None
    b.put(destination("arriving", verified=True))
    assert f"{VM} is given up" in end_move(started, "--gone", "a", "--gone", "b")
    assert a.sidecar is None and b.sidecar is None


@pytest.mark.fault(
    "a node is lost for good after a VM was given up to it",
    "once it has left the inventory the VM can be had again from what its source keeps",
)
def test_a_node_that_left_the_inventory_holds_nothing_up(
    started: Pool, two: tuple[Keeper, Keeper]
) -> None:
    """MIG-01: not before, for it may come back with the VM."""
    a, _ = two
    a.put(source("moved"))
    door, nodes = started.doors["b"], started.first.settings["nodes"]
    door.kill()
    try:
        assert error(end_move(started, "--keep", "a", "--gone", "b", "--json", code=5)) == (
            "nodes_silent"
        )
        said = end_move(started)
        assert "to b: does not say" in said and "before both are heard" in said
        started.first.kill()
        started.first.start_again(nodes=[one for one in nodes if one["name"] != "b"])
        a.restart()
        a.put(source("moved"))
        assert "to b: is not in the inventory any more" in end_move(started, code=7)
        assert f"{VM} is on a now" in end_move(started, "--keep", "a", "--gone", "b")
        assert a.sidecar == source("ready")
    finally:
        door.start()
        started.first.kill()
        started.first.start_again(nodes=nodes)


def test_a_refusal_of_its_node_ends_nothing(
    started: Pool, two: tuple[Keeper, Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MIG-01: the node has the last word on what it keeps."""
    a, _ = two
    a.put(source("moved"))

    def refuse(step: str, move: str) -> None:
        raise Refusal("no", code="move_unknown", constraint="the test")

    monkeypatch.setattr(a, "_step", refuse)
    assert error(end_move(started, "--keep", "a", "--gone", "b", "--json", code=1)) == "move_lost"
    assert a.sidecar == source("moved")
