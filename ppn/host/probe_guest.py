"""The smallest guest that proves its code runs: an initial RAM disk around a static busybox."""

from __future__ import annotations

from ppn.host import cpio

MARKER = b"ppn-probe: guest code runs"
SCRIPT = b'#!/bin/busybox sh\necho "%s"\n/bin/busybox poweroff -f\n' % MARKER
CONSOLE = (5, 1)


def initrd(busybox: bytes) -> bytes:
    """A newc archive whose first program says the marker on the console and powers off.

    Args:
        busybox: a statically linked busybox.
    """
    return cpio.archive(
        (
            cpio.folder("bin"),
            cpio.file("bin/busybox", busybox, mode=0o755),
            cpio.folder("dev"),
            cpio.character_device("dev/console", *CONSOLE),
            cpio.file("init", SCRIPT, mode=0o755),
        )
    )
