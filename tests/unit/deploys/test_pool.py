"""The inventories of this repository are sound, and roles fit what is declared."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from deploys.pool import read_pool

RELAY: dict[str, Any] = {
    "roles": ["relay"],
    "site": "cloud",
    "mesh_address": "10.8.0.1",
    "endpoint": "203.0.113.1:51820",
}


def load(path: Path) -> dict[str, Any]:
    """The values an inventory file or a group data file sets."""
    spec = importlib.util.spec_from_file_location("loaded", path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {key: value for key, value in vars(module).items() if not key.startswith("_")}


@pytest.mark.parametrize("name", ["example", "lab"])
def test_inventories_of_this_repository_are_sound(name: str) -> None:
    folder = Path("inventories") / name
    settings = load(folder / "group_data" / "all.py")
    nodes = load(folder / "inventory.py")["nodes"]
    declared = read_pool({node: settings | data for node, data in nodes})
    assert not any(declared.problems.values()), declared.problems
    assert len(declared.pool.nodes) == len(nodes)


def test_vms_need_a_hypervisor() -> None:
    vm = {"name": "web", "image": "tiny", "vcpus": 2, "memory_mib": 512}
    declared = read_pool({"relay": RELAY | {"vms": [vm]}})
    assert "vms_without_hypervisor" in declared.problems["relay"][0]
