"""What a destination's agent takes in before anybody may give the VM up for it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ppn.errors import PpnError, Refusal
from ppn.host.agent.service import Service
from ppn.host.agent.settings import AgentSettings
from ppn.host.model import NodeState
from ppn.host.moving.box import Piece, Sender
from ppn.host.moving.copies import Copy, Manifest
from ppn.host.moving.incoming import Incoming
from ppn.host.moving.vouching import check_vouched
from ppn.host.paths import Paths
from ppn.host.sidecar import Sidecar, write_sidecar
from ppn.wire.moving import MANIFEST, Deliver, Greet, Greeting, MoveView, PrepareArrival, ShowMove
from tests.unit.host.builders import make_node
from tests.unit.moving.certified import authority, certified
from tests.unit.moving.test_policy import destination, source
from tests.unit.moving.world import MOVE, VM

NOWHERE = "qemu+unix:///system?socket=/nowhere"


def qcow2(*, gib: int = 1, backing: int = 0, features: int = 0) -> bytes:
    """The header of a disk, with the file it names as its base."""
    fields = ((3, 4), (backing, 8), (11, 4), (16, 4), (gib << 30, 8), (0, 40), (features, 8))
    header = b"QFI\xfb" + b"".join(value.to_bytes(size, "big") for value, size in fields)
    return header.ljust(512, b"\0") + b"/etc/shadow".ljust(512, b"\0")


class Roomy(Service):
    """An agent whose node has room for everything; it has no libvirt to look through."""

    def look(self) -> NodeState:
        """The node as it is."""
        return make_node()


class Source:
    """Stands for the agent of the node the VM comes from, in front of a real destination.

    Args:
        folder: the destination's files.
        disks: what it sends, by name.
        sent: the sidecar it sends.
    """

    def __init__(self, folder: Path, disks: Mapping[str, bytes], sent: Sidecar) -> None:
        self.paths = Paths(folder)
        self.paths.vm(VM).folder.mkdir(parents=True, exist_ok=True)
        write_sidecar(self.paths.vm(VM).sidecar, destination("arriving"))
        copies = (
            Copy(disk=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            for name, content in disks.items()
        )
        self.manifest = Manifest(sidecar=sent, copies=tuple(copies))
        own = certified(authority(folder), "b")
        self.settings = AgentSettings(
            node="b",
            own_key=str(own.key),
            own_certificate=str(own.certificate),
            trust=str(own.trust),
        )
        self.files = {MANIFEST: self.manifest.model_dump_json().encode(), **disks}
        self.start()

    def start(self) -> None:
        """The destination's agent is killed and starts again; its door is opened anew."""
        self.service = Roomy(
            self.paths, on_change=lambda: None, report=dict, uri=NOWHERE, settings=self.settings
        )
        order = PrepareArrival(vm=VM, move=MOVE, source="a")
        self.secret = str(self.service.do(order, "test")["secret"])
        self.key = ""

    def greeting(self) -> Greeting:
        """What the destination's agent says, and vouches for."""
        greet = Greet(vm=VM, move=MOVE, source="a", secret=self.secret)
        greeting = Greeting.model_validate(self.service.do(greet, "test"), strict=False)
        check_vouched(greeting, VM, MOVE, "a", "b", Path(self.settings.trust))
        return greeting

    def send(self, *names: str) -> None:
        """Send files, each in one piece."""
        self.key = self.key or self.greeting().key
        sender = Sender(MOVE, self.key)
        for name in names:
            content = self.files[name]
            piece = Piece(MOVE, self.manifest.numbers[name], 0, len(content))
            self.service.do(
                Deliver(
                    vm=VM,
                    move=MOVE,
                    source="a",
                    secret=self.secret,
                    file=name,
                    offset=0,
                    total=len(content),
                    sender=sender.key,
                    box=sender.seal(piece, content),
                ),
                "test",
            )

    def outcome(self) -> str:
        """The destination's word once it has one: `verified`, or why it never will be."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            answer = self.service.do(ShowMove(vm=VM), "test")
            view = MoveView.model_validate(answer, strict=False)
            if view.problem is not None:
                return view.problem.code
            if view.stage == "verified":
                return view.stage
            time.sleep(0.01)
        return "nothing"


@pytest.mark.parametrize(
    ("disks", "wanted"),
    [
        ({"root": qcow2()}, "verified"),
        ({"root": qcow2(), "keep": qcow2(gib=9)}, "verified"),
        # A name that a disk may have.
        ({"root": qcow2(), "manifest": qcow2(gib=9)}, "verified"),
        ({"root": qcow2(backing=512)}, "disk_foreign"),
        ({"root": qcow2(), "keep": qcow2(backing=512)}, "disk_foreign"),
        ({"root": qcow2(features=1 << 2)}, "disk_foreign"),
        ({"root": b"\0" * 512}, "disk_foreign"),
        ({"root": qcow2(gib=4096)}, "disk_foreign"),
        ({"keep": qcow2()}, "disk_foreign"),
    ],
)
def test_no_disk_reads_another_file_of_the_node(
    tmp_path: Path, disks: dict[str, bytes], wanted: str
) -> None:
    """MIG-03: a node that sends a disk with a base or a data file would show its guest a file of
    the node it sends it to, another VM's disk for one."""
    sender = Source(tmp_path, disks, source("moving"))
    sender.send(MANIFEST, *disks)
    assert sender.outcome() == wanted


def test_another_vm_than_was_offered_is_never_verified(tmp_path: Path) -> None:
    """MIG-01: also not by an agent that was killed between taking the manifest in and judging it;
    the source would give the VM up, and the destination refuse for ever to make it its own."""
    sent = source("moving")
    other = sent.model_copy(update={"spec": sent.spec.model_copy(update={"memory_mib": 4096})})
    sender = Source(tmp_path, {"root": qcow2()}, other)
    with pytest.raises(Refusal) as caught:
        sender.send(MANIFEST)
    assert caught.value.code == "offer_differs"
    sender.start()
    sender.send("root")
    assert sender.outcome() == "offer_differs"


def test_a_disk_that_came_again_at_once_is_compared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MIG-01: between its removal and the verdict; nothing else would ever be said of it."""
    damaged, times = Incoming.damaged, [0]

    def once(incoming: Incoming, on_bytes: Callable[[int], None]) -> tuple[str, ...]:
        times[0] += 1
        return ("root",) if times[0] == 1 else damaged(incoming, on_bytes)

    monkeypatch.setattr(Incoming, "damaged", once)
    sender = Source(tmp_path, {"root": qcow2()}, source("moving"))
    sender.send(MANIFEST, "root")
    assert sender.outcome() == "verified"


def test_more_than_there_is_room_for_is_refused_before_it_comes(tmp_path: Path) -> None:
    """MIG-02: whatever the source was offered to send."""
    sender = Source(tmp_path, {"root": qcow2()}, source("moving"))
    large = sender.manifest.copies[0].model_copy(update={"bytes": 1 << 50})
    manifest = sender.manifest.model_copy(update={"copies": (large,)})
    sender.files[MANIFEST] = manifest.model_dump_json().encode()
    with pytest.raises(Refusal) as caught:
        sender.send(MANIFEST)
    assert caught.value.code == sender.outcome() == "disk_exhausted"


def test_a_late_order_opens_no_door_to_a_vm_that_has_settled(tmp_path: Path) -> None:
    """MIG-01: its source could fill the node's disk through it for as long as the agent runs."""
    sender = Source(tmp_path, {"root": qcow2()}, source("moving"))
    files = sender.paths.vm(VM)
    files.moving.rmdir()
    write_sidecar(files.sidecar, destination("ready"))
    with pytest.raises(Refusal) as caught:
        sender.start()
    assert caught.value.code == "vm_exists" and not files.moving.exists()


def test_a_piece_that_comes_again_has_nothing_compared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MIG-01: a hostile source would keep the node reading its disks for as long as it likes."""
    times, damaged = [0], Incoming.damaged

    def counted(incoming: Incoming, on_bytes: Callable[[int], None]) -> tuple[str, ...]:
        times[0] += 1
        return damaged(incoming, on_bytes)

    monkeypatch.setattr(Incoming, "damaged", counted)
    sender = Source(tmp_path, {"root": qcow2()}, source("moving"))
    sender.send(MANIFEST, "root")
    assert sender.outcome() == "verified"
    for _ in range(5):
        sender.send("root")
        assert sender.outcome() == "verified"
    assert times == [1]


def test_nothing_more_is_taken_in_once_it_is_given_up(tmp_path: Path) -> None:
    """MIG-01: a source that sends damaged disks three times is not listened to for ever."""
    sender = Source(tmp_path, {"root": qcow2()}, source("moving"))
    sender.send(MANIFEST)
    sender.files["root"] = qcow2()[:-1] + b"x"
    door = sender.service.moves._arrivals._doors[VM]
    with pytest.raises(PpnError) as caught:
        while True:
            with door.lock:
                compares = door.incoming.is_complete and not door.problem
            if not compares:
                sender.send("root")
            time.sleep(0.01)
    assert caught.value.code == sender.outcome() == "copy_damaged"


def test_the_manifest_that_is_verified_is_the_one_that_was_sent(tmp_path: Path) -> None:
    """MIG-01: the source gives its VM up for that one alone."""
    sender = Source(tmp_path, {"root": qcow2()}, source("moving"))
    assert sender.greeting().manifest == ""
    sender.send(MANIFEST, "root")
    assert sender.outcome() == "verified"
    assert sender.greeting().manifest == hashlib.sha256(sender.files[MANIFEST]).hexdigest()


def test_a_node_that_cannot_vouch_takes_no_vm_in(tmp_path: Path) -> None:
    """INV-04: said before the VM is stopped at its source."""
    sender = Source(tmp_path, {"root": qcow2()}, source("moving"))
    Path(sender.settings.own_certificate).unlink()
    with pytest.raises(PpnError) as caught:
        sender.start()
    assert caught.value.code == "certificate_missing"
