"""Facts about a hypervisor: everything in one round trip, as the node itself tells it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError
from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from ppn.host.model import NodeState

PROGRAM = "/opt/ppn/venv/bin/ppn"


@dataclass(frozen=True)
class Hypervisor:
    """What a hypervisor tells of itself; `node` is `None` until ppn is installed on it."""

    node: NodeState | None


class HypervisorState(FactBase[Hypervisor | None]):
    """VMs, pool, topology, KVM, ledger and images of a node (`ppn host state --json`).

    Example:
        `host.get_fact(HypervisorState)`
    """

    @override
    @staticmethod
    def default() -> Hypervisor | None:
        return None

    @override
    def command(self) -> str:
        return f"if test -x {PROGRAM}; then {PROGRAM} host state --json; else echo absent; fi"

    @override
    def process(self, output: list[str]) -> Hypervisor | None:
        if output == ["absent"]:
            return Hypervisor(None)
        try:
            return Hypervisor(NodeState.model_validate_json("\n".join(output)))
        except ValidationError as error:
            raise FactProcessError(f"`ppn host state` printed no valid state: {error}") from error
