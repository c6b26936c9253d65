"""The form of a probe on the wire: 32 bytes, in network order."""

from __future__ import annotations

import struct

from ppn.mesh.policy import Phase, Probe

# Magic, version, phase, two bytes of zero, then session, sequence and echo.
LAYOUT = struct.Struct("!4sBBHQQQ")
MAGIC = b"PPNK"
VERSION = 1


def encode(probe: Probe) -> bytes:
    """A probe as a datagram."""
    return LAYOUT.pack(MAGIC, VERSION, probe.phase, 0, probe.session, probe.sequence, probe.echo)


def decode(datagram: bytes) -> Probe | None:
    """A datagram as a probe, or `None` when it is none of this version."""
    if len(datagram) != LAYOUT.size:
        return None
    magic, version, phase, zero, session, sequence, echo = LAYOUT.unpack(datagram)
    if (magic, version, zero) != (MAGIC, VERSION, 0) or phase not in tuple(Phase) or not session:
        return None
    return Probe(Phase(phase), session, sequence, echo)
