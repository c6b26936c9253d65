"""Who signed the site settings: OpenSSH signatures, judged by `ssh-keygen` itself (ISO-01)."""

from __future__ import annotations

import base64
import binascii
import struct
import tempfile
from pathlib import Path

from ppn.errors import PpnError, Refusal
from ppn.run import CommandFailed, run

NAMESPACE = "ppn-site"
MOST_BYTES = 64 * 1024
SECONDS = 30.0
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"


def verify(content: bytes, signature: bytes | None, signers: Path) -> str:
    """Refuse settings that no trusted operator signed as site settings.

    Args:
        content: the exact bytes of `site.json`.
        signature: the bytes of `site.json.sig`; `None` when there is none.
        signers: operators' public keys, in the form of ssh-keygen's ALLOWED SIGNERS.

    Returns:
        Who signed, as the signers' file calls them.

    Raises:
        Refusal: unsigned, a damaged signature, one for another purpose, of a signer who is not
            trusted, or of other content; each with a code of its own.
        PpnError: there are no signers to judge by, or ssh-keygen does not end.
    """
    if not signature:
        raise _refusal("are not signed", "settings_unsigned", "sign them with `ppn iso config`")
    if not signers.is_file():
        raise PpnError(
            f"{signers} is missing: nothing says whose settings are trusted",
            code="trust_missing",
            hint="build the image with the operator's keys: `ppn iso build --trust FILE`",
        )
    namespace = namespace_of(signature)
    if namespace != NAMESPACE:
        raise _refusal(
            f"are signed as {namespace!r}, not as {NAMESPACE!r}",
            "settings_namespace_wrong",
            f"sign them with `ssh-keygen -Y sign -n {NAMESPACE}`, as `ppn iso config` does",
        )
    # Judged as text: the settings are ASCII, which is checked before and changed by nothing.
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as error:
        raise _refusal(
            "are not plain ASCII", "settings_malformed", "make them with `ppn iso config`"
        ) from error
    return _judge(text, signature, signers)


def _judge(text: str, signature: bytes, signers: Path) -> str:
    """Ask ssh-keygen; the signature goes through a file of this process, for it takes no pipe."""
    with tempfile.TemporaryDirectory(prefix="ppn-signature-") as name:
        file = Path(name) / "site.json.sig"
        file.write_bytes(signature)
        # fmt: off
        found = run(
            ["ssh-keygen", "-Y", "find-principals", "-s", file, "-f", signers],
            timeout=SECONDS, accept=range(256),
        )
        # fmt: on
        who = found.stdout.strip().splitlines()[:1]
        if found.returncode != 0 or not who:
            raise _refusal(
                "are signed by somebody whom this image does not trust",
                "settings_signer_unknown",
                "sign them with the operator's key, or build the image with this key trusted",
            )
        principal = who[0].split(",", 1)[0]
        words = ["-n", NAMESPACE, "-s", str(file), "-f", str(signers), "-I", principal]
        try:
            run(["ssh-keygen", "-Y", "verify", *words], timeout=SECONDS, input=text)
        except CommandFailed as error:
            raise _refusal(
                f"are not what {principal} signed",
                "settings_altered",
                "somebody changed them after they were signed: sign them again",
            ) from error
    return principal


def namespace_of(signature: bytes) -> str:
    """What a signature says it is for (see PROTOCOL.sshsig of OpenSSH).

    Raises:
        Refusal: it is no OpenSSH signature.
    """
    try:
        lines = signature.decode("ascii").split()
        text = " ".join(lines)
        if len(signature) > MOST_BYTES or not text.startswith(BEGIN) or not text.endswith(END):
            raise ValueError("no armour")
        blob = base64.b64decode("".join(text[len(BEGIN) : -len(END)].split()), validate=True)
        if blob[:6] != b"SSHSIG" or struct.unpack(">I", blob[6:10]) != (1,):
            raise ValueError("another version")
        _, rest = _string(blob[10:])
        namespace, _ = _string(rest)
        return namespace.decode("ascii")
    except (ValueError, binascii.Error, struct.error) as error:
        raise _refusal(
            "have a damaged signature", "settings_signature_damaged", "sign them again"
        ) from error


def _string(blob: bytes) -> tuple[bytes, bytes]:
    (length,) = struct.unpack(">I", blob[:4])
    if length > len(blob) - 4:
        raise ValueError("cut off")
    return blob[4 : 4 + length], blob[4 + length :]


def _refusal(what: str, code: str, hint: str) -> Refusal:
    return Refusal(
        f"the site settings {what}", code=code, constraint="signature of the settings", hint=hint
    )
