"""A destination's agent is believed, and nobody on the way to it."""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ppn.errors import PpnError
from ppn.host.moving.box import Receiver
from ppn.host.moving.vouching import check_vouched, load_voucher
from ppn.pool.tls import TlsFiles
from ppn.wire.moving import MANIFEST, Greeting
from tests.unit.moving.certified import authority, certified
from tests.unit.moving.world import MOVE, VM

SAID = Greeting(key=Receiver(MOVE).key, have={"root": 7, MANIFEST: 3}, stage="receiving")


def forged(greeting: Greeting, trust: Path, **said: str) -> str:
    """Why a greeting of node b to node a is not believed; empty when it is."""
    words = {"vm": VM, "move": MOVE, "source": "a", "node": "b"} | said
    try:
        check_vouched(greeting, trust=trust, **words)
    except PpnError as error:
        assert error.code == "greeting_forged"
        return error.message
    return ""


def said_by(files: TlsFiles) -> Greeting:
    """A greeting as whoever has those files signs it."""
    return load_voucher(files).vouch(SAID, VM, MOVE, "a")


def test_an_agent_is_believed(tmp_path: Path) -> None:
    """INV-04: also after its words were taken apart and put together again on the way."""
    files = certified(authority(tmp_path), "b")
    text = said_by(files).model_dump_json()
    assert forged(Greeting.model_validate_json(text), files.trust) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"key": Receiver(MOVE).key},
        {"have": {"root": 8, MANIFEST: 3}},
        {"stage": "verified"},
        {"manifest": "0" * 64},
        {"signature": base64.b64encode(b"x" * 64).decode()},
        {"signature": "!"},
        {"signature": ""},
        {"certificate": ""},
        {"certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
    ],
)
def test_a_changed_word_is_not(tmp_path: Path, change: dict[str, Any]) -> None:
    """INV-04: neither the key that disks are sealed for, nor that all of them were verified."""
    files = certified(authority(tmp_path), "b")
    assert forged(said_by(files).model_copy(update=change), files.trust)


@pytest.mark.parametrize(
    "said", [{"vm": VM[:-1] + "w"}, {"move": "b" * 32}, {"source": "c"}, {"node": "c"}]
)
def test_what_was_said_of_another_move_is_not(tmp_path: Path, said: dict[str, str]) -> None:
    files = certified(authority(tmp_path), "b")
    assert forged(said_by(files), files.trust, **said)


@pytest.mark.parametrize("roles", [("hypervisor",), ("hypervisor", "vm-receiver"), ("controller",)])
def test_the_node_proxy_and_controllers_are_not_believed(
    tmp_path: Path, roles: tuple[str, ...]
) -> None:
    """INV-04: they have keys that the pool's authority certified, and not for this."""
    files = certified(authority(tmp_path), "b", *roles, stem="node")
    assert "not that node's agent's" in forged(said_by(files), files.trust)


def test_another_pools_agent_and_an_old_certificate_are_not(tmp_path: Path) -> None:
    ca, other = authority(tmp_path), authority(tmp_path, "other")
    assert "not of this pool" in forged(said_by(certified(other, "b")), ca.with_suffix(".crt"))
    for ago in (timedelta(days=400), timedelta(days=-2)):
        files = certified(ca, "b", ago=ago, stem=f"{ago.days}")
        assert "not in force" in forged(said_by(files), files.trust)


def test_a_key_that_others_can_read_vouches_for_nothing(tmp_path: Path) -> None:
    """INV-04: nor one without its certificate."""
    ca = authority(tmp_path)
    files, other = certified(ca, "b"), certified(ca, "b", stem="other")
    with pytest.raises(PpnError) as caught:
        load_voucher(replace(files, certificate=other.certificate))
    assert caught.value.code == "certificate_mismatch"
    os.chmod(files.key, 0o640)
    with pytest.raises(PpnError):
        load_voucher(files)
