"""What has come of a VM so far, at the node it goes to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from pydantic import ValidationError

from ppn.durable import sync_folder
from ppn.errors import Refusal
from ppn.host.disk import MIB, disk_sizes, is_self_contained
from ppn.host.model import NodeState
from ppn.host.moving.copies import (
    MOST_MANIFEST_BYTES,
    Manifest,
    ManifestDamaged,
    copy_path,
    manifest_path,
    parts_of,
    read_manifest,
)
from ppn.host.paths import VmPaths
from ppn.host.plan import MIB_PER_GIB, wanted_disks
from ppn.host.sidecar import Sidecar
from ppn.host.spec import VmSpec
from ppn.wire.moving import MANIFEST


class Incoming:
    """The files of one arriving VM; one caller at a time.

    Each file grows from its begin, so its length says what has come.

    Args:
        files: of the VM.
    """

    def __init__(self, files: VmPaths) -> None:
        self._files = files
        self._part = files.moving / "manifest.part"
        self._manifest: Manifest | None = None
        files.moving.mkdir(mode=0o700, exist_ok=True)

    def manifest(self) -> Manifest | None:
        """What is to come; None while that has not come itself.

        Raises:
            ManifestDamaged: it cannot be read.
        """
        if self._manifest is None:
            self._manifest = read_manifest(self._files)
        return self._manifest

    def have(self) -> dict[str, int]:
        """How many bytes of each file have come; of disks only once it is known which they are."""
        manifest = self.manifest()
        if manifest is None:
            return {MANIFEST: _size(self._part)}
        copies = {one.disk: _size(copy_path(self._files, one.disk)) for one in manifest.copies}
        return {MANIFEST: _size(manifest_path(self._files)), **copies}

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the manifest's file; empty while that has not come."""
        if self.manifest() is None:
            return ""
        return hashlib.sha256(manifest_path(self._files).read_bytes()).hexdigest()

    @property
    def total(self) -> int:
        """How many bytes of disks there are to come; 0 while that is not known."""
        manifest = self.manifest()
        return sum(one.bytes for one in manifest.copies) if manifest is not None else 0

    @property
    def done(self) -> int:
        """How many bytes of disks have come."""
        return sum(size for name, size in self.have().items() if name != MANIFEST)

    @property
    def is_complete(self) -> bool:
        """Whether every byte has come."""
        manifest = self.manifest()
        return manifest is not None and self.done == self.total

    def number(self, file: str, offset: int, total: int) -> int:
        """A file's number in the move.

        Args:
            file: its name.
            offset: of the next piece, in bytes.
            total: its length in bytes, as the sender says.

        Raises:
            Refusal: there is no such file, it has another length, or the piece is not the next.
        """
        manifest = self.manifest()
        wanted = {one.disk: one.bytes for one in manifest.copies} if manifest is not None else {}
        fits = total <= MOST_MANIFEST_BYTES if file == MANIFEST else wanted.get(file) == total
        if not fits:
            raise _out_of_place(f"file {file} of {total} bytes is not what is to come")
        have = self.have()[file]
        if offset > have:
            raise _out_of_place(f"of file {file} {have} bytes have come, not {offset}")
        return manifest.numbers[file] if manifest is not None else 0

    def write(self, file: str, offset: int, total: int, content: bytes) -> int:
        """Put the next piece of a file in its place; one that has come already changes nothing.

        Args:
            file: its name.
            offset: of the piece in bytes.
            total: the file's length in bytes.
            content: of the piece.

        Returns:
            How many bytes of the file have come.

        Raises:
            Refusal: more than the file has.
            ManifestDamaged: the manifest is whole now, and is none.
            OSError: no room.
        """
        have, end = self.have()[file], offset + len(content)
        if end > total:
            raise _out_of_place(f"file {file} has {total} bytes, not {end}")
        if end > have:
            path = self._part if file == MANIFEST else copy_path(self._files, file)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as part:
                part.seek(offset)
                part.write(content)
        if file == MANIFEST and end == total and self.manifest() is None:
            self._take_manifest()
        return max(have, end)

    def damaged(self, on_bytes: Callable[[int], None]) -> tuple[str, ...]:
        """Make what has come durable and compare it with the manifest; what differs is removed.

        Args:
            on_bytes: told how many bytes were compared so far.

        Returns:
            The disks that are not what was sent, which have to come again.

        Raises:
            OSError: a file cannot be read.
        """
        manifest = self.manifest()
        wrong: list[str] = []
        compared = 0
        for copy in manifest.copies if manifest is not None else ():
            path = copy_path(self._files, copy.disk)
            with path.open("rb") as content:
                os.fsync(content.fileno())
            digest = hashlib.sha256()
            for part in parts_of(path):
                digest.update(part)
                compared += len(part)
                on_bytes(compared)
            if digest.hexdigest() != copy.sha256:
                wrong.append(copy.disk)
        for disk in wrong:
            copy_path(self._files, disk).unlink()
        sync_folder(self._files.moving)
        return tuple(wrong)

    def check_disks(self, spec: VmSpec) -> None:
        """Refuse disks that read another file of this node, and others than room was kept for.

        Args:
            spec: the VM as it was offered.

        Raises:
            Refusal: `disk_foreign`.
            PpnError: a disk is no qcow2 image.
            OSError: a file cannot be read.
        """
        manifest = self.manifest()
        declared = dict(wanted_disks(spec))
        names = [copy.disk for copy in manifest.copies] if manifest is not None else []
        for name in sorted({*declared} - {*names}):
            raise _foreign(spec.name, f"disk {name} is not among what was sent")
        for name in names:
            path = copy_path(self._files, name)
            if not is_self_contained(path):
                raise _foreign(spec.name, f"disk {name} is not whole in itself")
            if name in declared and disk_sizes(path)[0] > declared[name] * MIB_PER_GIB:
                raise _foreign(spec.name, f"disk {name} is larger than it was offered")

    def place(self) -> None:
        """Give every disk that has come its place among the VM's files; done already, nothing."""
        manifest = self.manifest()
        for copy in manifest.copies if manifest is not None else ():
            path = copy_path(self._files, copy.disk)
            if path.exists():
                os.replace(path, self._files.disk(copy.disk))
        sync_folder(self._files.folder)

    def _take_manifest(self) -> None:
        content = self._part.read_bytes()
        try:
            Manifest.model_validate_json(content)
        except ValidationError as error:
            self._part.unlink()
            raise ManifestDamaged(
                "what came as the manifest is none",
                hint="ppn of both nodes is of one release: run the pool's deploy again",
            ) from error
        with self._part.open("rb") as part:
            os.fsync(part.fileno())
        os.replace(self._part, manifest_path(self._files))
        sync_folder(self._files.moving)


def check_room(kept: Sidecar, total_bytes: int, node: NodeState) -> None:
    """Refuse copies that take room that was kept for others.

    Args:
        kept: what the destination admitted.
        total_bytes: of all copies, none of which has come yet.
        node: the destination as it is.

    Raises:
        Refusal: `disk_exhausted`.
    """
    more = total_bytes // MIB - kept.spec.promised_gib * MIB_PER_GIB
    free = max(node.disk.free_mib - node.disk.promised_mib, 0)
    if more > free:
        raise Refusal(
            f"vm {kept.spec.name}: its copies are larger than what room was kept for",
            code="disk_exhausted",
            constraint="free disk less what disks may still grow by",
            wanted=more,
            free=free,
            unit="MiB",
            hint="discard detached disks of it, or choose another node",
        )


def _size(path: os.PathLike[str]) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _foreign(vm: str, reason: str) -> Refusal:
    return Refusal(
        f"vm {vm}: {reason}",
        code="disk_foreign",
        constraint="disks whole in themselves",
        hint="look at the node that sends it: it is wrong, or no longer the operator's",
    )


def _out_of_place(message: str) -> Refusal:
    return Refusal(
        message,
        code="chunk_out_of_place",
        constraint="order of a move's pieces",
        hint="ask what has come, and go on from there",
    )
