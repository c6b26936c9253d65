"""The controller's HTTP edge: its committed description, its ring of addresses, its settings."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from ppn.errors import PpnError, Refusal
from ppn.fleet.access import Access, check_access
from ppn.fleet.identity import batch_id, order_digest, vm_id
from ppn.fleet.openapi import document
from ppn.fleet.settings import FleetSettings
from ppn.settings import SettingsDamaged, read_own
from ppn.wire.fleet import VmOrder
from ppn.wire.listen import check_mesh_address

COMMITTED = Path(__file__).parents[3] / "docs" / "openapi" / "fleet-controller.json"
RENEW = "run `python -m tests.unit.fleet.test_api` and commit what it writes"
NODE, CALLER = IPv4Address("10.8.0.2"), IPv4Address("10.8.0.1")


def test_the_committed_description_is_current() -> None:
    """NP-05's rule for this service."""
    assert COMMITTED.read_text(encoding="utf-8") == document(), RENEW


@pytest.mark.parametrize(
    ("source", "path", "allowed"),
    [
        ("10.8.0.2", "/v1/heartbeats", True),
        ("10.8.0.1", "/v1/vms", True),
        ("10.8.0.1", "/v1/heartbeats", False),
        ("10.8.0.2", "/v1/vms", False),
        ("10.8.0.9", "/metrics", False),
        ("", "/v1/vms", False),
        ("::1", "/v1/vms", False),
    ],
)
def test_nodes_beat_and_callers_ask(source: str, path: str, allowed: bool) -> None:
    """FLEET-08: and neither may do what is the other's."""
    access = Access(nodes=frozenset({NODE}), callers=frozenset({CALLER}))
    if allowed:
        check_access(access, source, path)
        return
    with pytest.raises(Refusal) as caught:
        check_access(access, source, path)
    assert caught.value.code == "source_wrong"


def test_ids_are_the_same_on_every_controller() -> None:
    """FLEET-19: and differ by owner, key and place in a batch."""
    assert vm_id("acme", "key-1") == vm_id("acme", "key-1") == "vm-eknocrt7l342zcuj"
    others = {vm_id("other", "key-1"), vm_id("acme", "key-2"), vm_id("acme", "key-1", 1)}
    assert len(others | {vm_id("acme", "key-1")}) == 4
    assert batch_id("acme", "key-1").startswith("batch-")
    order = VmOrder(owner="acme", image="tiny", vcpus=2, memory_mib=256)
    assert order_digest(order) != order_digest(order.model_copy(update={"vcpus": 4}))


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.1", "127.0.0.1"])
def test_it_listens_on_the_mesh_alone(address: str) -> None:
    mesh = IPv4Address("10.8.0.1")
    check_mesh_address(mesh, IPv4Network("10.8.0.0/24"))
    with pytest.raises(PpnError) as caught:
        check_mesh_address(IPv4Address(address), IPv4Network("10.8.0.0/24"))
    assert caught.value.code == "address_not_mesh"


@pytest.mark.parametrize("content", ["", "{}", '{"name": "c", "nodes": [], "extra": 1}'])
def test_damaged_settings_are_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "fleet.json"
    with pytest.raises(SettingsDamaged, match=r"fleet\.json"):
        read_own(path, FleetSettings)
    path.write_text(content)
    with pytest.raises(SettingsDamaged, match=r"fleet\.json"):
        read_own(path, FleetSettings)


if __name__ == "__main__":
    COMMITTED.write_text(document(), encoding="utf-8")
