"""Calls that may never come back."""

from __future__ import annotations

import threading

import pytest

from ppn.host import caller
from ppn.host.caller import Caller, NoAnswer


def test_results_and_errors_come_back() -> None:
    one = Caller(10, (ValueError,))
    assert one.call(lambda: 7) == 7
    with pytest.raises(ValueError, match="x"):
        one.call(lambda: int("x"))
    one.end()


def test_silence_is_given_up_and_holds_few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent libvirt costs a bounded number of threads, and all of them come back."""
    monkeypatch.setattr(Caller, "_silent_ones", threading.BoundedSemaphore(caller.MOST_SILENT))
    answer = threading.Event()
    silent = [Caller(0.01, ()) for _ in range(caller.MOST_SILENT)]
    for one in silent:
        with pytest.raises(NoAnswer):
            one.call(answer.wait)
        # It would only wait behind the first.
        with pytest.raises(NoAnswer):
            one.call(lambda: True)
        one.end()
    with pytest.raises(NoAnswer):
        Caller(10, ())
    names = [thread for thread in threading.enumerate() if thread.name == "caller"]
    answer.set()
    for thread in names:
        thread.join(timeout=60)
    again = Caller(10, ())
    assert again.call(lambda: True)
    again.end()
