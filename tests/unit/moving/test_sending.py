"""A destination is not trusted with the source's memory, nor with its time."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from ppn.errors import PpnError
from ppn.host.moving import sending
from ppn.host.moving.box import Receiver
from ppn.host.moving.copies import Manifest, manifest_path
from ppn.host.moving.sending import Line, Sending, Target
from ppn.host.paths import VmPaths
from ppn.pool.tls import Identity, TlsFiles
from ppn.wire.moving import Greeting
from tests.unit.moving.certified import authority
from tests.unit.moving.test_policy import source
from tests.unit.moving.world import MOVE, VM

NOWHERE = Path()
TARGET = Target(VM, MOVE, "b", "10.8.0.3", 9204, "s" * 43, "test")


class Endless(httpx.AsyncByteStream):
    """An answer that never ends.

    Args:
        pause: seconds between two pieces.
    """

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.taken < 1024:
            await asyncio.sleep(self.pause)
            self.taken += 1
            yield b" " * (1024 if not self.pause else 1)


class Shown:
    """Stands for a TLS connection to node b."""

    def get_extra_info(self, _: str) -> Any:
        """Itself."""
        return self

    def getpeercert(self) -> dict[str, Any]:
        """Read by nobody here."""
        return {}


def line(
    answer: Any, monkeypatch: pytest.MonkeyPatch, trust: Path = NOWHERE, seconds: float = 60.0
) -> Line:
    """A line to a node that answers so, and is given so long."""

    def transport(**_: Any) -> httpx.MockTransport:
        return httpx.MockTransport(answer)

    monkeypatch.setattr("httpx.AsyncHTTPTransport", transport)
    monkeypatch.setattr(sending, "client_context", lambda _: None)
    monkeypatch.setattr(sending, "CALL_SECONDS", seconds)
    shown = Identity("b", frozenset({"hypervisor"}), frozenset(), 0.0)
    monkeypatch.setattr(sending, "identity_of", lambda _: shown)
    return Line(TARGET, "a", TlsFiles(NOWHERE, NOWHERE, trust), None)


def refused(answer: Any, monkeypatch: pytest.MonkeyPatch, seconds: float) -> PpnError:
    """Why a node that answers so cannot be sent to."""
    with (
        closing(line(answer, monkeypatch, seconds=seconds)) as made,
        pytest.raises(PpnError) as caught,
    ):
        made.greet()
    assert caught.value.code == "destination_unreachable"
    return caught.value


@pytest.mark.parametrize(
    ("pause", "seconds", "why"), [(0.0, 60.0, "more than"), (0.05, 0.2, "no whole answer")]
)
def test_an_answer_without_end_is_not_read(
    pause: float, seconds: float, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MIG-01: it would fill the agent's memory, or keep the VM from being called back."""
    stream = Endless(pause)

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=stream, extensions={"network_stream": Shown()})

    assert why in refused(answer, monkeypatch, seconds).message
    assert stream.taken < 100


def test_an_answer_that_never_begins_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """MIG-01: headers that come a byte at a time keep every time-out between two of them."""

    async def answer(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(30)
        raise AssertionError("it was waited for")

    assert "no whole answer" in refused(answer, monkeypatch, 0.2).message


@pytest.mark.fault(
    "the destination's node proxy is taken over and puts its own key in the agent's place",
    "no piece is sent, and the VM runs on where it was",
)
def test_a_greeting_that_nobody_vouches_for_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-04: a node proxy that was taken over would have the disks sealed for a key of its own."""
    trust = authority(tmp_path).with_suffix(".crt")
    mine = Greeting(key=Receiver(MOVE).key, have={}, stage="receiving")

    def answer(_: httpx.Request) -> httpx.Response:
        content = mine.model_dump_json().encode()
        return httpx.Response(
            200, stream=httpx.ByteStream(content), extensions={"network_stream": Shown()}
        )

    with (
        closing(line(answer, monkeypatch, trust)) as made,
        pytest.raises(PpnError) as caught,
    ):
        made.greet()
    assert caught.value.code == "greeting_forged"


def test_a_vm_is_not_given_up_for_another_one(tmp_path: Path) -> None:
    """MIG-01: what the destination has verified is what was sent from here."""
    files = VmPaths(tmp_path)
    files.moving.mkdir()
    manifest = Manifest(sidecar=source("moving"), copies=())
    manifest_path(files).write_text(manifest.model_dump_json())
    sent = hashlib.sha256(manifest_path(files).read_bytes()).hexdigest()

    def end(digest: str) -> None:
        said = Greeting(key=Receiver(MOVE).key, have={}, stage="verified", manifest=digest)
        stand_in = cast(Line, SimpleNamespace(greet=lambda: said))
        Sending(stand_in, TARGET, files, manifest, lambda _: None, lambda: None).run()

    end(sent)
    for digest in ("0" * 64, ""):
        with pytest.raises(PpnError) as caught:
            end(digest)
        assert caught.value.code == "copy_foreign"
