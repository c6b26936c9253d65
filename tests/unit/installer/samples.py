"""Settings, disks and marks for the tests of the installer."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ppn.installer.disks import GIB, Disk, Partition
from ppn.installer.mark import PARTITIONS, Mark, State
from ppn.installer.policy import Wanted

IMAGE, SETTINGS = "a" * 64, "b" * 64
OTHER = "c" * 64
WANTED = Wanted("laptop", IMAGE, SETTINGS)
SEED = UUID("0f3c2a6e-8f6b-4a55-9a5e-0b8f2e9b1c11")
CA = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKm1vT4YyWb0mSxSxxKoFpE0Zn0iqcvCAZ8vVxTkQYqd operator"
KEY = "mJq0xq0Q0c7dC1b8o3S0oK1s5Zl3mJq0xq0Q0c7dC1Y="


def site(**changes: Any) -> dict[str, Any]:
    """Sound settings of a site, as JSON has them."""
    return {
        "version": 1,
        "ssh_ca_keys": [CA],
        "mesh": {
            "relay": {
                "public_key": KEY,
                "endpoint": "198.51.100.10:51820",
                "mesh_address": "10.8.0.1",
            }
        },
        "nodes": [
            {
                "name": "laptop",
                "match": {"macs": ["52:54:00:00:00:03"]},
                "mesh_address": "10.8.0.3",
            },
            {"name": "spare", "match": {"default": True}, "mesh_address": "10.8.0.9"},
        ],
        **changes,
    }


def mark(**changes: Any) -> Mark:
    """The mark of a complete installation of `WANTED`."""
    values: dict[str, Any] = {
        "state": State.COMPLETE,
        "node": "laptop",
        "image": IMAGE,
        "settings": SETTINGS,
        "seed": SEED,
    }
    return Mark(**{**values, **changes})


def disk(**changes: Any) -> Disk:
    """A new disk of 16 GiB."""
    values: dict[str, Any] = {
        "name": "sda",
        "path": "/dev/disk/by-id/ata-new",
        "size": 16 * GIB,
        "model": "Model A",
        "serial": "S1",
        "transport": "sata",
        "blank": True,
    }
    return Disk(**{**values, **changes})


def made_by(made: Mark, **changes: Any) -> Disk:
    """A disk that an installer of ours has partitioned."""
    parts = tuple(
        Partition(f"sda{number}", str(made.partition(label)), label, "ext4")
        for number, label in enumerate(PARTITIONS, start=1)
    )
    values: dict[str, Any] = {"mark": made, "partitions": parts, "table": "gpt", "blank": False}
    return disk(**{**values, **changes})
