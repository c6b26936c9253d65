"""Which disk is taken: never one that is neither empty nor a node's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import Refusal
from ppn.installer import settings
from ppn.installer.disks import GIB, Disk, Partition
from ppn.installer.mark import State
from ppn.installer.policy import choose, judge
from tests.unit.installer.samples import OTHER, SETTINGS, WANTED, disk, made_by, mark

ANY = settings.Disk()
NEVER = settings.Disk(reinstall="never")
NO_MEDIA: frozenset[str] = frozenset()
FOREIGN_PART = Partition("sda1", "5c1d5c9e-0000-4000-8000-000000000001", "", "ntfs 'Windows'")
UNFINISHED = mark(state=State.UNFINISHED)


def refused(*disks: Disk, policy: settings.Disk = ANY, media: frozenset[str] = NO_MEDIA) -> Refusal:
    """The refusal that these disks bring about."""
    with pytest.raises(Refusal) as found:
        choose(disks, policy, media, WANTED)
    return found.value


def test_the_one_empty_disk_is_taken() -> None:
    """ISO-04: no question is asked."""
    choice = choose([disk()], ANY, NO_MEDIA, WANTED)
    assert (choice.disk, choice.installed) == (disk(), False)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"removable": True}, "removable"),
        ({"size": 0}, "no medium"),
        ({"read_only": True}, "read-only"),
        ({"size": 7 * GIB}, "smaller than 8 GiB"),
        ({"name": "sdb"}, "started from it"),
    ],
)
def test_a_disk_that_is_not_meant_is_passed_over(changes: dict[str, Any], reason: str) -> None:
    """ISO-04: the boot stick, a card reader, too small: each with its reason."""
    error = refused(disk(**changes), media=frozenset({"sdb"}))
    assert error.code == "disk_missing"
    assert reason in error.message


@pytest.mark.parametrize(
    ("policy", "meant"),
    [
        (settings.Disk(max_gib=8), False),
        (settings.Disk(max_gib=16), True),
        (settings.Disk(serials=("S2", "S?")), True),
        (settings.Disk(serials=("s1",)), False),
        (settings.Disk(models=("Model *",)), True),
        (settings.Disk(models=("Model *",), serials=("T*",)), False),
    ],
)
def test_the_settings_say_which_disk_is_meant(policy: settings.Disk, meant: bool) -> None:
    assert bool(judge(disk(), policy, NO_MEDIA, WANTED).not_meant) is not meant


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"content": "ext4"}, "holds ext4"),
        ({"content": "linux_raid_member"}, "holds linux_raid_member"),
        ({"content": "LVM2_member"}, "holds LVM2_member"),
        ({"content": "several things"}, "several things"),
        ({"table": "dos"}, "a partition table (dos)"),
        ({"table": "gpt", "partitions": (FOREIGN_PART,)}, "sda1 (ntfs 'Windows')"),
        ({}, "not zero"),
        ({"used_by": ("/mnt",), "blank": True}, "in use: /mnt"),
        ({"used_by": ("raid1 md0",), "mark": mark()}, "in use: raid1 md0"),
        # Our mark, left in place by what was installed there later.
        ({"mark": mark(), "table": "gpt", "partitions": (FOREIGN_PART,)}, "no installer of ours"),
        ({"mark": mark(), "content": "ext4"}, "holds ext4"),
        ({"fault": "Input/output error", "blank": True}, "cannot be read: Input/output error"),
        ({"mark": UNFINISHED, "content": "crypto_LUKS"}, "holds crypto_LUKS"),
        ({"mark": UNFINISHED, "table": "dos"}, "of another kind"),
        ({"mark": mark()}, "its partitions are gone"),
        ({"mark": mark(image=OTHER), "table": "gpt"}, "its partitions are gone"),
    ],
)
def test_what_is_neither_empty_nor_ours_is_not_touched(
    changes: dict[str, Any], reason: str
) -> None:
    """ISO-04: refused with the reason, whatever else is true of the disk."""
    error = refused(disk(**{"blank": False, **changes}))
    assert error.code == "disk_not_empty"
    assert reason in error.message


def test_one_partition_that_is_not_ours_makes_a_disk_foreign() -> None:
    ours = made_by(mark())
    error = refused(replace(ours, partitions=(*ours.partitions, FOREIGN_PART)))
    assert "no installer of ours" in error.message


def test_a_partition_of_another_table_kind_is_not_ours() -> None:
    """A DOS table's partitions have short names in place of UUIDs."""
    part = Partition("sda1", "d3adbeef-01", "", "")
    assert refused(disk(blank=False, table="dos", partitions=(part,), mark=mark()))


def test_two_disks_are_one_too_many_even_when_one_holds_something() -> None:
    """ISO-04: two disks, and the reasons for both."""
    error = refused(disk(), disk(name="sdb", serial="S2", content="ext4", blank=False))
    assert error.code == "disk_ambiguous"
    assert "serial S1: empty" in error.message
    assert "serial S2: not touched: holds ext4" in error.message
    named = settings.Disk(serials=("S1",))
    other = disk(name="sdb", serial="S2", content="ext4", blank=False)
    assert choose([disk(), other], named, NO_MEDIA, WANTED).disk == disk()


@pytest.mark.parametrize("image", ["a" * 64, OTHER])
def test_beside_a_copy_of_itself_a_disk_is_not_touched(image: str) -> None:
    """ISO-04: a backup that was made block by block has the partitions' UUIDs too."""
    found = made_by(mark(image=image))
    backup = replace(found, name="sdb", removable=True)
    error = refused(found, backup)
    assert error.code == "disk_copied"
    assert "sdb has the same partitions" in error.message
    assert choose([found, disk(name="sdb", removable=True)], ANY, NO_MEDIA, WANTED).disk == found


def test_an_installed_disk_is_not_installed_again() -> None:
    assert choose([made_by(mark())], NEVER, NO_MEDIA, WANTED).installed


@pytest.mark.parametrize("changes", [{"image": OTHER}, {"settings": OTHER}])
def test_a_node_of_another_image_is_installed_anew_when_that_is_allowed(
    changes: dict[str, str],
) -> None:
    found = made_by(mark(**changes))
    assert not choose([found], ANY, NO_MEDIA, WANTED).installed
    assert "reinstall never" in refused(found, policy=NEVER).message


def test_another_nodes_disk_is_not_touched() -> None:
    """ISO-04: a machine with a new network card may be another node to the settings."""
    error = refused(made_by(mark(node="server1", settings=OTHER)))
    assert error.code == "disk_not_empty"
    assert "is node server1's, and this machine is to be laptop" in error.message
    unfinished = made_by(mark(node="server1", state=State.UNFINISHED))
    assert choose([unfinished], ANY, NO_MEDIA, WANTED).disk == unfinished


@pytest.mark.parametrize("found", [made_by(UNFINISHED), disk(blank=False, mark=UNFINISHED)])
def test_an_interrupted_installation_starts_over(found: Disk) -> None:
    """ISO-04: also where a disk that has been installed is never to be installed anew."""
    for policy in (ANY, NEVER):
        choice = choose([found], policy, NO_MEDIA, WANTED)
        assert (choice.disk, choice.installed) == (found, False)


def test_a_complete_mark_without_its_partitions_is_no_installation() -> None:
    found = made_by(mark())
    lost = replace(found, partitions=found.partitions[:2])
    assert not choose([lost], ANY, NO_MEDIA, WANTED).installed


PARTITION = st.builds(
    Partition,
    name=st.just("sda1"),
    uuid=st.one_of(
        st.sampled_from([*(str(one) for one in mark().partitions), "", "d3adbeef-01"]),
        st.uuids().map(str),
    ),
    label=st.just(""),
    content=st.sampled_from(["", "ext4"]),
)
DISKS = st.builds(
    Disk,
    name=st.sampled_from(["sda", "sdb", "vda"]),
    path=st.just("/dev/sda"),
    size=st.sampled_from([0, 4 * GIB, 8 * GIB, 64 * GIB]),
    serial=st.sampled_from(["", "S1"]),
    removable=st.booleans(),
    read_only=st.booleans(),
    table=st.sampled_from(["", "gpt", "dos"]),
    content=st.sampled_from(["", "", "ext4"]),
    partitions=st.lists(PARTITION, max_size=3).map(tuple),
    used_by=st.sampled_from([(), (), ("/mnt",)]),
    blank=st.booleans(),
    mark=st.sampled_from(
        [None, mark(), UNFINISHED, mark(image=OTHER), mark(node="server1", settings=OTHER)]
    ),
)
POLICIES = st.builds(
    settings.Disk,
    min_gib=st.sampled_from([8, 32]),
    serials=st.sampled_from([(), ("S1",)]),
    reinstall=st.sampled_from(["allowed", "never"]),
)


@given(st.lists(DISKS, max_size=4), POLICIES, st.sets(st.sampled_from(["sdb"])))
def test_never_a_disk_that_is_neither_empty_nor_ours(
    disks: list[Disk], policy: settings.Disk, media: set[str]
) -> None:
    """ISO-04: said anew from the bytes of the disk, not with the policy's own words."""
    try:
        choice = choose(disks, policy, frozenset(media), WANTED)
    except Refusal as error:
        # Every disk stands in the refusal.
        assert all(one.title in error.message for one in disks)
        return
    taken = choice.disk
    assert not (taken.removable or taken.read_only or taken.used_by or taken.content)
    assert taken.name not in media
    assert taken.size >= policy.min_gib * GIB
    nothing = not (taken.table or taken.partitions or taken.mark) and taken.blank
    allowed = {str(one) for one in mark().partitions}
    assert nothing or (
        taken.mark is not None
        and taken.table in ("", "gpt")
        and {one.uuid for one in taken.partitions} <= allowed
    )
    if taken.mark is not None and taken.mark.state is State.COMPLETE and not choice.installed:
        assert policy.reinstall == "allowed"
        assert taken.mark.node == WANTED.node
    if choice.installed:
        assert taken.mark is not None
        assert taken.mark.settings == SETTINGS
        assert {one.uuid for one in taken.partitions} == allowed


@given(st.lists(DISKS, max_size=4), st.randoms())
def test_the_order_of_the_disks_changes_nothing(disks: list[Disk], random: Any) -> None:
    def outcome(order: list[Disk]) -> object:
        try:
            return choose(order, ANY, NO_MEDIA, WANTED)
        except Refusal as error:
            return error.code

    shuffled = list(disks)
    random.shuffle(shuffled)
    assert outcome(shuffled) == outcome(disks)


def test_what_an_installation_makes_is_the_same_on_every_start() -> None:
    """A kept seed makes the same partitions, whichever of two installations was cut short."""
    first, second = mark(), mark(image=OTHER, state=State.UNFINISHED)
    assert first.partitions == second.partitions
    assert mark(seed=UUID(int=1)).partitions.isdisjoint(first.partitions)
