"""What is read from the command line and from shells, and what is printed again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from ppn.cli import completion, orders
from ppn.cli.output import print_error, working
from ppn.cli.target import Target
from ppn.cli.watching import end_of
from ppn.errors import PpnError, Refusal


def test_disks_and_ports() -> None:
    assert orders.disk_of("data:20") == {"name": "data", "size_gib": 20}
    assert orders.port_of("80") == {"guest": 80, "protocol": "tcp"}
    assert orders.port_of("30053:53/udp") == {"guest": 53, "protocol": "udp", "host": 30053}


@pytest.mark.parametrize("text", ["", "data", "data:", ":1", "a:1:2", "data:1.5", "data:-1"])
def test_what_is_no_disk_is_a_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        orders.disk_of(text)


@pytest.mark.parametrize("text", ["", "http", "80/icmp", "1:2:3", "-1", "80:"])
def test_what_is_no_port_is_a_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        orders.port_of(text)


def test_user_data_is_a_json_object(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text('#cloud-config\n{"runcmd": ["true"]}')
    assert orders.user_data_of(file) == {"runcmd": ["true"]}
    for content in ("runcmd: [true]", "[]", '"x"', ""):
        file.write_text(content)
        with pytest.raises(PpnError) as caught:
            orders.user_data_of(file)
        assert caught.value.code == "user_data_invalid"


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=50))
def test_following_a_console_repeats_and_loses_nothing(before: bytes, after: bytes) -> None:
    """However a guest's bytes are cut, what is new is shown once."""
    # A character that is cut in two by the border is no longer one byte for one.
    before = before.decode("ascii", errors="ignore").encode()
    text = (before + after).decode(errors="replace")
    found = end_of(text, len(after))
    if after.isascii():
        assert found == after.decode()
    assert len(found) <= len(after)


class Recorded(Target):
    """A target that notes what it is asked and answers as it is told."""

    def __init__(self, answer: Any, is_proxy: bool = False) -> None:
        super().__init__("http://127.0.0.1:1", is_proxy)
        object.__setattr__(self, "answer", answer)
        object.__setattr__(self, "asked", [])

    def ask(self, method: str, path: str, **given: Any) -> Any:
        """Note it, and answer."""
        asked: list[Any] = self.__dict__["asked"]
        asked.append((method, path, given))
        answer = self.__dict__["answer"]
        if isinstance(answer, BaseException):
            raise answer
        return answer


def test_an_order_always_has_a_key() -> None:
    """OPS-04: an answer that was lost costs a repetition, never a second VM."""
    lost = Recorded(PpnError("lost", code="controller_unreachable"))
    with pytest.raises(PpnError) as caught:
        orders.send(lost, {"image": "tiny", "name": None}, None, None)
    method, path, given = lost.__dict__["asked"][0]
    assert (method, path) == ("POST", "/vms")
    assert given["body"] == {"image": "tiny", "owner": "operator"}
    assert f"--key {given['headers']['Idempotency-Key']}" in caught.value.hint


@pytest.mark.parametrize(
    "why",
    [
        KeyboardInterrupt(),
        PpnError("lost", code="outcome_unknown"),
        Refusal("ask again", code="vm_undecided", constraint="c", hint="ask again"),
    ],
)
def test_what_may_be_made_all_the_same_is_repeated_with_its_key(why: BaseException) -> None:
    """OPS-04: of a batch too, and where whoever typed it did not wait."""
    ways: tuple[Callable[[Target], Any], ...] = (
        lambda target: orders.send(target, {"image": "tiny"}, None, None),
        lambda target: orders.send_batch(target, "[{}]", False, None),
    )
    for order in ways:
        target = Recorded(why)
        with pytest.raises(PpnError) as caught:
            order(target)
        key = target.__dict__["asked"][0][2]["headers"]["Idempotency-Key"]
        assert caught.value.hint == f"order it again with --key {key}: it is made once"


def test_a_refused_order_says_how_to_find_out_why() -> None:
    """CLI-04."""
    refused = Recorded(Refusal("full", code="no_capacity", constraint="c", hint="ask for less"))
    with pytest.raises(Refusal) as caught:
        orders.send(refused, {"image": "tiny"}, "acme", "key-1")
    assert caught.value.hint == "ask for less; ppn debug vm vm-eknocrt7l342zcuj"


def test_a_tenant_proxy_knows_the_owner_from_the_token() -> None:
    proxy = Recorded({"id": "x"}, is_proxy=True)
    with pytest.raises(typer.BadParameter):
        orders.send(proxy, {"image": "tiny"}, "acme", None)
    orders.send(proxy, {"image": "tiny"}, None, None)
    assert "owner" not in proxy.__dict__["asked"][0][2]["body"]
    with pytest.raises(typer.BadParameter):
        orders.send_batch(proxy, "[]", False, None)


@pytest.mark.parametrize("text", ["", "{", "3", '{"vms": 3}'])
def test_a_batch_is_an_array_of_orders(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        orders.send_batch(Recorded({}), text, False, None)


def test_a_shell_gets_the_group_it_asks_about() -> None:
    bash = {"_PPN_COMPLETE": "complete_bash", "COMP_WORDS": "ppn vm show vm-"}
    zsh = {"_PPN_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "ppn node show "}
    assert completion.typed_words(bash) == ["vm", "show", "vm-"]
    assert completion.typed_words(zsh) == ["node", "show"]
    assert completion.typed_words({"COMP_WORDS": "ppn vm"}) == []


def test_errors_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    error = Refusal("full", code="c", constraint="room", wanted=2, free=1, unit="MiB", hint="less")
    error.correlation_id = "abcdef12"
    print_error(error, as_json=False)
    assert capsys.readouterr().err == (
        "ppn: full [room: wanted 2, free 1 MiB] (c): less\nppn: correlation id abcdef12\n"
    )
    print_error(error, as_json=True)
    found = json.loads(capsys.readouterr().err)["error"]
    assert (found["code"], found["wanted"], found["correlation_id"]) == ("c", 2, "abcdef12")


def test_progress_is_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    with working("at work"):
        pass
    assert capsys.readouterr() == ("", "")
