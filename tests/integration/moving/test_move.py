"""A VM goes to another node with all it is and has, and what cannot go stays as it was."""

from __future__ import annotations

from tests.integration.moving.parts import Site


def test_a_vm_moves(pool: Site) -> None:
    vm = pool.create(ports=[])
    source = pool.place(vm)
    there = pool.other(source)
    source.node.wait_ready(vm)
    asked = pool.ask(vm, there.name)
    assert asked.status_code == 202, asked.text
    print(asked.json())
    ended = pool.ended(vm)
    print(ended)
    assert ended["outcome"] == "done", ended
    assert there.runs(vm)
    there.node.wait_ready(vm)
