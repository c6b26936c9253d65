"""OpenSSH signatures over documents: made and judged by `ssh-keygen`, which every machine has."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory

from ppn.errors import PpnError
from ppn.run import CommandFailed, run

SECONDS = 60.0
MOST_BYTES = 64 * 1024
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
MAGIC = b"SSHSIG"


class Wrong(StrEnum):
    """What can be wrong with a signature."""

    DAMAGED = "signature_damaged"
    NAMESPACE = "namespace_wrong"
    UNKNOWN_SIGNER = "signer_unknown"
    ALTERED = "content_altered"


class SignatureWrong(PpnError):
    """A document is not signed as it must be.

    Args:
        wrong: in which way.
        message: of what is wrong, to stand after the document's name.
    """

    code = "signature_wrong"

    def __init__(self, wrong: Wrong, message: str) -> None:
        super().__init__(message, code=wrong.value)
        self.wrong = wrong


def judge(content: str, signature: bytes, signers: Path, namespace: str) -> str:
    """Find out who signed a document.

    Args:
        content: the whole document; plain text, as ours all are.
        signature: the bytes of its signature file.
        signers: whose signatures count, in the form of ssh-keygen's ALLOWED SIGNERS.
        namespace: what the signature must be for.

    Returns:
        The signer, as the signers' file calls him.

    Raises:
        SignatureWrong: with one `Wrong` for each way in which it can be wrong.
        CommandFailed: ssh-keygen is missing or does not end.
    """
    said = namespace_of(signature)
    if said != namespace:
        raise SignatureWrong(Wrong.NAMESPACE, f"is signed as {said!r}, not as {namespace!r}")
    # ssh-keygen takes the signature from a file alone.
    with TemporaryDirectory(prefix="ppn-signature-") as name:
        file = Path(name) / "signature"
        file.write_bytes(signature)
        words: list[str | Path] = ["-s", file, "-f", signers]
        found = run(
            ["ssh-keygen", "-Y", "find-principals", *words], timeout=SECONDS, accept=range(256)
        )
        who = found.stdout.split()[:1]
        if found.returncode != 0 or not who:
            raise SignatureWrong(
                Wrong.UNKNOWN_SIGNER, "is signed by somebody who is not trusted here"
            )
        principal = who[0].split(",", 1)[0]
        check = ["-n", namespace, "-I", principal, *words]
        if not _holds("verify", content, check):
            if _holds("check-novalidate", content, ["-n", namespace, "-s", file]):
                message = f"is signed by {principal}, who is not trusted to sign as {namespace!r}"
                raise SignatureWrong(Wrong.UNKNOWN_SIGNER, message)
            raise SignatureWrong(Wrong.ALTERED, f"is not what {principal} signed")
    return principal


def _holds(question: str, content: str, words: Sequence[str | Path]) -> bool:
    argv = ["ssh-keygen", "-Y", question, *words]
    return run(argv, timeout=SECONDS, input=content, accept=range(256)).returncode == 0


def namespace_of(signature: bytes) -> str:
    """What a signature says it is for (see PROTOCOL.sshsig of OpenSSH).

    Raises:
        SignatureWrong: it is no OpenSSH signature.
    """
    try:
        text = signature.decode("ascii").strip()
        if len(signature) > MOST_BYTES or not (text.startswith(BEGIN) and text.endswith(END)):
            raise ValueError("it has no frame")
        inner = text[len(BEGIN) : -len(END)]
        blob = base64.b64decode("".join(inner.split()), validate=True)
        if blob[:6] != MAGIC or struct.unpack(">I", blob[6:10]) != (1,):
            raise ValueError("it has another version")
        _, rest = _string(blob[10:])
        namespace, _ = _string(rest)
        return namespace.decode("ascii")
    except (ValueError, binascii.Error, struct.error) as error:
        raise SignatureWrong(Wrong.DAMAGED, "has a signature that cannot be read") from error


def _string(blob: bytes) -> tuple[bytes, bytes]:
    (length,) = struct.unpack(">I", blob[:4])
    if length > len(blob) - 4:
        raise ValueError("it is cut short")
    return blob[4 : 4 + length], blob[4 + length :]


def sign(key: Path, content: str, namespace: str) -> str:
    """Sign a document.

    Args:
        key: a private key's file; or a public one whose private part the ssh-agent has.
        content: the whole document.
        namespace: what the signature is for.

    Raises:
        PpnError: `signing_failed`, with what ssh-keygen says.
    """
    argv: list[str | Path] = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", key]
    try:
        return run(argv, timeout=SECONDS, input=content).stdout
    except CommandFailed as error:
        raise PpnError(
            f"nothing was signed with {key}: {error.message}",
            code="signing_failed",
            hint="a key with a passphrase must be in the ssh-agent: run `ssh-add` first",
        ) from error


def allowed_line(principal: str, public_key: str, namespaces: tuple[str, ...]) -> str:
    """A line of an allowed-signers file.

    Args:
        principal: whose key, one word.
        public_key: a line as in `id_ed25519.pub`.
        namespaces: what it may sign.
    """
    kind, key, *_ = public_key.split()
    return f'{principal} namespaces="{",".join(namespaces)}" {kind} {key}\n'
