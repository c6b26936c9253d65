"""What facts read and operations send, run on a real node of namespaces.

Namespaces have no systemd, so `systemctl` is a stand-in that says that all units run; the units
themselves are judged in the lab, on nodes that have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from facts import nftables as nft_facts
from facts import wireguard as wg_facts
from facts.wireguard import WireGuardState
from operations import nftables, wireguard
from operations.files import INSTALLER, File, payload
from ppn.mesh.firewall import FILE, ruleset
from ppn.mesh.peers import interface_of
from ppn.mesh.render import conf_path
from tests.integration.mesh.conftest import Mesh
from tests.integration.mesh.namespaces import Namespace

SYSTEMCTL = """#!/bin/sh
printf 'ActiveState=active\\nSubState=running\\nUnitFileState=enabled\\nNeedDaemonReload=no\\n'
"""
PATH = "PATH=/run/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ZERO = "0" * 64


@pytest.fixture(scope="module")
def node(mesh: Mesh) -> Iterator[Namespace]:
    mesh.laptop.sh("mkdir -p /run/bin")
    mesh.laptop.write("/run/bin/systemctl", SYSTEMCTL, "0755")
    yield mesh.laptop


def wireguard_state(node: Namespace) -> WireGuardState:
    words = ("ppn-wireguard", "ppn0", *wg_facts.watched("ppn0"))
    printed = node("env", PATH, "sh", "-c", wg_facts.SCRIPT, *words).stdout
    return wg_facts.parse(printed.splitlines())


def install(node: Namespace, files: dict[str, File], *, accept: tuple[int, ...] = (0,)) -> str:
    text = payload(files, tuple(files))
    return node("python3", "-I", "-c", INSTALLER, input=text, accept=accept).stderr


def test_a_configured_node_needs_nothing(mesh: Mesh, node: Namespace) -> None:
    """MESH-04: what is read off a running node is what the inventory wants, to the last field."""
    state = wireguard_state(node)
    wanted = interface_of(mesh.pool, mesh.registry, "laptop")
    assert state.public_key == mesh.key(node)
    assert (state.key_mode, state.key_owner) == ("0600", "root:root")
    assert wireguard.plan(wanted, state) == wireguard.Steps()


def test_live_changes_are_noticed_and_synchronised(mesh: Mesh, node: Namespace) -> None:
    """MESH-04: a tunnel that somebody changed by hand is put right without a restart."""
    wanted = interface_of(mesh.pool, mesh.registry, "laptop")
    index = node.sh("cat /sys/class/net/ppn0/ifindex || ip -o link show ppn0")
    node("wg", "set", "ppn0", "peer", mesh.key(mesh.server), "remove")
    found = wireguard_state(node)
    node.ppn("sync")
    assert wireguard.plan(wanted, found) == wireguard.Steps(synchronise=True)
    assert wireguard.plan(wanted, wireguard_state(node)) == wireguard.Steps()
    assert node.sh("cat /sys/class/net/ppn0/ifindex || ip -o link show ppn0") == index


def test_address_and_forwarding_follow_without_a_restart(mesh: Mesh, node: Namespace) -> None:
    data = replace(mesh.pool.node("laptop"), ranges=())
    moved = replace(data, address=mesh.pool.range[33])
    nodes = tuple(moved if one.name == "laptop" else one for one in mesh.pool.nodes)
    node.configure(replace(mesh.pool, nodes=nodes), mesh.registry)
    node.ppn("sync")
    shown = node("ip", "-brief", "address", "show", "dev", "ppn0").stdout
    node.configure(mesh.pool, mesh.registry)
    node.ppn("sync")
    assert "10.8.0.33/24" in shown and "10.8.0.3/24" not in shown
    wanted = interface_of(mesh.pool, mesh.registry, "laptop")
    assert wireguard.plan(wanted, wireguard_state(node)) == wireguard.Steps()


def test_files_are_checked_by_wg_quick_before_they_replace(mesh: Mesh, node: Namespace) -> None:
    wanted = wireguard.wanted_files(interface_of(mesh.pool, mesh.registry, "laptop"))
    assert install(node, wanted) == ""
    before = node("cat", conf_path("ppn0")).stdout
    broken = replace(wanted[conf_path("ppn0")], check=("sh", "-c", "exit 1", "check", "{}"))
    assert "refused by sh" in install(node, {conf_path("ppn0"): broken}, accept=(1,))
    assert node("cat", conf_path("ppn0")).stdout == before


def test_key_is_made_private_and_never_replaced(node: Namespace) -> None:
    """Private keys are born on the node, for root alone, and stay."""
    words = ("sh", "-c", wireguard.MAKE_KEY, "ppn-key", "/etc/wireguard/other.key")
    assert node(*words).stdout == ""
    first = node("cat", "/etc/wireguard/other.key").stdout
    assert len(first) == 45
    assert node("stat", "-c", "%a %U", "/etc/wireguard/other.key").stdout == "600 root\n"
    assert node(*words, accept=(1,)).returncode == 1
    assert node("cat", "/etc/wireguard/other.key").stdout == first
    assert node("ls", "-A", "/etc/wireguard").stdout.split() == [
        "other.key",
        "ppn0.conf",
        "ppn0.key",
    ]


def test_firewall_in_force_is_told_from_one_that_was_changed(mesh: Mesh, node: Namespace) -> None:
    """MESH-01: rules removed by hand, or another table's flush, are noticed."""
    rules = ruleset(mesh.pool, mesh.pool.node("laptop"))
    files = nftables.wanted_files(rules, "[Unit]\n")
    install(node, files)
    load(node)

    def loaded() -> str | None:
        printed = node("env", PATH, "sh", "-c", nft_facts.SCRIPT).stdout
        return nft_facts.parse(printed.splitlines()).loaded

    assert loaded() == files[FILE].status.sha256
    node.sh("nft flush chain inet ppn forward")
    assert loaded() is None
    load(node)
    node.sh("nft add table ip other; nft flush ruleset")
    assert loaded() is None
    load(node)
    assert loaded() == files[FILE].status.sha256
    broken = {FILE: File("table inet ppn {\n", check=files[FILE].check)}
    assert "refused by nft" in install(node, broken, accept=(1,))


def load(node: Namespace) -> None:
    """Run what the unit runs."""
    with open("deploys/units/ppn-nftables.service", encoding="utf-8") as unit:
        for line in unit.read().splitlines():
            if line.startswith("ExecReload="):
                node.sh(line.removeprefix("ExecReload=").removeprefix("/bin/sh -ec ").strip("'"))
