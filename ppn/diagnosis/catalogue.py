"""Every cause that is known by name: how it is told, and what to do.

In the order in which they explain each other: of two that are found, the earlier one is the cause.
docs/troubleshooting.md is written from this table.
"""

from __future__ import annotations

from ppn.diagnosis.evidence import Statement
from ppn.diagnosis.kind import Kind
from ppn.diagnosis.of_nodes import OF_NODES
from ppn.diagnosis.of_rest import OF_REST
from ppn.diagnosis.of_vms import OF_VMS

CATALOGUE: tuple[Kind, ...] = (*OF_NODES, *OF_VMS, *OF_REST)
RANK = {kind.code: place for place, kind in enumerate(CATALOGUE)}


def kind_of(statement: Statement) -> Kind | None:
    """The first kind that explains a statement; None for one that nothing does."""
    return next((kind for kind in CATALOGUE if kind.explains(statement)), None)


def kind_named(code: str) -> Kind:
    """The kind with a code."""
    return CATALOGUE[RANK[code]]
