"""Who signed the site settings: nobody else's are taken (ISO-01)."""

from __future__ import annotations

from pathlib import Path

from ppn import sshsig
from ppn.errors import Refusal
from ppn.sshsig import MOST_BYTES, SignatureWrong, Wrong

__all__ = ["MOST_BYTES", "NAMESPACE", "verify"]

NAMESPACE = "ppn-site"
# Per way of being wrong: our code, and the next step.
REFUSALS = {
    Wrong.DAMAGED: ("settings_signature_damaged", "sign them again with `ppn iso config`"),
    Wrong.NAMESPACE: (
        "settings_namespace_wrong",
        f"sign them with `ssh-keygen -Y sign -n {NAMESPACE}`, as `ppn iso config` does",
    ),
    Wrong.UNKNOWN_SIGNER: (
        "settings_signer_unknown",
        "sign them with the operator's key, or build the image with this key trusted",
    ),
    Wrong.ALTERED: (
        "settings_altered",
        "they were changed after they were signed: sign them again with `ppn iso config`",
    ),
}


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
            trusted, or of other content; or there are no signers to judge by. Each has a code of
            its own.
        PpnError: ssh-keygen is missing or does not end.
    """
    if not signature:
        raise _refusal("are not signed", "settings_unsigned", "sign them with `ppn iso config`")
    if not signers.is_file():
        raise _refusal(
            "cannot be judged: this image was built without anybody's key to trust",
            "trust_missing",
            "build it with the operator's keys: `ppn iso build --keys FOLDER`",
        )
    # ssh-keygen judges text; this keeps it the very bytes that were read.
    if not content.isascii():
        raise _refusal("are not plain ASCII", "settings_malformed", "use `ppn iso config`")
    try:
        return sshsig.judge(content.decode("ascii"), signature, signers, NAMESPACE)
    except SignatureWrong as error:
        code, hint = REFUSALS[error.wrong]
        raise _refusal(f"are refused: their file {error.message}", code, hint) from error


def _refusal(what: str, code: str, hint: str) -> Refusal:
    return Refusal(
        f"the site settings {what}", code=code, constraint="signature of the settings", hint=hint
    )
