"""Two processes at one journal, one of which is killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ppn.audit.journal import NAME, Journal
from tests.unit.audit.samples import SIGNER, encoded


class Killed(BaseException):
    """Stands for a kill: nothing is cleaned up after it."""


def test_what_a_killed_process_wrote_is_durable_before_another_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TEN-12: or a power failure could tear the batch in the midst, which is no torn tail."""
    one, other = (Journal(tmp_path / NAME, SIGNER) for _ in range(2))
    one.open()
    other.open()
    sizes: list[int] = []

    def killed(_: int) -> None:
        raise Killed

    def noted(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fdatasync", killed)
    with pytest.raises(Killed):
        one.append(encoded(1))
    left = (tmp_path / NAME).stat().st_size
    monkeypatch.setattr(os, "fdatasync", noted)
    assert other.append(encoded(1)) == 1
    assert sizes == [left, other.at.end] and left < other.at.end
    one.close()
    other.close()
