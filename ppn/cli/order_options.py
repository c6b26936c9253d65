"""The options of an order, as `ppn vm create` takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ImageName = Annotated[
    str, typer.Argument(metavar="IMAGE", help="A guest image that nodes of the pool have.")
]
Owner = Annotated[str | None, typer.Option(help="Whose VM it is; without it the operator's.")]
Vcpus = Annotated[int, typer.Option(min=1, help="Virtual CPUs.")]
MemoryMib = Annotated[int, typer.Option(min=64, help="Memory in MiB.")]
DiskGib = Annotated[int, typer.Option(min=1, help="Root disk in GiB.")]
Disks = Annotated[
    list[str] | None, typer.Option(metavar="NAME:GIB", help="A data disk; repeatable.")
]
Label = Annotated[str, typer.Option(help="A word of the owner's own.")]
Affinity = Annotated[
    str, typer.Option(metavar="LABEL", help="Only beside a VM of the owner with this label.")
]
AntiAffinity = Annotated[
    str, typer.Option(metavar="LABEL", help="Only where no VM of the owner has this label.")
]
Ports = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[HOST:]GUEST[/udp]",
        help="A port of the guest that mesh nodes may reach; repeatable.",
    ),
]
SshKeys = Annotated[
    list[Path] | None,
    typer.Option(help="A public key file that gets into the guest; repeatable."),
]
UserData = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Cloud-config for the guest, as one JSON object."),
]
GuestName = Annotated[
    str | None, typer.Option(help="What the guest calls itself; its id when not given.")
]
PreferKvm = Annotated[
    bool, typer.Option(help="Nodes with usable KVM first; one without when no other fits.")
]
Policy = Annotated[str, typer.Option(help="Among nodes that fit: spread, pack or kvm-first.")]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="WORD",
        help="Idempotency key: the same order under the same key is one VM, however often asked.",
    ),
]
