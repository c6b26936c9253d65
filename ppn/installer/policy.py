"""Which disk is taken, if any: a pure judgement, with a reason for every disk (ISO-04).

A disk is taken when it is the only one that the settings mean, and is empty or already a node's.

*Meant* is every disk that could be installed on and fits size, serial and model of the settings.
Two disks that are meant are one too many, even when one of them holds something: who did not think
of the second disk has not chosen between them either.

*Empty* is a disk on which libblkid finds nothing **and** of which all that was read is zeros: its
head and tail, and places all over it (`disks.places`). The first alone is not enough: a disk whose
headers were wiped, by mistake or by `wipefs`, holds its data still, as does one that a database
uses raw or that is encrypted without a header, and libblkid finds nothing on any of them. The ends
alone are not enough: one whose partition table was zeroed has nothing else there. New disks, and
disks that were emptied with `blkdiscard`, are zeros. Who wants another one taken empties it first;
the refusal says how.

*A node's* is a disk with our mark (`mark`) on which nothing stands but partitions that the mark
names. The mark alone is not enough: what is installed there later may leave it in its place, with
no partitions at all. Only an unfinished installation may have none. It names its node, and another
node's disk is left alone: a machine whose network card was changed may fit another node's settings,
and has its VMs on it still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ppn.errors import Refusal
from ppn.installer import settings
from ppn.installer.disks import GIB, Disk, uuids
from ppn.installer.mark import State

EMPTY_IT = "empty it with `blkdiscard` or `dd if=/dev/zero` from another system"


@dataclass(frozen=True)
class Wanted:
    """What is to be installed.

    Args:
        node: the node's name.
        image: root hash of the image.
        settings: digest of the node's settings.
    """

    node: str
    image: str
    settings: str


@dataclass(frozen=True)
class Verdict:
    """What was found about one disk.

    Args:
        disk: which.
        not_meant: why the settings do not mean it; empty when they do.
        forbidden: why it must not be written to; empty when it may.
        finding: what it is, when it may be written to.
    """

    disk: Disk
    not_meant: str = ""
    forbidden: str = ""
    finding: str = ""

    @property
    def line(self) -> str:
        """The verdict as a line of the console."""
        if self.not_meant:
            return f"{self.disk.title}: not meant: {self.not_meant}"
        if self.forbidden:
            return f"{self.disk.title}: not touched: {self.forbidden}"
        return f"{self.disk.title}: {self.finding}"


@dataclass(frozen=True)
class Choice:
    """The disk that is taken.

    Args:
        disk: which.
        installed: whether this very image has installed it from these very settings.
    """

    disk: Disk
    installed: bool


def choose(
    disks: Sequence[Disk], policy: settings.Disk, media: frozenset[str], wanted: Wanted
) -> Choice:
    """The one disk to install on.

    Args:
        disks: all disks of the machine.
        policy: which one is meant.
        media: kernel names of the disks that this system and its settings came from.
        wanted: what is to be installed.

    Raises:
        Refusal: none is meant, more than one, or the one must not be written to; the message tells
            of every disk why.
    """
    verdicts = [judge(disk, policy, media, wanted) for disk in disks]
    meant = [one for one in verdicts if not one.not_meant]
    lines = "; ".join(one.line for one in verdicts) or "the kernel sees none"
    if not meant:
        raise Refusal(
            f"no disk is meant by the settings: {lines}",
            code="disk_missing",
            constraint="disk policy",
            hint="attach a disk, or let the settings' `disk` mean one that is there",
        )
    if len(meant) > 1:
        raise Refusal(
            f"{len(meant)} disks are meant, and one may be: {lines}",
            code="disk_ambiguous",
            constraint="disk policy",
            hint="name the one in the settings' `disk` by serials, models or size",
        )
    (one,) = meant
    if one.forbidden:
        raise Refusal(
            f"the disk must not be written to: {lines}",
            code="disk_not_empty",
            constraint="disk policy",
            hint=f"when nothing on it is needed any more, {EMPTY_IT}",
        )
    if copies := copies_of(one.disk, disks):
        raise Refusal(
            f"{' and '.join(copies)} has the same partitions as the disk that is meant: {lines}",
            code="disk_copied",
            constraint="disk policy",
            hint="take the copy out of the machine: its partitions could be taken for the disk's",
        )
    return Choice(one.disk, is_installed(one.disk, wanted))


def copies_of(disk: Disk, disks: Sequence[Disk]) -> list[str]:
    """Names of the other disks that have partitions with the UUIDs of this node's disk.

    A copy of a node's disk may be a backup. Partitions are found by their UUIDs, here and by the
    installed system, so the copy's would be written to in place of the disk's.

    Args:
        disk: a node's, or an empty one.
        disks: all disks of the machine.
    """
    made = {str(one) for one in disk.mark.partitions} if disk.mark is not None else set()
    return [
        other.name
        for other in disks
        if other is not disk and any(one.uuid.lower() in made for one in other.partitions)
    ]


def judge(disk: Disk, policy: settings.Disk, media: frozenset[str], wanted: Wanted) -> Verdict:
    """One disk on its own; what it may be taken for is said last.

    Args:
        disk: which.
        policy: which one is meant.
        media: kernel names of the disks that this system and its settings came from.
        wanted: what is to be installed.
    """
    reason = why_not_meant(disk, policy, media)
    if reason:
        return Verdict(disk, not_meant=reason)
    if disk.used_by:
        return Verdict(disk, forbidden=f"in use: {', '.join(disk.used_by)}")
    if disk.fault:
        return Verdict(disk, forbidden=f"cannot be read: {disk.fault}")
    if is_empty(disk):
        return Verdict(disk, finding="empty")
    reason = why_not_ours(disk)
    if reason:
        return Verdict(disk, forbidden=reason)
    if is_installed(disk, wanted):
        return Verdict(disk, finding="installed by this image from these settings")
    if disk.mark is not None and disk.mark.state is State.UNFINISHED:
        return Verdict(disk, finding="a node's, whose installation did not come to its end")
    if policy.reinstall == "never":
        return Verdict(disk, forbidden="a node's already, and the settings say: reinstall never")
    if disk.mark is not None and disk.mark.node != wanted.node:
        whose = f"is node {disk.mark.node}'s, and this machine is to be {wanted.node}"
        return Verdict(disk, forbidden=whose)
    return Verdict(disk, finding="a node's, from another image or other settings")


def why_not_meant(disk: Disk, policy: settings.Disk, media: frozenset[str]) -> str:
    """Why the settings do not mean a disk; empty when they do."""
    if disk.name in media:
        return "this system was started from it, or its settings are on it"
    if disk.removable:
        return "removable"
    if disk.size == 0:
        return "no medium in it"
    if disk.read_only:
        return "read-only"
    if disk.size < policy.min_gib * GIB:
        return f"smaller than {policy.min_gib} GiB"
    if policy.max_gib is not None and disk.size > policy.max_gib * GIB:
        return f"larger than {policy.max_gib} GiB"
    if policy.serials and not any(fnmatchcase(disk.serial, one) for one in policy.serials):
        return f"its serial {disk.serial or '(none)'} is none of the settings'"
    if policy.models and not any(fnmatchcase(disk.model, one) for one in policy.models):
        return f"its model {disk.model or '(none)'} is none of the settings'"
    return ""


def is_empty(disk: Disk) -> bool:
    """Whether nothing is on a disk, as this module's first lines say it."""
    return disk.blank and not (disk.table or disk.content or disk.partitions or disk.mark)


def why_not_ours(disk: Disk) -> str:
    """What stands on a disk that we did not put there; empty when nothing does."""
    if disk.content:
        return f"holds {disk.content}"
    known = disk.mark.partitions if disk.mark is not None else frozenset()
    found = uuids(disk)
    if disk.partitions and (disk.mark is None or found is None or not found <= known):
        held = ", ".join(
            f"{one.name} ({one.content or one.label or '?'})" for one in disk.partitions
        )
        return f"has partitions that no installer of ours made: {held}"
    if disk.mark is None:
        if disk.table:
            return f"has a partition table ({disk.table})"
        return "what was read of it is not zero: it may hold data without a header"
    if disk.mark.state is State.COMPLETE and not disk.partitions:
        # Whoever took the table away may have put something else there, or want the node's back.
        return "was a node's, and its partitions are gone: it may hold data without a header"
    if disk.table not in ("", "gpt"):
        return f"has a partition table of another kind ({disk.table})"
    return ""


def is_installed(disk: Disk, wanted: Wanted) -> bool:
    """Whether a disk is what an installation of this image with these settings leaves behind."""
    mark = disk.mark
    if disk.fault or mark is None or mark.state is not State.COMPLETE or why_not_ours(disk):
        return False
    made_by = (mark.image, mark.settings)
    return uuids(disk) == mark.partitions and made_by == (wanted.image, wanted.settings)
