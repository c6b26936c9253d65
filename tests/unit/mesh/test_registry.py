"""The peer registry: stable text, first key recorded, another key refused."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import Refusal
from ppn.mesh.registry import (
    KeyInvalid,
    Registry,
    RegistryDamaged,
    load,
    parse,
    record,
    render,
)
from tests.unit.mesh.pools import key_of


def test_missing_file_is_an_empty_registry(tmp_path: Path) -> None:
    assert load(tmp_path / "peers.json") == Registry()


def test_first_key_is_recorded_and_the_second_time_nothing_changes(tmp_path: Path) -> None:
    """MESH-04: the registry holds what every node will know of its peers."""
    path = tmp_path / "pool" / "peers.json"
    assert record(path, "server", key_of("server"))
    assert record(path, "relay", key_of("relay"))
    text = path.read_text()
    assert text == f'{{\n  "relay": "{key_of("relay")}",\n  "server": "{key_of("server")}"\n}}\n'
    assert not record(path, "server", key_of("server"))
    assert path.read_text() == text
    assert [one.name for one in path.parent.iterdir()] == ["peers.json"]


def test_another_key_for_a_known_node_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    record(path, "server", key_of("server"))
    with pytest.raises(Refusal, match="remove its line") as caught:
        record(path, "server", key_of("intruder"))
    assert caught.value.code == "key_changed"
    assert load(path).keys == {"server": key_of("server")}


def test_one_key_for_two_nodes_is_refused() -> None:
    registry = Registry({"server": key_of("server")})
    with pytest.raises(Refusal, match="recorded for server") as caught:
        registry.with_key("laptop", key_of("server"))
    assert caught.value.code == "key_shared"


@pytest.mark.parametrize(
    "text",
    ["", "x", key_of("a")[:-2] + "==", key_of("a")[:-4], key_of("a") + "\n", "é" * 44],
)
def test_a_text_that_is_no_key(text: str) -> None:
    with pytest.raises(KeyInvalid, match="44 characters"):
        Registry().with_key("server", text)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"a": 1}', '{"a": "x"}', f'{{"a": "{key_of("k")}", "b": "{key_of("k")}"}}']
)
def test_damaged_file(text: str) -> None:
    with pytest.raises(RegistryDamaged, match="restore"):
        parse(text, "peers.json")


def test_a_damaged_file_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    path.write_text("<<<<<<< ours")
    with pytest.raises(RegistryDamaged):
        record(path, "server", key_of("server"))
    assert path.read_text() == "<<<<<<< ours"


def test_runs_at_the_same_time_lose_no_key(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    names = [f"node{number}" for number in range(12)]
    threads = [threading.Thread(target=record, args=(path, name, key_of(name))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(load(path).keys) == sorted(names)


@given(st.dictionaries(st.text(min_size=1), st.just("")).map(list))
def test_text_reads_back_whatever_the_order(names: list[str]) -> None:
    registry = Registry({name: key_of(name) for name in names})
    assert parse(render(registry), "peers.json") == registry
    assert render(registry) == render(Registry(dict(reversed(list(registry.keys.items())))))
