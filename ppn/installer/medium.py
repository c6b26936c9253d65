"""What the boot left for the installer, and where the site settings come from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppn.errors import PpnError, Refusal
from ppn.installer import settings, signature
from ppn.installer.settings import Machine, Site
from ppn.run import CommandFailed, run

SITE_LABEL = "PPN-SITE"
SETTINGS, SIGNATURE = "site.json", "site.json.sig"
SECONDS = 60.0
HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Boot:
    """What this boot is.

    Args:
        image: root hash of the verified image.
        root: where the verified root is mounted, to be copied.
        medium: kernel name of the device that the image is on.
        folder: where the image's medium is mounted.
        signers: whose site settings are trusted.
        power_off: whether to switch off after a refusal, rather than to halt.
    """

    image: str
    root: Path
    medium: str
    folder: Path
    signers: Path
    power_off: bool = False


@dataclass(frozen=True)
class Found:
    """Site settings that were found and judged.

    Args:
        site: the settings.
        signer: who signed them.
        source: where they were found, for people.
        devices: kernel names of the devices they came from.
        passed_over: settings that were there too, for people; empty when there were none.
    """

    site: Site
    signer: str
    source: str
    devices: frozenset[str] = frozenset()
    passed_over: str = ""


def read_boot(run_folder: Path, command_line: str) -> Boot:
    """What the initial RAM disk left behind.

    Args:
        run_folder: `/run/ppn`.
        command_line: the kernel's.

    Raises:
        PpnError: this system was not started from the image.
    """
    try:
        values = env_file((run_folder / "boot.env").read_text(encoding="utf-8"))
        words = dict(word.split("=", 1) for word in command_line.split() if word.startswith("ppn."))
        image = words["ppn.roothash"]
        if not HASH.fullmatch(image):
            raise ValueError(f"{image!r} is no root hash")
        return Boot(
            image=image,
            root=run_folder / "root",
            medium=Path(values["MEDIUM_DEVICE"]).name,
            folder=run_folder / "medium",
            signers=run_folder / "trust" / "allowed_signers",
            power_off=words.get("ppn.on_failure") == "poweroff",
        )
    except (OSError, ValueError, KeyError) as error:
        raise PpnError(
            f"this system was not started from ppn's image: {error!r}",
            code="boot_unknown",
            hint="start the machine from the image's medium",
        ) from error


def env_file(text: str) -> dict[str, str]:
    """Lines of the form NAME=VALUE, as the initial RAM disk writes them."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip().strip("'\"") for name, value in pairs}


def read_machine(sys: Path = Path("/sys")) -> Machine:
    """What this machine is known by; what cannot be read is left out."""
    macs = {
        _first_line(folder / "address")
        for folder in sorted((sys / "class" / "net").glob("*"))
        # Only what a piece of hardware stands behind.
        if (folder / "device").exists()
    }
    return Machine(
        macs=tuple(sorted(macs - {"", "00:00:00:00:00:00"})),
        serial=_first_line(sys / "class/dmi/id/product_serial"),
        uuid=_first_line(sys / "class/dmi/id/product_uuid").lower(),
    )


def _first_line(path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
    return "".join(c for c in text.partition("\n")[0] if " " <= c <= "~")


def site_devices(listed: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, frozenset[str]]]:
    """Devices that hold a second medium: path, and kernel names of it and of what it is part of.

    Args:
        listed: lsblk's tree.
    """
    yield from _labelled(listed, frozenset())


def _labelled(
    listed: Iterable[Mapping[str, Any]], above: frozenset[str]
) -> Iterator[tuple[str, frozenset[str]]]:
    for device in listed:
        names = above | {str(device.get("name"))}
        if device.get("label") == SITE_LABEL and device.get("fstype") == "iso9660":
            # A partition of it that tells the same is the same medium.
            yield str(device.get("path")), names
        else:
            yield from _labelled(device.get("children") or (), names)


def disks_of(listed: Iterable[Mapping[str, Any]], names: frozenset[str]) -> frozenset[str]:
    """Kernel names of the whole devices that any of these devices is, or is part of."""

    def holds(device: Mapping[str, Any]) -> bool:
        children = device.get("children") or ()
        return device.get("name") in names or any(holds(child) for child in children)

    return frozenset(str(device.get("name")) for device in listed if holds(device))


def has_settings(boot: Boot) -> bool:
    """Whether the image's own medium holds site settings."""
    return (boot.folder / "ppn" / SETTINGS).exists()


def find_settings(boot: Boot, listed: Iterable[Mapping[str, Any]], mounts: Path) -> Found:
    """The site settings: those of a second medium, else those on the image's own.

    A second medium whose settings are not trusted is refused, and nothing else is taken instead.

    Args:
        boot: what this boot is.
        listed: lsblk's tree.
        mounts: a folder to mount a second medium below.

    Raises:
        Refusal: none, several second media, one that cannot be read, or settings that are unsigned,
            altered, foreign or not sound.
    """
    second = list(site_devices(listed))
    if len(second) > 1:
        raise Refusal(
            f"{len(second)} media are labelled {SITE_LABEL}: "
            f"{', '.join(device for device, _ in second)}",
            code="settings_ambiguous",
            constraint="site settings",
            hint="leave the one in that is meant",
        )
    own = boot.folder / "ppn"
    if second:
        device, names = second[0]
        passed_over = f"those on the image's medium ({own})" if has_settings(boot) else ""
        with mounted(device, mounts / "site") as folder:
            site, signer = judged(folder, boot.signers)
        return Found(site, signer, f"the medium {SITE_LABEL} ({device})", names, passed_over)
    if not has_settings(boot):
        raise Refusal(
            f"there are no site settings: neither on the image's medium nor on one labelled"
            f" {SITE_LABEL}",
            code="settings_missing",
            constraint="site settings",
            hint="make them with `ppn iso config`, as a second medium or when the image is built",
        )
    site, signer = judged(own, boot.signers)
    return Found(site, signer, "the image's medium")


def judged(folder: Path, signers: Path) -> tuple[Site, str]:
    """Settings of a folder and who signed them; the very bytes that were judged are read.

    Raises:
        Refusal: unsigned, altered, foreign or not sound.
    """
    content = _bounded(folder / SETTINGS, settings.MOST_BYTES)
    signed = (folder / SIGNATURE).exists()
    found = _bounded(folder / SIGNATURE, signature.MOST_BYTES) if signed else None
    signer = signature.verify(content, found, signers)
    return settings.parse(content), signer


def _bounded(path: Path, most: int) -> bytes:
    """A file's bytes; one more than allowed when it is too long, for the reader to refuse."""
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise unreadable(path, error.strerror) from error


def unreadable(what: Path | str, why: str | None) -> Refusal:
    """The refusal of a medium, or of a file on it, that cannot be read."""
    return Refusal(
        f"cannot read {what}: {why}",
        code="settings_unreadable",
        constraint="site settings",
        hint="write the medium again",
    )


@contextmanager
def mounted(device: str, where: Path) -> Iterator[Path]:
    """A medium's folder while it is looked at; nothing on it can be run or be a device.

    Raises:
        Refusal: it is damaged.
    """
    where.mkdir(parents=True, exist_ok=True)
    options = "ro,nosuid,nodev,noexec"
    try:
        run(["mount", "-t", "iso9660", "-o", options, device, where], timeout=SECONDS)
    except CommandFailed as error:
        raise unreadable(device, error.message) from error
    try:
        yield where
    finally:
        run(["umount", where], timeout=SECONDS)


def kernel_command_line(path: Path = Path("/proc/cmdline")) -> str:
    """The kernel's command line."""
    return os.fsdecode(path.read_bytes()).strip()
