"""VMs that come to this node: room kept, pieces taken in, verified, and then its own (MIG-01)."""

from __future__ import annotations

import hmac
import secrets
import shutil
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ppn.errors import PpnError, Refusal
from ppn.host.apply import prepare
from ppn.host.backend import Backend
from ppn.host.execute import as_errors, make_folder, remove_folder, sweep_vm
from ppn.host.model import IN_TRANSIT
from ppn.host.moving import policy
from ppn.host.moving.incoming import Incoming, check_room
from ppn.host.policy import in_transit
from ppn.host.sidecar import Move, Sidecar, read_sidecar, write_sidecar
from ppn.log import get_logger
from ppn.wire.moving import (
    CHUNK_BYTES,
    MANIFEST,
    Deliver,
    Delivered,
    Greet,
    Greeting,
    MoveStep,
    MoveView,
    PrepareArrival,
    Stage,
)
from ppn.wire.problems import problem_of

if TYPE_CHECKING:
    from ppn.host.agent.service import Service
    from ppn.host.agent.settings import AgentSettings
    from ppn.host.moving.box import Receiver
    from ppn.host.moving.vouching import Voucher

MOST_DAMAGES = 3

log = get_logger("host-agent")


@dataclass
class Door:
    """Where one VM comes in; in memory alone, so that its key is nobody else's.

    Args:
        vm: its id.
        move: the move's id.
        source: the node that sends it.
        receiver: opens what is sealed.
        incoming: what has come.
        secret: what the sender is known by.
        compared: bytes that were compared with what was sent; None while that is not done.
        damages: how often what had come was not what was sent.
        problem: why it cannot be verified.
        verified: all of it is on disk and is what was sent.
        closed: nothing is taken in any more.
    """

    vm: str
    move: str
    source: str
    receiver: Receiver
    incoming: Incoming
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    compared: int | None = None
    damages: int = 0
    problem: PpnError | None = None
    verified: bool = False
    closed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def compare(self, done: int) -> None:
        """Note how many bytes were compared."""
        self.compared = done


class Arrivals:
    """What this node does as the destination of moves.

    Args:
        service: the agent's own.
        settings: of the agent.
    """

    def __init__(self, service: Service, settings: AgentSettings) -> None:
        self._service = service
        self._settings = settings
        self._doors: dict[str, Door] = {}

    def prepare(self, body: PrepareArrival, correlation_id: str) -> str:
        """Keep room for a VM and open the door it comes through; may be repeated.

        Returns:
            The secret the sender is known by.

        Raises:
            Refusal: the node cannot or may not take it; nothing was changed.
        """
        vm, service = body.vm, self._service
        # Its sender would believe nobody else: without it the VM is not even stopped.
        self._voucher()
        with (
            service.noticed(),
            service.table.operation(vm, "arrival", correlation_id),
            as_errors(f"keep room for vm {vm}"),
        ):
            sidecar = read_sidecar(service.paths.vm(vm).sidecar)
            if sidecar is None:
                sidecar = self._keep_room(body)
            elif sidecar.move is None or sidecar.move.id != body.move:
                if sidecar.phase in IN_TRANSIT:
                    raise in_transit(vm, sidecar.phase)
                raise policy.exists(vm)
            elif sidecar.phase != "arriving":
                # A late order: nothing more is taken in for a VM that is its own node's.
                raise policy.exists(vm)
            door = self._door(vm, body.move, body.source)
        if policy.stage_of(sidecar) != "verified":
            with door.lock:
                self._verify_whole(door)
        return door.secret

    def greet(self, body: Greet) -> Greeting:
        """Tell the sender how to seal and what has come.

        Raises:
            Refusal: not the sender of a move to this node, or what came cannot be verified.
        """
        door = self._known(body)
        with door.lock:
            if door.problem is not None:
                raise door.problem
            with as_errors(f"look at what came of vm {body.vm}"):
                sidecar = self._sidecar(body.vm, body.move)
                have = door.incoming.have()
                manifest = door.incoming.digest
        greeting = Greeting(
            key=door.receiver.key,
            have=have,
            stage=self._stage(sidecar, door),
            manifest=manifest,
        )
        return self._voucher().vouch(greeting, body.vm, body.move, body.source)

    def deliver(self, body: Deliver) -> Delivered:
        """Take in one sealed piece.

        Raises:
            Refusal: not the sender of a move to this node, damaged, or not the next piece.
            PpnError: it cannot be kept, for example for want of room.
        """
        from ppn.host.moving.box import Piece

        door = self._known(body)
        with door.lock, as_errors(f"keep what came of vm {body.vm}"):
            if door.closed:
                raise policy.not_in_move(body.vm, body.move)
            if door.problem is not None:
                raise door.problem
            number = door.incoming.number(body.file, body.offset, body.total)
            piece = Piece(body.move, number, body.offset, body.total)
            content = door.receiver.open(piece, body.sender, body.box)
            if not 0 < len(content) <= CHUNK_BYTES:
                raise policy.not_in_move(body.vm, body.move)
            have = door.incoming.write(body.file, body.offset, body.total, content)
            if body.file == MANIFEST and have == body.total:
                self._check_manifest(door)
                self._check_room(door)
            self._verify_whole(door)
        return Delivered(have=have)

    def settle(self, body: MoveStep, correlation_id: str) -> None:
        """Make a VM this node's own, and start it if it shall run; may be repeated.

        Raises:
            Refusal: it did not come by this move, or is not verified.
            PpnError: it is this node's own, and could not be started.
        """
        vm, service = body.vm, self._service
        with (
            service.noticed(),
            service.table.operation(vm, "settle", correlation_id),
            service.timelines.recording(vm, "settle", correlation_id) as recorder,
        ):
            recorder.step("take over")
            with as_errors(f"take over vm {vm}"):
                own = self._take_over(vm, body.move)
            service.converge(vm, "settle", lambda node: prepare(own.spec, node), recorder)

    def drop(self, body: MoveStep, correlation_id: str) -> None:
        """Remove what came of a VM that stays where it was; done already, nothing.

        Raises:
            Refusal: it did not come by this move, or is this node's own by now.
        """
        vm, service = body.vm, self._service
        with service.noticed(), service.table.operation(vm, "drop", correlation_id):
            sidecar = read_sidecar(service.paths.vm(vm).sidecar)
            if sidecar is not None:
                policy.check_drop(sidecar, body.move)
                self._close(vm)
                with as_errors(f"remove what came of vm {vm}"):
                    remove_folder(service.paths, vm)
                service.timelines.forget(vm)

    def view(self, sidecar: Sidecar, known: MoveView) -> MoveView:
        """How far a VM is that is arriving.

        Args:
            sidecar: of the VM.
            known: what its sidecar alone says.
        """
        door = self._doors.get(known.vm)
        if sidecar.phase != "arriving" or door is None or door.move != known.move:
            return known
        with door.lock:
            stage = self._stage(sidecar, door)
            comparing = stage == "verifying" and door.compared is not None
            return known.model_copy(
                update={
                    "stage": stage,
                    "active": True,
                    "bytes_done": door.compared if comparing else door.incoming.done,
                    "bytes_total": door.incoming.total,
                    "problem": problem_of(door.problem) if door.problem is not None else None,
                }
            )

    def _keep_room(self, body: PrepareArrival) -> Sidecar:
        service, offer = self._service, body.offer
        if offer is None:
            raise policy.not_in_move(body.vm, body.move)
        with Backend(service.uri) as backend, service.table.aggregate.held():
            node = service.with_others(body.vm, backend)
            for refusal in policy.arrival_refusals(body.vm, offer, node):
                raise refusal
            sweep_vm(service.paths, body.vm)
            # Once it is there every look counts it; until then the section keeps others waiting.
            return make_folder(
                service.paths,
                Sidecar(
                    uuid=offer.uuid,
                    created=datetime.now(UTC).isoformat(timespec="seconds"),
                    phase="arriving",
                    spec=policy.arriving_spec(body.vm, offer),
                    move=Move(id=body.move, side="destination", peer=body.source),
                ),
            )

    def _voucher(self) -> Voucher:
        from ppn.host.moving.vouching import load_voucher

        # Read anew: a certificate is renewed while the agent runs.
        return load_voucher(self._settings.own())

    def _door(self, vm: str, move: str, source: str) -> Door:
        from ppn.host.moving.box import Receiver

        door = self._doors.get(vm)
        if door is None or door.move != move:
            incoming = Incoming(self._service.paths.vm(vm))
            door = self._doors[vm] = Door(vm, move, source, Receiver(move), incoming)
        return door

    def _known(self, body: Greet | Deliver) -> Door:
        """The door of a move, for its sender alone."""
        door = self._doors.get(body.vm)
        is_sender = (
            door is not None
            and (door.move, door.source) == (body.move, body.source)
            and hmac.compare_digest(door.secret, body.secret)
        )
        if door is None or not is_sender:
            raise Refusal(
                f"node {body.source} may not send vm {body.vm} here",
                code="ticket_refused",
                constraint="secret of the move",
                hint="the controller asks this node for another one",
            )
        return door

    def _sidecar(self, vm: str, move: str) -> Sidecar:
        sidecar = read_sidecar(self._service.paths.vm(vm).sidecar)
        if sidecar is None or sidecar.move is None or sidecar.move.id != move:
            raise policy.not_in_move(vm, move)
        return sidecar

    def _stage(self, sidecar: Sidecar, door: Door) -> Stage:
        stage = policy.stage_of(sidecar)
        return "verifying" if stage == "receiving" and door.compared is not None else stage

    def _check_manifest(self, door: Door) -> None:
        manifest = door.incoming.manifest()
        if manifest is None:
            return
        try:
            policy.check_sent(self._sidecar(door.vm, door.move), manifest.sidecar)
        except Refusal as refusal:
            door.problem = refusal
            raise

    def _check_room(self, door: Door) -> None:
        kept = self._sidecar(door.vm, door.move)
        try:
            check_room(kept, door.incoming.total, self._service.look())
        except Refusal as refusal:
            door.problem = refusal
            raise

    def _verify_whole(self, door: Door) -> None:
        """Compare what has come with what was sent, on a thread of its own; under the lock."""
        # Once: a piece that comes again and again would have the disks read for each.
        settled = door.verified or door.compared is not None or door.problem is not None
        if not settled and door.incoming.is_complete:
            door.compared = 0
            threading.Thread(
                target=self._verify, args=(door,), daemon=True, name=f"verify-{door.vm}"
            ).start()

    def _verify(self, door: Door) -> None:
        try:
            with as_errors(f"verify vm {door.vm}"):
                wrong = door.incoming.damaged(door.compare)
                with door.lock:
                    self._judge(door, wrong)
        except PpnError as error:
            log.error("arriving vm not verified", vm=door.vm, code=error.code, error=str(error))
            door.problem = error
        self._service.on_change()

    def _judge(self, door: Door, wrong: tuple[str, ...]) -> None:
        if door.closed:
            return
        door.compared = None
        if not wrong:
            # It may have come to an agent that was killed before it judged it.
            self._check_manifest(door)
            kept = self._sidecar(door.vm, door.move)
            door.incoming.check_disks(kept.spec)
            sidecar = policy.verified(kept, door.move)
            write_sidecar(self._service.paths.vm(door.vm).sidecar, sidecar)
            door.verified = True
            return
        door.damages += 1
        log.warning("disks came damaged", vm=door.vm, disks=wrong, times=door.damages)
        if door.damages >= MOST_DAMAGES:
            door.problem = Refusal(
                f"disk {', '.join(wrong)} of vm {door.vm} came damaged {door.damages} times",
                code="copy_damaged",
                constraint="SHA-256 of the copy",
                hint="look at the disks and the memory of both nodes",
            )
        # A small disk has come again before the lock was had; no further piece would say so.
        self._verify_whole(door)

    def _take_over(self, vm: str, move: str) -> Sidecar:
        service, files = self._service, self._service.paths.vm(vm)
        sidecar = self._sidecar(vm, move)
        if sidecar.phase == "arriving":
            incoming = Incoming(files)
            manifest = incoming.manifest()
            if manifest is None:
                raise policy.unverified(vm)
            own = policy.settled(sidecar, move, manifest.sidecar)
            with service.table.aggregate.held():
                # What was kept for its arrival is kept for its start from here on.
                service.table.reserve(vm, own.spec)
            incoming.place()
            write_sidecar(files.sidecar, own)
            sidecar = own
        self._close(vm)
        shutil.rmtree(files.moving, ignore_errors=True)
        return sidecar

    def _close(self, vm: str) -> None:
        door = self._doors.get(vm)
        if door is not None:
            with door.lock:
                door.closed = True
            del self._doors[vm]
