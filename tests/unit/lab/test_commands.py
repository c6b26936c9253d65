"""Command lines, settings and records of the lab, as text."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lab import node_container, node_vm, process, ssh
from lab.errors import LabError
from lab.paths import LabPaths
from lab.topology import NODES, node_named

SERVER = next(node for node in NODES if node.name == "server")
LAPTOP = next(node for node in NODES if node.name == "laptop")


def test_ssh_trusts_only_keys_it_knows(tmp_path: Path) -> None:
    """ssh itself reads the settings as they are meant (no key is taken on trust)."""
    lab = LabPaths("unit")
    settings = tmp_path / "ssh_config"
    settings.write_text(ssh.config(lab, sys.executable))
    shown = subprocess.run(
        ["ssh", "-F", str(settings), "-G", "server"],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stdout.splitlines()
    assert "stricthostkeychecking true" in shown
    assert "hostname 198.51.100.11" in shown
    assert "controlmaster auto" in shown
    assert f"userknownhostsfile {lab.known_hosts}" in shown
    assert any("nsenter --net=/run/netns/ppn-unit-operator" in line for line in shown)


@pytest.mark.parametrize("words", [["--", "ls", "-l"], ["ls", "-l"]])
def test_command_may_follow_two_dashes(words: list[str]) -> None:
    """``lab ssh server -- ls -l`` is what hands are used to; the node's shell gets no dashes."""
    assert ssh.command(LabPaths("unit"), "server", words)[3:] == ["server", "--", "ls", "-l"]


def test_without_a_command_there_is_a_shell() -> None:
    """Nothing but the node's name is given, and two dashes alone are nothing."""
    for words in ([], ["--"]):
        assert ssh.command(LabPaths("unit"), "server", words)[3:] == ["server"]


def test_known_hosts_name_and_address() -> None:
    """ssh asks by name, pyinfra by address; a node without a key gets no line."""
    text = ssh.known_hosts({"server": "ssh-ed25519 AAAA"})
    assert text == "server,198.51.100.11 ssh-ed25519 AAAA\n"


def test_last_host_key_of_the_console_counts() -> None:
    """Console noise around it does not matter, nor does half a line."""
    console = (
        "[  OK  ] x\r\nnode-host-key ssh-ed25519 AAA1=\r\n...\nnode-host-key ssh-ed25519 BBB2\n"
    )
    assert ssh.host_key(console) == "ssh-ed25519 BBB2"
    assert ssh.host_key("node-host-key ssh-") is None


def test_machine_is_told_who_it_is(tmp_path: Path) -> None:
    """Name, network and the lab's public key go in as credentials."""
    given = node_vm.credentials(SERVER, "ssh-ed25519 KEY")
    assert given["system.hostname"] == "server"
    assert "Address=192.168.1.10/24\nGateway=192.168.1.1\n" in given["network.network.10-lab"]
    argv = node_vm.command(SERVER, LabPaths("unit").node("server"), tmp_path, tmp_path, given)
    key = base64.b64encode(b"ssh-ed25519 KEY").decode()
    assert f"type=11,value=io.systemd.credential.binary:ssh.authorized_keys.root={key}" in argv


def test_only_the_server_emulates_virtualisation(tmp_path: Path) -> None:
    """Working KVM on one node, none on another: both kinds are in the pool."""
    paths = LabPaths("unit").node("x")
    server = node_vm.command(SERVER, paths, tmp_path, tmp_path, {})
    laptop = node_vm.command(LAPTOP, paths, tmp_path, tmp_path, {})
    assert node_vm.PROCESSOR in server
    assert f"{node_vm.PROCESSOR},svm=off" in laptop


def test_overlay_refuses_what_mount_would_misread(tmp_path: Path) -> None:
    """A colon would split one folder into two."""
    mounts = node_container.Mounts(tmp_path, tmp_path / "a:b", tmp_path, tmp_path)
    with pytest.raises(LabError, match="PPN_LAB_HOME"):
        mounts.options()
    assert "lowerdir=" in replace(mounts, upper=tmp_path).options()


@pytest.mark.parametrize("name", ["", "Default", "1st", "a/b", "..", "a" * 21, "a b"])
def test_lab_names_are_plain(name: str) -> None:
    """A name becomes part of paths, namespaces and machine names."""
    with pytest.raises(ValueError, match="lab name"):
        LabPaths(name)


def test_two_labs_share_nothing() -> None:
    """Names keep labs apart on disk, in namespaces and in sockets."""
    one, other = LabPaths("one"), LabPaths("other")
    for what in ("state_dir", "runtime_dir", "ssh_config", "known_hosts", "operator_key"):
        assert getattr(one, what) != getattr(other, what)
    assert one.namespace("server") != other.namespace("server")


def test_recycled_number_is_another_process(tmp_path: Path) -> None:
    """A record names a process by number and start, so a later one is never ended for it."""
    record = tmp_path / "process.json"
    started = process.spawn(["sleep", "60"], log=tmp_path / "log", record=record, env={})
    try:
        assert process.recorded(record) == started
        stale = replace(started, started=started.started + 1)
        process.send(stale, signal.SIGKILL)
        assert process.identify(started.pid) == started
    finally:
        process.send(started, signal.SIGKILL)
    assert process.gone(started, 10)
    assert process.recorded(record) is None
    os.waitpid(started.pid, 0)


def test_unknown_node_is_none() -> None:
    """Names are matched whole."""
    assert node_named("serv") is None
    assert node_named("server") is SERVER
