"""What the tables say of what the nodes say."""

from __future__ import annotations

import json

from lab import report

DECLARED = {"server": {"roles": ["hypervisor"], "site": "site-a", "mesh_address": "10.8.0.2"}}
HOST = {
    "kvm": {"usable": False, "reason": "/dev/kvm is not there"},
    "vms": [
        {
            "name": "web",
            "state": "running",
            "accelerator": "tcg",
            "memory": {"maximum_mib": 256, "current_mib": 0, "minimum_mib": 128},
            "weight": {"wanted": 300, "enforced": False, "reason": "no cpu controller"},
        }
    ],
}
MESH = {
    "node": "server",
    "peers": [{"name": "laptop", "path": "direct"}, {"name": "relay", "path": "relay"}],
}


def test_whole_node_and_its_vm() -> None:
    """Paths, KVM with its reason, and the weight with why it is not enforced."""
    said = report.answer("server", json.dumps({"mesh": MESH, "host": HOST}))
    assert report.node_rows([said], DECLARED) == [
        (
            "server",
            "hypervisor",
            "site-a",
            "10.8.0.2",
            "laptop direct, relay relay",
            "no: /dev/kvm is not there",
        )
    ]
    assert report.vm_rows([said]) == [
        (
            "web",
            "server",
            "running",
            "tcg",
            "0 of 256",
            "128",
            "300",
            "no",
        )
    ]
    assert report.unenforced([said]) == [
        "server: weights are not enforced: no cpu controller",
    ]


def test_node_without_ppn_is_still_shown() -> None:
    """A fresh node, a silent one and one that answers nonsense each say what is wrong."""
    for text, word in (('{"missing": true}', "not installed"), ("oops", "answers no JSON")):
        row = report.node_rows([report.answer("server", text)], {})[0]
        assert row == ("server", "-", "-", "-", word, "-")


def test_half_a_node_is_no_error() -> None:
    """A relay has no hypervisor; a node that was never joined has no mesh."""
    said = report.answer("relay", '{"mesh": null, "host": null}')
    assert report.node_rows([said], {})[0][4:] == ("no mesh", "-")
    assert report.vm_rows([said]) == []


def test_tables_hold_every_row() -> None:
    """What is gathered is what is printed."""
    said = report.answer("server", json.dumps({"mesh": MESH, "host": HOST}))
    nodes, vms = report.tables([said], DECLARED)
    assert (nodes.row_count, vms.row_count) == (1, 1)
