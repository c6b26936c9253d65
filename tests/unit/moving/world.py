"""Two nodes, two controllers and what is on its way between them, with the real decisions in all.

The nodes keep sidecars and do to them what `ppn.host.moving.policy` says, one durable write at a
time; the controllers choose with `ppn.fleet.moving.policy`. Orders come late, twice or never, looks
are old when they are acted upon, and anybody may be killed between any two steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ppn.errors import Refusal
from ppn.fleet.moving.policy import Next, Will, decide, side_of
from ppn.host.moving import policy
from ppn.host.sidecar import Move, Sidecar
from ppn.wire.moving import MoveView, Stage
from tests.unit.host.builders import UUID, make_spec

VM = "vm-odh2cxdxox2xydov"
MOVE = "a" * 32
PARTS = 2
SPEC = make_spec(name=VM, address="10.9.1.4")
CREATED = "2026-01-01T00:00:00+00:00"


@dataclass
class Host:
    """One node: what is on its disk, and what its agent remembers.

    Args:
        sidecar: None for no folder of that VM.
        data: pieces of the VM's data that are on disk; PARTS of them are all.
        runs: QEMU runs; it outlives the agent.
        stage: of the source's job, in the agent's memory.
        active: the job works.
        door: the destination's door is open.
    """

    name: str
    sidecar: Sidecar | None = None
    data: int = 0
    runs: bool = False
    stage: Stage | None = None
    active: bool = False
    door: bool = False

    @property
    def can_run(self) -> bool:
        return policy.can_run(self.sidecar)

    def crash(self) -> None:
        """The agent is killed; the disk and QEMU stay."""
        self.stage, self.active, self.door = None, False, False

    def reboot(self) -> None:
        """The node boots: its agent starts what may run and shall run, as recovery does."""
        self.crash()
        self.runs = False
        if self.sidecar is not None and self.sidecar.phase == "ready":
            self.runs = self.sidecar.spec.state == "running"

    def view(self) -> MoveView:
        """What it says of the move."""
        move = self.sidecar.move if self.sidecar is not None else None
        stage = policy.stage_of(self.sidecar)
        active = self.door if stage in ("receiving", "verified") else self.active
        if stage == "stopping" and self.stage is not None:
            stage = self.stage
        return MoveView(
            vm=VM,
            stage=stage,
            move=move.id if move is not None else "",
            active=active,
            settled=self.runs,
        )

    def own(self) -> Sidecar:
        if self.sidecar is None:
            raise policy.not_in_move(VM, MOVE)
        return self.sidecar


# Each yields after every durable step: there its agent may be killed.
Work = Iterator[None]


def prepare(there: Host, first: bool) -> Work:
    """Keep room and open the door."""
    if there.sidecar is None:
        if not first:
            raise policy.not_in_move(VM, MOVE)
        there.sidecar = Sidecar(
            uuid=UUID,
            created=CREATED,
            phase="arriving",
            spec=SPEC.model_copy(update={"address": None}),
            move=Move(id=MOVE, side="destination", peer="a"),
        )
        there.data = 0
    elif there.sidecar.move is None or there.sidecar.move.id != MOVE:
        raise policy.exists(VM)
    there.door = True
    yield


def depart(here: Host, there: Host) -> Work:
    """Begin, or go on."""
    if here.active:
        return
    here.sidecar = policy.departing(here.own(), MOVE, there.name)
    yield
    if here.sidecar.phase != "moving":
        return
    here.stage, here.active = "stopping", True
    # The thread of the agent: it ends with it.
    while here.active:
        if not sends(here, there):
            return
        yield


def sends(here: Host, there: Host) -> bool:
    """One step of the source's job; False when it has ended."""
    if here.sidecar is None or here.sidecar.phase != "moving":
        return False
    if here.runs:
        here.runs = False
    elif here.stage == "stopping":
        here.stage = "sending"
    elif there.sidecar is not None and there.sidecar.phase == "arriving" and there.door:
        if there.data < PARTS:
            there.data += 1
        elif there.sidecar.move is not None and there.sidecar.move.verified:
            here.stage, here.active = "sent", False
        else:
            there.sidecar = policy.verified(there.sidecar, MOVE)
    else:
        here.active = False
    return here.active


def commit(here: Host) -> Work:
    """Give up."""
    given_up = policy.committed(here.own(), MOVE)
    if given_up != here.sidecar and here.stage != "sent":
        raise policy.unverified(VM)
    here.sidecar = given_up
    yield


def back(here: Host) -> Work:
    """Keep it."""
    here.active = False
    was_away = policy.stage_of(here.own()) != "here"
    here.sidecar = policy.called_back(here.own(), MOVE)
    here.stage = None
    yield
    if was_away:
        here.runs = True
    yield


def release(here: Host) -> Work:
    """Remove what is left."""
    if here.sidecar is not None:
        policy.check_release(here.sidecar, MOVE)
        here.sidecar, here.data = None, 0
    yield


def reclaim(here: Host) -> Work:
    """Have it again."""
    here.sidecar = policy.reclaimed(here.own(), MOVE)
    yield
    here.runs = True
    yield


def settle(there: Host, sent: Sidecar) -> Work:
    """Take over."""
    there.sidecar = policy.settled(there.own(), MOVE, sent)
    yield
    there.runs = True
    yield


def drop(there: Host) -> Work:
    """Remove what came."""
    if there.sidecar is not None:
        policy.check_drop(there.sidecar, MOVE)
        there.sidecar, there.data, there.door = None, 0, False
    yield


@dataclass
class Controller:
    """Looks, and orders what it thinks is next; it remembers its will alone."""

    will: Will = field(default_factory=Will)
    seen: tuple[MoveView, MoveView] | None = None


@dataclass
class World:
    """Everything, and every order that may still arrive.

    Args:
        rid: another hand than a controller's removed the VM at one node.
    """

    here: Host
    there: Host
    controllers: tuple[Controller, Controller]
    sent: Sidecar
    orders: list[Next] = field(default_factory=list)
    sent_before: list[Next] = field(default_factory=list)
    going: list[tuple[Host, Work]] = field(default_factory=list)
    rid: bool = False

    def look(self, controller: Controller) -> None:
        """A controller asks both nodes."""
        controller.seen = self.here.view(), self.there.view()
        if side_of(controller.seen[1], MOVE).stage == "settled":
            controller.will = Will(controller.will.back, controller.will.rest, True)

    def chosen(self, controller: Controller) -> Next:
        """What a controller thinks is next, by what it saw."""
        if controller.seen is None:
            return Next.WAIT
        source, destination = (side_of(view, MOVE) for view in controller.seen)
        return decide(source, destination, controller.will)

    def order(self, controller: Controller) -> None:
        """A controller sends what it thinks is next; when it arrives is another matter."""
        chosen = self.chosen(controller)
        self.orders.append(chosen)
        if chosen not in self.sent_before:
            self.sent_before.append(chosen)

    def arrive(self, chosen: Next) -> None:
        """An order arrives."""
        for host, work in self.works(chosen):
            self.begin(host, work)

    def works(self, chosen: Next) -> list[tuple[Host, Work]]:
        """What an order has its node do."""
        here, there = self.here, self.there
        match chosen:
            case Next.PREPARE:
                return [(there, prepare(there, True))]
            case Next.DEPART:
                return [(there, prepare(there, False)), (here, depart(here, there))]
            case Next.COMMIT:
                return [(here, commit(here))]
            case Next.BACK:
                return [(here, back(here))]
            case Next.RELEASE:
                return [(here, release(here))]
            case Next.RECLAIM:
                return [(here, reclaim(here))]
            case Next.SETTLE:
                return [(there, settle(there, self.sent))]
            case Next.DROP:
                return [(there, drop(there))]
            case _:
                return []

    def begin(self, host: Host, work: Work) -> None:
        """A node begins with an order; it does one thing at a time, its sending beside it."""
        busy = [one for one in self.going if one[0] is host]
        if busy and not host.active:
            return
        self.going.append((host, work))
        self.step(len(self.going) - 1)

    def step(self, at: int) -> None:
        """A node takes one step of what it is at."""
        host, work = self.going[at]
        try:
            next(work)
        except (StopIteration, Refusal):
            self.going.remove((host, work))

    def kill(self, host: Host, *, boots: bool) -> None:
        """An agent is killed, or its whole node boots."""
        self.going = [one for one in self.going if one[0] is not host]
        if boots:
            host.reboot()
        else:
            host.crash()

    def check(self) -> None:
        """What must hold at every moment (MIG-01)."""
        assert not (self.here.can_run and self.there.can_run), "both nodes can run it"
        for host in (self.here, self.there):
            moving = host.sidecar is not None and host.sidecar.phase == "moving"
            assert not host.runs or host.can_run or moving, f"{host.name} runs what it must not"
        assert not (self.here.runs and self.there.runs), "it runs twice"
        verified = self.there.sidecar is not None and (
            self.there.can_run or policy.stage_of(self.there.sidecar) == "verified"
        )
        assert not verified or self.there.data == PARTS, "it was verified without its data"
        assert self.rid or self.here.data == PARTS or verified, "its data are nowhere"


def new_world(first: Will, second: Will) -> World:
    """A VM that runs on the source, and two controllers, both of which know of the move."""
    sidecar = Sidecar(uuid=UUID, created=CREATED, phase="ready", spec=SPEC, order="o")
    here = Host("a", sidecar, PARTS, runs=True)
    return World(here, Host("b"), (Controller(first), Controller(second)), sidecar)
