"""One reading for many questions: a fact is asked again only when this run may have changed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from pyinfra import host, state
from pyinfra.api import FactBase

T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """What a fact said, when this run had made so many changes on the host."""

    value: Any
    changes: int


def shared_fact(fact: type[FactBase[T]], **arguments: Any) -> T:
    """What a fact says of this host.

    pyinfra reads a fact anew each time it is asked, for each operation and in both of its phases.
    As long as the run has changed nothing on the host, one reading serves them all.

    Args:
        fact: the fact's class.
        arguments: the fact's own; they must be hashable.

    Returns:
        The fact's value. One that could not be read is asked again the next time.
    """
    readings: dict[Any, Reading] = host.data.get("fact_readings") or {}
    key = (fact, tuple(sorted(arguments.items())))
    changes = changes_so_far()
    known = readings.get(key)
    if known is None or known.changes != changes or known.value is None:
        known = Reading(host.get_fact(fact, **arguments), changes)
        host.data.fact_readings = readings | {key: known}
    value: T = known.value
    return value


def changes_so_far() -> int:
    """How many operations of this run have changed something on this host."""
    operations = state.ops[state.inventory.get_host(host.name)].values()
    metas = [operation.operation_meta for operation in operations]
    return sum(meta.did_change() for meta in metas if meta.is_complete())
