"""Whether KVM is usable here: guest code must run under it before a deadline (HOST-09).

That `/dev/kvm` exists, opens and even makes a VM proves nothing: there are machines where all of
that works and no guest kernel ever comes up.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ppn.durable import write_atomic
from ppn.host.model import Kvm
from ppn.host.paths import Paths
from ppn.host.probe_guest import MARKER, initrd

QEMU = "qemu-system-x86_64"
# Guest code runs within seconds; a node that boots is busy, and who gives up too early emulates all
# its VMs until the next boot.
DEADLINE_SECONDS = 120.0
BUSYBOX = Path("/bin/busybox")
# A guest that has nothing to guard, nor ciphers to test, nor keyboard, nor more PCI buses than one
# (a q35 machine could have 256), comes to its first program sooner.
CMDLINE = (
    "console=ttyS0 panic=-1 quiet mitigations=off cryptomgr.notests"
    " pci=lastbus=0 initcall_blacklist=i8042_init"
)
# What QEMU says when the processor refused to go on; the guest stays paused for ever then.
BROKEN = "KVM internal error"


class Verdict(BaseModel):
    """What the probe found, for one boot of the node."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    boot_id: str
    usable: bool
    reason: str


def known_verdict(paths: Paths, boot_id: str) -> Kvm:
    """What the probe found in this boot; not usable until it has run."""
    try:
        verdict = Verdict.model_validate_json(paths.kvm_verdict.read_bytes())
    except (OSError, ValidationError):
        return Kvm(usable=False, reason="not probed in this boot", probed=False)
    if verdict.boot_id != boot_id:
        return Kvm(usable=False, reason="not probed in this boot", probed=False)
    return Kvm(usable=verdict.usable, reason=verdict.reason, probed=True)


def probe_kvm(
    paths: Paths,
    boot_id: str,
    *,
    deadline: float = DEADLINE_SECONDS,
    environment: Mapping[str, str] = os.environ,
) -> Kvm:
    """Run guest code under KVM, and keep what came of it for this boot.

    Args:
        paths: the node's files.
        boot_id: the node's present boot.
        deadline: seconds the guest has to say its word.
        environment: `PPN_PROBE_KERNEL` names another kernel than the node's own newest.
    """
    usable, reason = _probe(paths, deadline, environment.get("PPN_PROBE_KERNEL"))
    verdict = Verdict(boot_id=boot_id, usable=usable, reason=reason)
    paths.runtime.mkdir(parents=True, exist_ok=True)
    write_atomic(paths.kvm_verdict, verdict.model_dump_json().encode() + b"\n")
    return Kvm(usable=usable, reason=reason, probed=True)


def ensure_verdict(paths: Paths, boot_id: str, *, again: bool = False) -> tuple[bool, Kvm]:
    """The verdict of this boot, found now if there is none yet or `again` asks for it.

    Returns:
        Whether the probe ran, and the verdict.
    """
    verdict = known_verdict(paths, boot_id)
    if verdict.probed and not again:
        return False, verdict
    return True, probe_kvm(paths, boot_id)


def probe_kernel(paths: Paths, named: str | None) -> Path | None:
    """The kernel to boot: the named one, else the node's newest, else a guest image's."""
    if named:
        return Path(named) if Path(named).is_file() else None
    own = sorted(paths.boot.glob("vmlinuz-*"), key=lambda path: path.stat().st_mtime)
    images = sorted(paths.images.glob("*/kernel"))
    return next(iter([*reversed(own), *images]), None)


def _probe(paths: Paths, deadline: float, named: str | None) -> tuple[bool, str]:
    device = paths.root / "dev/kvm"
    if not device.exists():
        return False, f"{device} does not exist"
    if not os.access(device, os.R_OK | os.W_OK):
        return False, f"{device} may not be opened"
    kernel = probe_kernel(paths, named)
    if kernel is None:
        return False, f"no kernel to prove it with: none at {named or paths.boot}"
    try:
        busybox = BUSYBOX.read_bytes()
    except OSError as error:
        return False, f"no guest program to prove it with: {BUSYBOX}: {error.strerror}"
    with tempfile.NamedTemporaryFile(prefix="ppn-probe-", suffix=".initrd") as archive:
        archive.write(initrd(busybox))
        archive.flush()
        return run_guest(probe_command(kernel, Path(archive.name)), deadline)


def probe_command(kernel: Path, archive: Path, accelerator: str = "kvm") -> tuple[str, ...]:
    """QEMU's arguments for a guest without disk or network, on its standard output."""
    return (
        *(QEMU, "-nodefaults", "-no-user-config", "-machine", "q35", "-m", "256"),
        *("-accel", accelerator, "-cpu", "host" if accelerator == "kvm" else "max"),
        *("-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"),
        *("-kernel", str(kernel), "-initrd", str(archive)),
        *("-append", CMDLINE),
    )


def run_guest(argv: Sequence[str], deadline: float) -> tuple[bool, str]:
    """Run QEMU until its guest says the marker, it ends, or the deadline passes; then end it.

    Returns:
        Whether the marker came, and the reason in words.
    """
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        return False, f"cannot start {argv[0]}: {error.strerror}"
    with process:
        try:
            return _listen(process, deadline)
        finally:
            process.kill()


def _listen(process: subprocess.Popen[bytes], deadline: float) -> tuple[bool, str]:
    said = b""
    end = time.monotonic() + deadline
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout or -1, selectors.EVENT_READ)
        while (left := end - time.monotonic()) > 0 and selector.select(left):
            chunk = os.read(process.stdout.fileno() if process.stdout else -1, 65536)
            said = (said + chunk)[-65536:]
            if MARKER in said:
                return True, "guest code ran"
            if BROKEN.encode() in said:
                return False, f"guest code failed: {_line_with(said, BROKEN)}"
            if not chunk:
                return False, f"QEMU ended before guest code ran: {_last_line(said)}"
    return False, f"no guest code ran within {deadline:g} s"


def _line_with(said: bytes, words: str) -> str:
    lines = said.decode(errors="replace").splitlines()
    return next(line.strip() for line in lines if words in line)


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:200] if lines else "it said nothing"
