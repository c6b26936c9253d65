"""What an operator gives to an image, public keys and site settings: judged before it is built."""

from __future__ import annotations

from pathlib import Path

from iso.errors import IsoError
from ppn.installer import signature

ALLOWED_SIGNERS = "allowed_signers"
TEST_MARK = "TEST-KEYS"
# What `ppn iso keys` puts into `public`: all of it goes onto the medium, for anyone to read.
PUBLIC_NAMES = (ALLOWED_SIGNERS, TEST_MARK, "owner.guid")
PUBLIC_KINDS = (".auth", ".cer", ".crt", ".esl", ".pub")
PRIVATE = b"PRIVATE KEY-----"


def need_fit(keys: Path | None, site: Path | None) -> None:
    """Refuse what must not be on a medium, or would be of no use there.

    Args:
        keys: folder of public keys and enrolment files.
        site: site settings; their signature lies beside them as `.sig`.

    Raises:
        IsoError: `keys_unfit`, `site_unfit`, `not_found`.
        Refusal: the settings are not signed by one of these keys.
    """
    for path in (keys, site):
        if path is not None and not path.exists():
            raise IsoError(f"there is no {path}", code="not_found")
    if keys is not None:
        need_public(keys)
    if site is not None:
        need_believed(site, keys)


def need_public(keys: Path) -> None:
    """Refuse a folder of keys that holds anything but public ones.

    Raises:
        IsoError: `keys_unfit`.
    """
    if not (keys / ALLOWED_SIGNERS).is_file():
        raise _unfit(f"{keys} has no file {ALLOWED_SIGNERS}")
    for path in sorted(keys.iterdir()):
        known = path.name in PUBLIC_NAMES or path.suffix in PUBLIC_KINDS
        if not known or not path.is_file() or PRIVATE in path.read_bytes():
            raise _unfit(f"{path} is no public key, and all of {keys} would go onto the medium")


def _unfit(message: str) -> IsoError:
    return IsoError(
        message, code="keys_unfit", hint="give the folder `public` that `ppn iso keys` made"
    )


def need_believed(site: Path, keys: Path | None) -> None:
    """Refuse site settings that the image's own installer would refuse.

    Raises:
        IsoError: `site_unfit`.
        Refusal: nobody whom the image trusts has signed them.
    """
    if keys is None:
        raise IsoError(
            f"an image without keys believes nobody's settings, and so not {site}",
            code="site_unfit",
            hint="give the signer's public keys too: `--keys FOLDER`",
        )
    signed = signature_of(site)
    proof = signed.read_bytes() if signed.is_file() else None
    signature.verify(site.read_bytes(), proof, keys / ALLOWED_SIGNERS)


def signature_of(site: Path) -> Path:
    """Where the signature of site settings is."""
    return site.with_name(f"{site.name}.sig")
