"""What is written, where, and in which order."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ppn.errors import PpnError
from ppn.installer import render
from ppn.installer.execute import appear, carry_out, write_files
from ppn.installer.mark import PARTITIONS, State
from ppn.installer.plan import Action, Folders, PutMark, Run, Step, WriteFiles, installation
from ppn.installer.render import File, node_files
from ppn.installer.settings import Machine, NodeSettings, node_of, parse
from tests.unit.installer.samples import CA, KEY, disk, mark, site

KERNEL = "6.12.1-amd64"


def settings(**node: Any) -> NodeSettings:
    """A node's settings, with changes."""
    values = site()
    values["nodes"] = [{**values["nodes"][1], **node}]
    return node_of(parse(json.dumps(values).encode()), Machine())


def steps() -> tuple[Step, ...]:
    """The plan for a new disk."""
    files = node_files(settings(), mark())
    return installation(disk(), mark(), files, Path("/run/ppn/root"), KERNEL, Folders())


def actions() -> list[Action]:
    """All that the plan does, in order."""
    return [action for step in steps() for action in step.actions]


def writes_to_disk(action: Action) -> bool:
    """Whether an action could change the disk, before anything of it is mounted."""
    if isinstance(action, Run):
        return any(word.startswith("/dev/disk") for word in action.argv) and not any(
            word == "--dry-run=yes" for word in action.argv
        )
    return isinstance(action, PutMark)


def test_the_mark_is_written_first_and_completed_last() -> None:
    """ISO-04: whatever is cut short is known as ours, and as unfinished."""
    first = next(action for action in actions() if writes_to_disk(action))
    assert first == PutMark(mark(state=State.UNFINISHED))
    assert actions()[-1] == PutMark(mark())
    assert sum(isinstance(action, PutMark) for action in actions()) == 2


def test_what_the_partitions_will_be_is_shown_before() -> None:
    shown = [action for action in actions() if isinstance(action, Run) and action.shown]
    assert ["--dry-run=yes" in one.argv for one in shown] == [True]
    assert actions().index(shown[0]) < actions().index(PutMark(mark(state=State.UNFINISHED)))


def test_only_the_chosen_disk_is_written_to() -> None:
    """ISO-04: by its stable name, or by the UUIDs that were just given to its partitions."""
    allowed = {"/dev/disk/by-id/ata-new"} | {
        f"/dev/disk/by-partuuid/{mark().partition(label)}" for label in PARTITIONS
    }
    named = {
        word
        for action in actions()
        if isinstance(action, Run)
        for word in action.argv
        if word.startswith("/dev/") and word != "/dev"
    }
    assert named == allowed


def test_partitions_of_another_disk_with_the_same_uuids_are_not_written_to(tmp_path: Path) -> None:
    """ISO-04: a copy of the disk that is plugged in now may take the partitions' names."""
    disks = {}
    for part in ("sda/sda1", "sdb/sdb1"):
        (tmp_path / part).mkdir(parents=True)
    # Devices that every machine has stand for disks and partitions.
    null, zero, full = (Path("/dev", name) for name in ("null", "zero", "full"))
    for device, folder in ((null, "sda"), (zero, "sda/sda1"), (full, "sdb/sdb1")):
        rdev = device.stat().st_rdev
        disks[device] = f"{os.major(rdev)}:{os.minor(rdev)}"
        (tmp_path / disks[device]).symlink_to(tmp_path / folder)
    (tmp_path / "sda/dev").write_text(f"{disks[null]}\n")
    (tmp_path / "sdb/dev").write_text("8:16\n")
    appear([zero], null, 0, tmp_path)
    for other in (full, tmp_path / "gone"):
        with pytest.raises(PpnError, match=f"{other} was no partition of /dev/null"):
            appear([zero, other], null, 0, tmp_path)


def test_the_boot_loader_comes_after_all_else_is_on_the_disk() -> None:
    programs = [
        [word for word in action.argv if not word.startswith(("/", "-"))]
        for action in actions()
        if isinstance(action, Run)
    ]
    flat = [" ".join(words[:3]) for words in programs]
    order = ["systemd-repart", "chroot env KERNEL_INSTALL", "sync", "chroot bootctl", "umount"]
    places = [next(i for i, line in enumerate(flat) if line.startswith(one)) for one in order]
    assert places == sorted(places)
    (synced,) = (one.argv for one in actions() if isinstance(one, Run) and one.argv[0] == "sync")
    target = str(Folders().target)
    assert synced[2:] == (f"{target}/boot/efi", f"{target}/var/lib/ppn", f"{target}/")


def test_the_partitions_are_declared() -> None:
    texts = render.repart_definitions(mark())
    for (_, text), label in zip(sorted(texts.items()), PARTITIONS, strict=True):
        assert f"Label={label}\nUUID={mark().partition(label)}\n" in text


def test_nobody_gets_in_but_by_the_operators_authority() -> None:
    """ISO-04: no password, no key of anybody's in the image or on the node."""
    files = node_files(settings(), mark())
    assert files[render.USER_CA].text == f"{CA}\n"
    assert (
        f"TrustedUserCAKeys {render.USER_CA}"
        in files["/etc/ssh/sshd_config.d/20-operator.conf"].text
    )
    assert "AuthorizedKeysFile none" in files["/etc/ssh/sshd_config.d/20-operator.conf"].text
    assert not [name for name in files if "authorized_keys" in name or name.endswith(".key")]


def test_the_relay_is_the_first_peer() -> None:
    files = node_files(settings(), mark())
    conf = files["/etc/wireguard/ppn0.conf"]
    assert conf.mode == 0o600
    assert "Address = 10.8.0.9/24" in conf.text
    assert f"PublicKey = {KEY}\n" in conf.text
    assert "AllowedIPs = 10.8.0.0/24, fd70:706e::1/128" in conf.text
    assert "Endpoint = 198.51.100.10:51820" in conf.text
    assert "PrivateKey" not in conf.text
    link = files["/etc/systemd/system/multi-user.target.wants/wg-quick@ppn0.service"].link
    assert link == "/usr/lib/systemd/system/wg-quick@.service"


def test_without_a_relay_there_is_no_mesh_yet() -> None:
    values = site(mesh={})
    found = node_of(parse(json.dumps(values).encode()), Machine())
    assert not [name for name in node_files(found, mark()) if "wg-quick" in name]


def test_the_operators_kernel_options_come_last() -> None:
    """ISO-03: so that of two consoles, theirs is the one that messages go to."""
    found = settings(kernel_options=["console=ttyS1,115200", "iommu=pt"])
    line = node_files(found, mark())["/etc/kernel/cmdline"].text
    assert line.startswith("root=PARTUUID=")
    assert line.endswith("panic=30 console=ttyS1,115200 iommu=pt\n")


@pytest.mark.parametrize(
    ("network", "lines"),
    [
        ((), ["Type=ether", "DHCP=yes"]),
        (({"name": "en*"},), ["Name=en*", "DHCP=yes"]),
        (
            (
                {
                    "mac": "52:54:00:00:00:03",
                    "addresses": ["192.0.2.7/24", "2001:db8::7/64"],
                    "gateway": "192.0.2.1",
                    "dns": ["192.0.2.53"],
                },
            ),
            [
                "PermanentMACAddress=52:54:00:00:00:03",
                "Address=192.0.2.7/24",
                "Address=2001:db8::7/64",
                "Gateway=192.0.2.1",
                "DNS=192.0.2.53",
            ],
        ),
    ],
)
def test_the_network_is_as_the_settings_have_it(
    network: tuple[dict[str, Any], ...], lines: list[str]
) -> None:
    files = node_files(settings(network=network), mark())
    text = files["/etc/systemd/network/20-site.network"].text
    assert [line for line in lines if line not in text.splitlines()] == []
    assert ("DHCP=yes" in text) == ("DHCP=yes" in lines)


def test_files_are_written_whole_with_their_modes(tmp_path: Path) -> None:
    """A link that stands in the way is replaced, not followed."""
    outside = tmp_path / "outside"
    outside.write_text("kept")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/resolv.conf").symlink_to(outside)
    wanted = {
        "/etc/resolv.conf": File("nameserver"),
        "/etc/a/b/c": File("text", mode=0o600),
        "/etc/link": File(link="../b"),
    }
    for _ in range(2):
        write_files(root, wanted)
    assert outside.read_text() == "kept"
    assert (root / "etc/resolv.conf").read_text() == "nameserver"
    assert (root / "etc/a/b/c").stat().st_mode & 0o777 == 0o600
    assert (root / "etc/a/b").stat().st_mode & 0o777 == 0o755
    assert (root / "etc/link").readlink() == Path("../b")


def test_a_failed_step_is_named_and_nothing_after_it_is_done(tmp_path: Path) -> None:
    device = tmp_path / "disk"
    device.write_bytes(b"")
    said: list[str] = []
    plan = (
        Step("First", (WriteFiles(tmp_path, {"/first": File("x")}),)),
        Step("Second", (Run(("false",)),)),
        Step("Third", (WriteFiles(tmp_path, {"/third": File("x")}),)),
    )
    with pytest.raises(Exception, match="step 2, 'Second', failed"):
        carry_out(plan, device, said.append)
    assert said == ["[ 1/3] First", "[ 2/3] Second"]
    assert (tmp_path / "first").exists()
    assert not (tmp_path / "third").exists()
