"""A destination is not trusted with the source's memory, nor with its time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ppn.errors import PpnError
from ppn.host.moving import sending
from ppn.host.moving.sending import Line, Target
from ppn.pool.tls import Identity, TlsFiles
from tests.unit.moving.world import MOVE, VM

TARGET = Target(VM, MOVE, "b", "10.8.0.3", 9204, "s" * 43, "test")


class Endless(httpx.SyncByteStream):
    """An answer that never ends.

    Args:
        pause: seconds between two pieces.
    """

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.taken = 0

    def __iter__(self) -> Iterator[bytes]:
        while self.taken < 1024:
            time.sleep(self.pause)
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


def line(stream: Endless, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A line to a node that answers so."""

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=stream, extensions={"network_stream": Shown()})

    def transport(**_: Any) -> httpx.MockTransport:
        return httpx.MockTransport(answer)

    monkeypatch.setattr("httpx.HTTPTransport", transport)
    monkeypatch.setattr(sending, "client_context", lambda _: None)
    shown = Identity("b", frozenset(), frozenset(), 0.0)
    monkeypatch.setattr(sending, "identity_of", lambda _: shown)
    return Line(TARGET, "a", TlsFiles(Path(), Path(), Path()), None)


@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_an_answer_without_end_is_not_read(pause: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """MIG-01: it would fill the agent's memory, or keep the VM from being called back."""
    monkeypatch.setattr(sending, "CALL_SECONDS", 0.2)
    stream = Endless(pause)
    with pytest.raises(PpnError) as caught:
        line(stream, monkeypatch).greet()
    assert caught.value.code == "destination_unreachable" and stream.taken < 100
