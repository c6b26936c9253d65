"""Signed notes and their keys, as C2SP signed-note and tlog-cosignature describe them.

A note is a text with signature lines below it. Two kinds of signature are known: Ed25519 over the
text (a log's), and Ed25519 over the text and a time (a witness's).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ppn.errors import PpnError

# The type of a key: of a log or of a witness.
Kind = Literal[1, 4]
LOG: Kind = 1
WITNESS: Kind = 4

MAX_NOTE_BYTES = 64 * 1024
MAX_SIGNATURES = 64
NAME = re.compile(r"[^\s+\x00-\x1f]{1,255}")
LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
VKEY = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})")


class NoteInvalid(PpnError):
    """A note or a key that cannot be read, or that no trusted key signed."""

    code = "audit_note_malformed"


@dataclass(frozen=True)
class Signature:
    """One signature line.

    Args:
        name: of the key.
        key_id: four bytes that follow from name, type and key.
        value: what the key made of the text.
    """

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> str:
        """The line, with its end."""
        return f"— {self.name} {to_base64(self.key_id + self.value)}\n"


@dataclass(frozen=True)
class Note:
    """A text and the signatures below it.

    Args:
        text: with an end of line at its end.
        signatures: in their order.
    """

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        """The whole note."""
        return (self.text + "\n" + "".join(one.line() for one in self.signatures)).encode()


def parse_note(data: bytes) -> Note:
    """Read a note; nothing is verified.

    Raises:
        NoteInvalid: not in the format.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise NoteInvalid(f"a note has more than {MAX_NOTE_BYTES} bytes")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoteInvalid("a note is no UTF-8") from error
    if any(letter < " " and letter != "\n" for letter in whole):
        raise NoteInvalid("a note holds control characters")
    text, blank, below = whole.rpartition("\n\n")
    if not blank or not text or not below.endswith("\n"):
        raise NoteInvalid("a note has no text, no blank line or no signature")
    return Note(text + "\n", parse_signatures(below))


def parse_signatures(lines: str) -> tuple[Signature, ...]:
    """Read signature lines.

    Raises:
        NoteInvalid: a line that is none, or too many.
    """
    found = []
    for line in lines.removesuffix("\n").split("\n"):
        match = LINE.fullmatch(line)
        value = from_base64(match[2]) if match else None
        if match is None or value is None or len(value) < 5:
            raise NoteInvalid("a line below the text is no signature")
        found.append(Signature(match[1], value[:4], value[4:]))
    if len(found) > MAX_SIGNATURES:
        raise NoteInvalid(f"a note has more than {MAX_SIGNATURES} signatures")
    return tuple(found)


@dataclass(frozen=True)
class Verifier:
    """A public key under a name.

    Args:
        name: of the log (its origin) or the witness.
        kind: what its signatures are over.
        key: the key.
    """

    name: str
    kind: Kind
    key: Ed25519PublicKey

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell this key from others of the same name."""
        return _key_id(self.name, self.kind, self.key)

    def text(self) -> str:
        """The key as C2SP writes it, a `vkey`."""
        encoded = to_base64(bytes([self.kind]) + _raw(self.key))
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    def signature_in(self, note: Note) -> Signature:
        """This key's signature of a note, verified.

        Raises:
            NoteInvalid: `audit_key_wrong` when there is none, `audit_signature_wrong` when there is
                and it does not verify.
        """
        own = self.key_id
        found = [one for one in note.signatures if (one.name, one.key_id) == (self.name, own)]
        if not found:
            names = ", ".join(one.name for one in note.signatures)
            raise NoteInvalid(
                f"{self.name} with key {own.hex()} has not signed this, but {names}",
                code="audit_key_wrong",
                hint="is this the key of that log or witness?",
            )
        for one in found:
            if not self.verifies(note.text, one):
                raise NoteInvalid(
                    f"a signature of {self.name} does not verify", code="audit_signature_wrong"
                )
        return found[0]

    def verifies(self, text: str, signature: Signature) -> bool:
        """Whether a signature is this key's over a text."""
        try:
            if self.kind == LOG:
                self.key.verify(signature.value, text.encode())
            else:
                stamp, value = signature.value[:8], signature.value[8:]
                self.key.verify(value, _cosigned(text, int.from_bytes(stamp, "big")))
        except InvalidSignature:
            return False
        return True


def parse_verifier(text: str) -> Verifier:
    """A key as C2SP writes it, a `vkey`.

    Raises:
        NoteInvalid: not in the format, or of another type.
    """
    match = VKEY.fullmatch(text.strip())
    raw = from_base64(match[3]) if match else None
    if match is None or raw is None or len(raw) != 33 or raw[0] not in (LOG, WITNESS):
        raise NoteInvalid(
            "this is no Ed25519 key of a log or witness in one line",
            code="audit_key_malformed",
            hint="it looks like NAME+0123abcd+BASE64",
        )
    kind: Kind = LOG if raw[0] == LOG else WITNESS
    made = Verifier(match[1], kind, Ed25519PublicKey.from_public_bytes(raw[1:]))
    if made.key_id.hex() != match[2]:
        raise NoteInvalid("a key's id does not follow from it", code="audit_key_malformed")
    return made


@dataclass(frozen=True)
class Signer:
    """A private key under a name.

    Args:
        name: of the log (its origin) or the witness.
        key: the key.
    """

    name: str
    key: Ed25519PrivateKey

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise NoteInvalid(
                f"{self.name!r} is no name of a log or witness: it may hold no space and no plus",
                code="audit_origin_invalid",
            )

    def verifier(self, kind: Kind) -> Verifier:
        """The public half."""
        return Verifier(self.name, kind, self.key.public_key())

    def sign(self, text: str) -> Signature:
        """A log's signature of a text."""
        return Signature(self.name, self.verifier(LOG).key_id, self.key.sign(text.encode()))

    def cosign(self, text: str, at: int) -> Signature:
        """A witness's signature of a checkpoint's text.

        Args:
            text: the checkpoint's.
            at: when, in seconds since 1970.
        """
        value = at.to_bytes(8, "big") + self.key.sign(_cosigned(text, at))
        return Signature(self.name, self.verifier(WITNESS).key_id, value)


def with_signatures(note: Note, added: Iterable[Signature]) -> Note:
    """A note with further signatures below the ones it has."""
    return Note(note.text, (*note.signatures, *added))


def to_base64(value: bytes) -> str:
    """Bytes as standard base64."""
    return base64.b64encode(value).decode("ascii")


def from_base64(text: str) -> bytes | None:
    """The bytes of standard base64 in its one spelling, None for anything else."""
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return value if to_base64(value) == text else None


def _cosigned(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _key_id(name: str, kind: Kind, key: Ed25519PublicKey) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + _raw(key)).digest()[:4]
