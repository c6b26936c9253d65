"""What nodes are asked and answer while a VM moves from one to another (MIG-01 to MIG-03).

A controller says what is next to either node. What the VM consists of goes from the source's agent
to the destination's, sealed for that agent alone, so that nobody on the way can read it (INV-04).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ppn.host.model import Accelerator
from ppn.host.spec import ADDRESS_PATTERN, DISK_PATTERN, IMAGE_PATTERN, Disk, Protocol
from ppn.wire.heartbeat import VmReport
from ppn.wire.model import NodeName, Owner, VmId, VmUuid, Wire
from ppn.wire.problems import ProblemBody

# The manifest: what the VM is and what its disks' copies must be. No disk can be called so.
MANIFEST = "sidecar"
# A sealed chunk and its frame stay below every bound of the way.
CHUNK_BYTES = 512 * 1024
SEALED_CHARACTERS = 4 * ((CHUNK_BYTES + 16 + 2) // 3)

MoveId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Secret = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
PublicKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")]

# How far a node is. Here: it has the VM, and the move asked about has not begun or is another's.
# Source: from stopping to moved, which is for good, or back. Destination: from receiving to
# settled.
Stage = Literal[
    "gone",
    "here",
    "stopping",
    "copying",
    "sending",
    "sent",
    "moved",
    "back",
    "receiving",
    "verifying",
    "verified",
    "settled",
]
Step = Literal["commit", "back", "release", "reclaim", "settle", "drop"]


class OfferedPort(Wire):
    """A guest port that the mesh reaches; which port of the node leads there is the node's."""

    guest: int = Field(ge=1, le=65535)
    protocol: Protocol = "tcp"


class OfferedGrant(Wire):
    """What a node's ledger gives a VM: CPU weight, and balloon minimum in MiB."""

    weight: int
    minimum_mib: int


class Offer(Wire):
    """What a VM needs of the node it goes to.

    Args:
        uuid: its identity.
        image: name of its image, which the destination must have.
        image_digest: of the image's manifest.
        kept_mib: what its detached disks, which go with it, may grow to.
        running: it shall run there.
        accelerator: what it runs under now.
        grant: what the source's ledger gives it.
    """

    uuid: VmUuid
    owner: Owner
    image: str = Field(pattern=IMAGE_PATTERN)
    image_digest: str = Field(pattern=r"^[0-9a-f]{1,64}$")
    vcpus: int = Field(ge=1, le=512)
    memory_mib: int = Field(ge=64, le=64 * 1024 * 1024)
    disk_gib: int = Field(ge=1, le=65536)
    disks: Annotated[tuple[Disk, ...], Field(strict=False, max_length=16)] = ()
    ports: Annotated[tuple[OfferedPort, ...], Field(strict=False, max_length=64)] = ()
    kept_mib: int = Field(default=0, ge=0, lt=1 << 53)
    label: str = Field(default="", max_length=256)
    running: bool
    accelerator: Accelerator | None = None
    grant: OfferedGrant | None = None


class ArrivalOrder(Wire):
    """Room to be kept for a VM that comes from another node.

    Args:
        source: where it comes from.
        offer: what it needs; None where room is kept already, and only how to send it is asked.
    """

    move: MoveId
    source: NodeName
    offer: Offer | None = None


class PrepareArrival(ArrivalOrder):
    """Keep room for a VM that comes from another node, and tell how to send it; may be repeated."""

    operation: Literal["prepare_arrival"] = "prepare_arrival"
    vm: VmId


class DepartureOrder(Wire):
    """Where a VM goes.

    Args:
        node: where it goes.
        address: of that node's proxy.
        port: of that node's proxy.
        secret: what that node's agent knows the sender by.
    """

    move: MoveId
    node: NodeName
    address: str = Field(pattern=ADDRESS_PATTERN)
    port: int = Field(ge=1, le=65535)
    secret: Secret


class Depart(DepartureOrder):
    """Stop a VM and send it to another node; may be repeated, and then goes on where it was."""

    operation: Literal["depart"] = "depart"
    vm: VmId


class StepOrder(Wire):
    """One step of a move that a node has begun.

    Args:
        step: `commit` gives the VM up for good, `back` keeps it, `release` removes what is left,
            `reclaim` takes back what was given up to a node that an operator says has nothing;
            at the destination `settle` makes the VM its own, `drop` removes what came.
    """

    move: MoveId
    step: Step


class MoveStep(StepOrder):
    """One step of a move that a node has begun; may be repeated."""

    operation: Literal["move_step"] = "move_step"
    vm: VmId


class ShowMove(Wire):
    """How far this node is with the move of a VM."""

    operation: Literal["show_move"] = "show_move"
    vm: VmId


class GreetOrder(Wire):
    """Who sends a VM.

    Args:
        source: the node that sends it.
        secret: what the destination's agent knows the sender by.
    """

    move: MoveId
    source: NodeName
    secret: Secret


class Greet(GreetOrder):
    """Asked by the source's agent: how to seal what it sends, and what has come already."""

    operation: Literal["greet"] = "greet"
    vm: VmId


class Chunk(GreetOrder):
    """A sealed piece of one file.

    Args:
        file: `sidecar` for the manifest, or a disk.
        offset: of the piece in the file, in bytes.
        total: bytes of the whole file.
        sender: the public key of this sender, as base64.
        box: the sealed piece, as base64.
    """

    file: str = Field(pattern=DISK_PATTERN)
    offset: int = Field(ge=0, lt=1 << 53)
    total: int = Field(ge=1, lt=1 << 53)
    sender: PublicKey
    box: str = Field(max_length=SEALED_CHARACTERS, pattern=r"^[A-Za-z0-9+/=]*$")


class Deliver(Chunk):
    """Sent by the source's agent: a sealed piece of one file."""

    operation: Literal["deliver"] = "deliver"
    vm: VmId


class MoveView(Wire):
    """How far one node is with a move.

    Args:
        vm: whose.
        move: the last move this node knows of this VM; empty for none.
        peer: the other node.
        active: something works on it just now.
        settled: the VM is as it shall be, running or stopped; for the stages back and settled.
        bytes_done: of the present stage.
        bytes_total: of the present stage; 0 while that is not known.
        problem: why the work ended that shall go on, or why the VM here cannot move.
        offer: what the VM needs, where the VM is ready to move.
        report: the VM, where it is this node's own.
    """

    vm: VmId
    stage: Stage
    move: str = ""
    peer: str = ""
    active: bool = False
    settled: bool = False
    bytes_done: int = 0
    bytes_total: int = 0
    problem: ProblemBody | None = None
    offer: Offer | None = None
    report: VmReport | None = None


class Prepared(Wire):
    """The answer of a destination that has kept room.

    Args:
        secret: for the source's agent.
        view: how far the destination is.
    """

    secret: Secret
    view: MoveView


class Greeting(Wire):
    """What the sender must know, signed by the destination's agent.

    Args:
        key: the destination agent's public key for this move, as base64.
        have: bytes that have come, by file.
        stage: how far the destination is.
        manifest: SHA-256 of the manifest as it came; empty while it has not.
        certificate: of the key that signed this, in PEM.
        signature: over all else, the VM, the move and the source, as base64.
    """

    key: PublicKey
    have: dict[str, int]
    stage: Stage
    manifest: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    certificate: str = Field(default="", max_length=16384)
    signature: str = Field(default="", max_length=128)


class Delivered(Wire):
    """What of a file has come so far, in bytes."""

    have: int
