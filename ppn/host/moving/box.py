"""Seals what a VM consists of for the agent of the node it goes to, and for nobody else (INV-04).

Both agents draw an X25519 key for one move and keep it in memory alone. What they agree on is a key
for ChaCha20-Poly1305, which knows every change of a piece, its place or its file.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ppn.errors import Refusal

CONTEXT = b"ppn move 1\0"
KEY_BYTES = 32
OFFSET_BYTES = 8


@dataclass(frozen=True)
class Piece:
    """Where a piece belongs.

    Args:
        move: the move's id.
        number: of the file in the move; the manifest is 0.
        offset: in bytes.
        total: bytes of the whole file.
    """

    move: str
    number: int
    offset: int
    total: int

    @property
    def nonce(self) -> bytes:
        """Never the same for two pieces of one move."""
        return self.number.to_bytes(4, "big") + self.offset.to_bytes(OFFSET_BYTES, "big")

    @property
    def place(self) -> bytes:
        """What is not secret and must not be changed."""
        return f"{self.move}\0{self.number}\0{self.offset}\0{self.total}".encode()


class Receiver:
    """The destination agent's key for one move."""

    def __init__(self, move: str) -> None:
        self._move = move
        self._private = X25519PrivateKey.generate()
        self._known: tuple[str, ChaCha20Poly1305] | None = None

    @property
    def key(self) -> str:
        """Its public part, as base64."""
        return _text(self._private.public_key().public_bytes_raw())

    def open(self, piece: Piece, sender: str, box: str) -> bytes:
        """What was sealed.

        Args:
            piece: where it belongs.
            sender: the public key of who sealed it, as base64.
            box: what came, as base64.

        Raises:
            Refusal: `chunk_damaged`: not sealed for this agent and this place, or changed since.
        """
        try:
            if self._known is None or self._known[0] != sender:
                cipher = _cipher(self._private, sender, self._move, sender, self.key)
                self._known = (sender, cipher)
            sealed = base64.b64decode(box, validate=True)
            return self._known[1].decrypt(piece.nonce, sealed, piece.place)
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise Refusal(
                f"a piece at {piece.offset} of file {piece.number} is not what was sealed",
                code="chunk_damaged",
                constraint="sealed pieces of a move",
                hint="send it again",
            ) from error


class Sender:
    """The source agent's key for one run of sending.

    Args:
        move: the move's id.
        receiver: the destination agent's public key, as base64.

    Raises:
        ValueError: no key.
    """

    def __init__(self, move: str, receiver: str) -> None:
        private = X25519PrivateKey.generate()
        self.key = _text(private.public_key().public_bytes_raw())
        self._cipher = _cipher(private, receiver, move, self.key, receiver)

    def seal(self, piece: Piece, content: bytes) -> str:
        """A piece that the receiver alone can read, as base64."""
        return _text(self._cipher.encrypt(piece.nonce, content, piece.place))


def _cipher(
    private: X25519PrivateKey, other: str, move: str, sender: str, receiver: str
) -> ChaCha20Poly1305:
    public = X25519PublicKey.from_public_bytes(base64.b64decode(other, validate=True))
    about = CONTEXT + f"{move}\0{sender}\0{receiver}".encode()
    kdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=about)
    return ChaCha20Poly1305(kdf.derive(private.exchange(public)))


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
