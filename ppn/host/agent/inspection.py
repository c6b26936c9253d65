"""Reads what a VM is made of, for whoever looks for a cause: its record, its domain, its QEMU.

Never what the guest has in memory or on its disks, nor its seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ppn.errors import PpnError
from ppn.host.agent.policy import unknown
from ppn.host.backend import Backend
from ppn.host.paths import Paths, VmPaths
from ppn.host.sidecar import SidecarDamaged, read_sidecar
from ppn.wire.diagnosis import FileReport, Inspection, Unread

LIBVIRT_SECONDS = 5.0
LOG_BYTES = 16 * 1024
LOG_LINES = 40
ARGV_BYTES = 64 * 1024
FILES = 64
# The primary volume descriptor of ISO 9660 and, in it, the volume's label.
DESCRIPTOR, LABEL_AT, LABEL_BYTES = 16 * 2048, 40, 32
SEED_MARK, SEED_LABEL = b"\x01CD001", b"cidata"


def inspect(paths: Paths, vm: str, uri: str | None = None) -> Inspection:
    """What a VM is made of on this node.

    Args:
        paths: the node's files.
        vm: its id.
        uri: libvirt's connection name; the environment's or the system's when None.

    Raises:
        Refusal: `vm_unknown`: nothing of it is here, not even a log.
    """
    files = paths.vm(vm)
    unread: list[Unread] = []
    sidecar, keys = _sidecar(files, unread)
    pid = _pid(paths, vm)
    found = Inspection(
        vm=vm,
        sidecar=sidecar,
        user_data_keys=keys,
        files=tuple(_files(files)),
        seed=seed_state(files.seed),
        domain_xml=_domain(vm, uri, unread),
        pid=pid,
        argv=_argv(pid, vm) if pid is not None else (),
        qemu_log=_last_lines(paths.qemu_log(vm)),
        unread=tuple(unread),
    )
    if not unread and not (found.files or found.domain_xml or found.qemu_log):
        raise unknown(vm)
    return found


def seed_state(path: Path) -> Literal["ok", "damaged", "missing"]:
    """Whether a file is a seed volume: ISO 9660 with the label cloud-init looks for."""
    try:
        with path.open("rb") as volume:
            volume.seek(DESCRIPTOR)
            descriptor = volume.read(LABEL_AT + LABEL_BYTES)
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "damaged"
    label = descriptor[LABEL_AT:].strip().lower()
    return "ok" if descriptor.startswith(SEED_MARK) and label == SEED_LABEL else "damaged"


def _sidecar(files: VmPaths, unread: list[Unread]) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The record without user data, which may hold a guest's secrets, and the keys of that."""
    try:
        sidecar = read_sidecar(files.sidecar)
    except SidecarDamaged as error:
        unread.append(Unread(what="sidecar", code=error.code, message=error.message))
        return None, ()
    if sidecar is None:
        return None, ()
    shown = sidecar.model_dump(mode="json", exclude={"spec": {"user_data"}})
    return shown, tuple(sorted(sidecar.spec.user_data or {}))


def _domain(vm: str, uri: str | None, unread: list[Unread]) -> str:
    try:
        with Backend(uri, deadline=LIBVIRT_SECONDS) as backend:
            return backend.description(vm)
    except PpnError as error:
        unread.append(Unread(what="domain", code=error.code, message=error.message))
        return ""


def _files(files: VmPaths) -> Iterator[FileReport]:
    try:
        entries = sorted(files.folder.iterdir())[:FILES]
    except OSError:
        return
    for entry in entries:
        try:
            size = entry.lstat().st_blocks * 512
        except FileNotFoundError:
            # An operation removed it between the listing and this look.
            continue
        yield FileReport(name=entry.name, size_bytes=size)


def _pid(paths: Paths, vm: str) -> int | None:
    try:
        return int(paths.pid_file(vm).read_text())
    except (OSError, ValueError):
        return None


def _argv(pid: int, vm: str) -> tuple[str, ...]:
    """The arguments of a VM's QEMU; none of a process that has its number by now."""
    try:
        with Path(f"/proc/{pid}/cmdline").open("rb") as file:
            words = file.read(ARGV_BYTES).decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return ()
    is_its_own = any(word.split(",")[0] == f"guest={vm}" for word in words)
    return tuple(words) if is_its_own else ()


def _last_lines(path: Path) -> tuple[str, ...]:
    """The end of a log, bounded in bytes and lines; empty without one."""
    try:
        with path.open("rb") as log:
            log.seek(max(path.stat().st_size - LOG_BYTES, 0))
            text = log.read(LOG_BYTES).decode(errors="replace")
    except OSError:
        return ()
    # The lines of the command that started it; the arguments are told as such.
    lines = [line for line in text.splitlines() if not line.endswith("\\")]
    return tuple(lines[-LOG_LINES:])
