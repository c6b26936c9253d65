"""What a VM shall be, written beside its disk so that no other machine need be asked (HOST-05)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppn.durable import write_atomic
from ppn.errors import PpnError
from ppn.host.lease import Lease
from ppn.host.model import Phase, Pins
from ppn.host.spec import PCI_PATTERN, VmSpec


class SidecarDamaged(PpnError):
    """A sidecar that cannot be read as one; its content is never guessed."""

    code = "sidecar_damaged"


class Move(BaseModel):
    """The last move of a VM that its node knows of.

    Args:
        id: 32 hex digits, drawn for this move alone.
        side: what the node is in it.
        peer: the other node.
        verified: at the destination, all that was sent is on disk and is what was sent.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    side: Literal["source", "destination"]
    peer: str
    verified: bool = False


class Sidecar(BaseModel):
    """A VM's identity and description on disk.

    Args:
        uuid: the VM's identity for its whole life.
        created: when it was first asked for, RFC 3339 in UTC.
        phase: `creating` until the VM first reached its wanted state; then see `Phase`.
        spec: what it shall be.
        pins: the CPUs it holds, also while it is stopped; None when it holds none.
        order: digest of the spec it was first asked for with; tells a repeated request.
        lease: its address and ports, from its creation on; None on a node without a VM network.
        drives: PCI addresses of the node's drives that are its own, also while it is stopped.
        move: the move it is in, or its last one.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    schema_version: Literal[1] = Field(default=1, alias="schema")
    uuid: str = Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    created: str
    phase: Phase
    spec: VmSpec
    pins: Pins | None = None
    order: str = ""
    lease: Lease | None = None
    drives: tuple[Annotated[str, Field(pattern=PCI_PATTERN)], ...] = ()
    move: Move | None = None


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Put a sidecar in its place; a kill leaves the old one or the new one.

    Only root may read it: user data can hold a guest's secrets.
    """
    write_atomic(path, sidecar.model_dump_json(indent=2).encode() + b"\n", mode=0o600)


def read_sidecar(path: Path) -> Sidecar | None:
    """The sidecar of the VM whose folder holds it; None when there is no file.

    Raises:
        SidecarDamaged: unreadable, no valid sidecar, or another VM's.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _damaged(path, str(error.strerror)) from error
    try:
        sidecar = Sidecar.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise _damaged(path, f"{where}: {first['msg']}") from error
    if sidecar.spec.name != path.parent.name:
        raise _damaged(path, f"it describes vm {sidecar.spec.name}")
    return sidecar


def _damaged(path: Path, reason: str) -> SidecarDamaged:
    return SidecarDamaged(
        f"{path}: {reason}",
        hint="put back a copy, or declare the vm absent, which removes its disks",
    )
