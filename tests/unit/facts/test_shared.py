"""One answer serves a whole run, until the run itself makes it old."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pyinfra.api.operation import OperationMeta
from pyinfra.connectors.util import CommandOutput
from pyinfra.context import ctx_host, ctx_state

from facts.shared import shared_fact
from facts.users import KnownUsers
from tests.unit.operations.yielded import KnownHost


class Counted:
    """A host that counts how often it is asked, and what it then says."""

    def __init__(self, *answers: frozenset[str] | None) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.host = KnownHost({KnownUsers: self.answer})

    def answer(self, users: tuple[str, ...]) -> frozenset[str] | None:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]

    def read(self, *users: str) -> frozenset[str] | None:
        with ctx_state.use(self.host.state), ctx_host.use(self.host):
            return shared_fact(KnownUsers, users=users)

    def finish(self, changed: bool) -> None:
        """An operation of the run ends on this host."""
        meta = OperationMeta("hash", None)
        meta.set_complete(True, ["a command"] if changed else [], CommandOutput([]))
        operations = self.host.state.ops[self.host.name]
        operations[f"op{len(operations)}"] = SimpleNamespace(operation_meta=meta)


@pytest.mark.parametrize(("changed", "reads"), [(False, 1), (True, 2)])
def test_it_is_read_again_only_after_a_change(changed: bool, reads: int) -> None:
    counted = Counted(frozenset())
    counted.read("a")
    counted.finish(changed)
    counted.read("a")
    counted.read("a")
    assert counted.asked == reads


def test_each_question_has_its_own_answer() -> None:
    counted = Counted(frozenset({"a"}), frozenset({"b"}))
    assert counted.read("a") == frozenset({"a"})
    assert counted.read("b") == frozenset({"b"})
    assert counted.read("a") == frozenset({"a"})


def test_the_unknown_is_asked_again() -> None:
    counted = Counted(None, frozenset({"a"}))
    assert counted.read("a") is None
    assert counted.read("a") == frozenset({"a"})
