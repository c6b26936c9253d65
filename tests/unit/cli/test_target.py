"""Whom a command asks, and which ways are refused before anything is sent."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest
import typer

from ppn.cli.target import check_url, read_token, target_of
from ppn.errors import PpnError, Refusal

TOKEN = "ppn_ab12_" + "A" * 43


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is no node, whatever the tests run on."""
    monkeypatch.setenv("PPN_ROOT", str(tmp_path))
    monkeypatch.delenv("PPN_MESH_RANGE", raising=False)


def of_the_mesh(_: IPv4Address) -> str:
    return "10.8.0.9"


def of_no_mesh(_: IPv4Address) -> str:
    return "192.168.1.5"


@pytest.mark.parametrize(
    "url",
    ["http://10.8.0.1:9203", "http://127.0.0.1:9203", "https://192.0.2.1:9221", "https://a.b"],
)
def test_safe_ways(url: str) -> None:
    """CLI-02: the mesh, this machine itself, and TLS."""
    check_url(url, source=of_the_mesh)


@pytest.mark.parametrize(
    "url",
    [
        "http://192.168.1.1:9203",
        "http://10.9.0.1:9203",
        "http://relay:9203",
        "http://0.0.0.0:9203",
        "http://[::1]:9203",
        "http://10.8.0.1.example.org:9203",
    ],
)
def test_plain_http_beyond_the_mesh_is_refused(url: str) -> None:
    """CLI-02."""
    with pytest.raises(Refusal) as caught:
        check_url(url, source=of_the_mesh)
    assert caught.value.code == "plain_http"


def test_plain_http_from_a_machine_outside_the_mesh_is_refused() -> None:
    """CLI-02: elsewhere a mesh address is somebody else's."""
    with pytest.raises(Refusal, match="192\\.168\\.1\\.5"):
        check_url("http://10.8.0.1:9203", source=of_no_mesh)


def test_the_mesh_may_be_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPN_MESH_RANGE", "192.168.0.0/16")
    check_url("http://192.168.1.1:9203", source=of_no_mesh)
    with pytest.raises(Refusal):
        check_url("http://10.8.0.1:9203", source=of_no_mesh)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9221", "http://10.8.0.1:9221"])
def test_a_token_is_never_sent_over_plain_http(url: str, tmp_path: Path) -> None:
    """CLI-02."""
    with pytest.raises(Refusal) as caught:
        target_of(proxy=url, token_file=tmp_path / "token")
    assert caught.value.code == "plain_http"


@pytest.mark.parametrize(
    "url", ["10.8.0.1:9203", "ftp://10.8.0.1", "http://", "http://a:b", "https://u@10.8.0.1", "x"]
)
def test_what_is_no_url_is_a_wrong_usage(url: str) -> None:
    with pytest.raises(typer.BadParameter):
        check_url(url, source=of_the_mesh)


def test_one_of_both_is_asked(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="not both"):
        target_of("http://127.0.0.1:1", "https://127.0.0.1:2", tmp_path)
    with pytest.raises(typer.BadParameter, match="token-file"):
        target_of(proxy="https://127.0.0.1:2")


def test_a_token_comes_from_a_file_of_its_owner(tmp_path: Path) -> None:
    """CLI-01, CLI-02."""
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o640)
    with pytest.raises(PpnError, match="others may read") as caught:
        read_token(file)
    assert caught.value.hint == f"chmod 600 {file}"
    file.chmod(0o600)
    assert read_token(file) == TOKEN
    for content in ("nothing", "bearer x", f"{TOKEN}\n{TOKEN}", "ppn_ü"):
        file.write_text(content)
        with pytest.raises(PpnError) as caught:
            read_token(file)
        assert caught.value.code == "token_unreadable" and content not in str(caught.value)
    with pytest.raises(PpnError, match="No such file"):
        read_token(tmp_path / "none")


def test_a_token_is_never_shown(tmp_path: Path) -> None:
    """CLI-02: not in logs, not in a traceback."""
    from ppn.cli.target import Target

    assert TOKEN not in repr(Target("https://10.8.0.1:9221", True, TOKEN))
