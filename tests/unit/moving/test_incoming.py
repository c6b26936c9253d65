"""What comes is kept in order, found again after a kill, and compared before it counts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import PpnError, Refusal
from ppn.host.moving.copies import Copy, Manifest, copy_path
from ppn.host.moving.incoming import Incoming
from ppn.host.paths import VmPaths
from ppn.wire.moving import MANIFEST
from tests.examples import examples
from tests.unit.moving.test_policy import source

ROOT, KEEP = b"r" * 1000, b"k" * 300
FILES = {"root": ROOT, "keep": KEEP}
SENT = Manifest(
    sidecar=source("moving"),
    copies=tuple(
        Copy(disk=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in FILES.items()
    ),
)
TEXT = SENT.model_dump_json().encode()


@pytest.fixture
def files(tmp_path: Path) -> VmPaths:
    """An arriving VM's files."""
    return VmPaths(tmp_path)


def deliver(incoming: Incoming, file: str, content: bytes, size: int = 256) -> None:
    """Send all that has not come of a file."""
    while (have := incoming.have().get(file, 0)) < len(content):
        incoming.number(file, have, len(content))
        incoming.write(file, have, len(content), content[have : have + size])


def test_all_comes_and_takes_its_place(files: VmPaths) -> None:
    """MIG-01: the manifest first, for it says what else is to come."""
    incoming = Incoming(files)
    assert incoming.have() == {MANIFEST: 0} and incoming.total == 0
    with pytest.raises(Refusal):
        incoming.number("root", 0, len(ROOT))
    deliver(incoming, MANIFEST, TEXT)
    assert incoming.manifest() == SENT
    for name, content in FILES.items():
        # Another agent goes on where an earlier one was killed.
        deliver(Incoming(files), name, content)
    assert incoming.is_complete
    assert incoming.done == incoming.total == 1300
    assert incoming.damaged(lambda done: None) == ()
    for _ in range(2):
        incoming.place()
        assert files.root_disk.read_bytes() == ROOT and files.disk("keep").read_bytes() == KEEP


@examples(0.5)
@given(pieces=st.lists(st.tuples(st.integers(0, 1100), st.integers(1, 400)), max_size=12))
def test_no_piece_leaves_a_hole(
    pieces: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """MIG-01: whatever order they come in, and however often, a file is a beginning of what was
    sent."""
    files = VmPaths(tmp_path_factory.mktemp("vm"))
    incoming = Incoming(files)
    deliver(incoming, MANIFEST, TEXT)
    content = bytes(range(250)) * 4
    for offset, size in pieces:
        have = incoming.have()["root"]
        try:
            incoming.number("root", offset, len(content))
            incoming.write("root", offset, len(content), content[offset : offset + size])
        except Refusal as refusal:
            assert refusal.code == "chunk_out_of_place" and offset > have
    path = copy_path(files, "root")
    came = path.read_bytes() if path.exists() else b""
    assert content.startswith(came) and incoming.have()["root"] == len(came)


def test_a_damaged_disk_has_to_come_again(files: VmPaths) -> None:
    """MIG-01: and that one alone."""
    incoming = Incoming(files)
    deliver(incoming, MANIFEST, TEXT)
    deliver(incoming, "root", b"x" + ROOT[1:])
    deliver(incoming, "keep", KEEP)
    assert incoming.damaged(lambda done: None) == ("root",)
    assert incoming.have()["root"] == 0 and incoming.have()["keep"] == len(KEEP)


def test_what_is_not_to_come_is_refused(files: VmPaths) -> None:
    """MIG-02: other files, other lengths, a manifest without end, and one that is none."""
    incoming = Incoming(files)
    with pytest.raises(Refusal):
        incoming.number(MANIFEST, 0, 1 << 40)
    with pytest.raises(PpnError) as caught:
        deliver(incoming, MANIFEST, b"{}")
    assert caught.value.code == "manifest_damaged" and incoming.have() == {MANIFEST: 0}
    deliver(incoming, MANIFEST, TEXT)
    for file, total in (("other", 10), ("root", 999), ("keep", 301)):
        with pytest.raises(Refusal):
            incoming.number(file, 0, total)
    with pytest.raises(Refusal):
        incoming.write("keep", 200, 300, b"k" * 101)
