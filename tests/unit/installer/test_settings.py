"""Site settings: strict, bounded, and each machine is one node."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ppn.errors import Refusal
from ppn.installer.settings import MOST_BYTES, Machine, SettingsMalformed, node_of, parse
from tests.unit.installer.samples import CA, site

LAPTOP = Machine(macs=("52:54:00:00:00:03", "52:54:00:00:00:04"), serial="S-1", uuid="")


# An address to Python, and lines of their own to networkd.
LINES = "fe80::1%x\nGateway=192.0.2.66\n[Route]"


def linked(**changes: Any) -> dict[str, Any]:
    """An interface with an address, as JSON has it."""
    return {"name": "en*", "addresses": ["fe80::2/64"], **changes}


def parsed(**changes: Any) -> Any:
    """Settings with changes, parsed."""
    return parse(json.dumps(site(**changes)).encode())


def node(**changes: Any) -> dict[str, Any]:
    """A sound node with changes, as JSON has it."""
    return {"name": "n", "match": {"default": True}, "mesh_address": "10.8.0.3", **changes}


def test_a_machine_is_the_node_that_matches_it() -> None:
    assert node_of(parsed(), LAPTOP).node.name == "laptop"
    assert node_of(parsed(), Machine()).node.name == "spare"


@pytest.mark.parametrize(
    "match", [{"serial": "S-1"}, {"uuid": "4" * 8 + "-4444" * 3 + "-" + "4" * 12}]
)
def test_serial_and_uuid_match_too(match: dict[str, str]) -> None:
    machine = Machine(serial="S-1", uuid="4" * 8 + "-4444" * 3 + "-" + "4" * 12)
    assert node_of(parsed(nodes=[node(match=match)]), machine).node.name == "n"


def test_a_machine_nobody_named_is_refused_with_what_it_is() -> None:
    with pytest.raises(Refusal) as refused:
        node_of(parsed(nodes=[node(match={"serial": "S-2"})]), LAPTOP)
    assert refused.value.code == "machine_unknown"
    assert "52:54:00:00:00:03" in refused.value.message


def test_a_machine_that_is_two_nodes_is_refused() -> None:
    both = [
        node(name="a", match={"serial": "S-1"}, mesh_address="10.8.0.3"),
        node(name="b", match={"macs": ["52:54:00:00:00:04"]}, mesh_address="10.8.0.4"),
    ]
    with pytest.raises(Refusal) as refused:
        node_of(parsed(nodes=both), LAPTOP)
    assert refused.value.code == "machine_ambiguous"


def test_the_digest_is_of_this_node_alone() -> None:
    """Another node that joins the list does not make this one be installed anew."""
    before = node_of(parsed(), LAPTOP).digest()
    more = [*site()["nodes"], node(name="new", match={"serial": "X"}, mesh_address="10.8.0.77")]
    assert node_of(parsed(nodes=more), LAPTOP).digest() == before
    assert node_of(parsed(ssh_ca_keys=[CA, CA]), LAPTOP).digest() != before


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"version": 2}, "version"),
        ({"surprise": 1}, "surprise"),
        ({"nodes": []}, "nodes"),
        ({"ssh_ca_keys": []}, "ssh_ca_keys"),
        ({"ssh_ca_keys": ["ssh-ed25519 short"]}, "ssh_ca_keys"),
        ({"ssh_ca_keys": [CA + "\nssh-ed25519 more"]}, "ssh_ca_keys"),
        ({"ssh_ca_keys": [CA.replace("TkQYqd", "")]}, "no whole SSH public key"),
        ({"ssh_ca_keys": [CA.replace("ssh-ed25519", "ssh-rsa")]}, "no whole SSH public key"),
        ({"nodes": [node(name="Node")]}, "name"),
        ({"nodes": [node(name="a\nb")]}, "name"),
        ({"nodes": [node(match={})]}, "match"),
        ({"nodes": [node(match={"macs": ["52-54-00-00-00-03"]})]}, "macs"),
        ({"nodes": [node(mesh_address="10.9.0.3")]}, "no host address"),
        ({"nodes": [node(mesh_address="10.8.0.255")]}, "no host address"),
        ({"nodes": [node(mesh_address="10.8.0.1")]}, "relay's mesh_address"),
        ({"nodes": [node(mesh_address=None)]}, "needs a mesh_address"),
        ({"nodes": [node(), node(name="m", mesh_address="10.8.0.4")]}, "default stands at more"),
        ({"nodes": [node(), node(match={"serial": "x"}, mesh_address="10.8.0.4")]}, "name stands"),
        ({"nodes": [node(network=[{"dhcp": True}])]}, "network"),
        (
            {"nodes": [node(network=[{"mac": "52:54:00:00:00:03", "name": "en*"}])]},
            "one of the two",
        ),
        ({"nodes": [node(network=[{"name": "en*", "gateway": "192.0.2.1"}])]}, "gateway"),
        ({"nodes": [node(kernel_options=["quiet splash"])]}, "kernel_options"),
        ({"nodes": [node(kernel_options=['a="b"'])]}, "kernel_options"),
        ({"nodes": [node(kernel_options=["a\n"])]}, "kernel_options"),
        ({"nodes": [node(kernel_options=["root=/dev/sdb1"])]}, "the installer's to say"),
        ({"nodes": [node(kernel_options=["init=/bin/sh"])]}, "the installer's to say"),
        ({"nodes": [node(kernel_options=["rdinit=/bin/sh"])]}, "the installer's to say"),
        ({"nodes": [node(kernel_options=["boot=nfs"])]}, "the installer's to say"),
        ({"nodes": [node(network=[{"name": "en*", "addresses": ["192.0.2.7"]}])]}, "such as /24"),
        ({"nodes": [node(network=[{"name": "en*", "addresses": [f"{LINES}/64"]}])]}, "a zone"),
        ({"nodes": [node(network=[{"name": "en*", "dns": [LINES]}])]}, "a zone"),
        ({"nodes": [node(network=[linked(gateway=LINES)])]}, "a zone"),
        ({"disk": {"min_gib": 4}}, "min_gib"),
        ({"disk": {"min_gib": 20, "max_gib": 10}}, "no disk fits"),
        ({"disk": {"disks": 2}}, "disks"),
        ({"disk": {"reinstall": "yes"}}, "reinstall"),
        ({"mesh": {"port": 51821}}, "path keeper"),
        ({"mesh": {"relay": {"public_key": "no", "endpoint": "a:1"}}}, "public_key"),
    ],
)
def test_what_is_not_sound_is_refused_and_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(SettingsMalformed) as refused:
        parsed(**changes)
    assert refused.value.code == "settings_malformed"
    assert field in refused.value.message


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", '{"name": "\u00e9"}'.encode(), b" " * (MOST_BYTES + 1)]
)
def test_what_is_no_settings_file_is_refused(content: bytes) -> None:
    with pytest.raises(SettingsMalformed):
        parse(content)
