"""Bearer tokens: `ppn_<id>_<secret>`. The store has a hash of it and nothing to make it from."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime

from ppn.errors import Refusal
from ppn.tenant.model import Token

ID_BYTES = 8
SECRET_BYTES = 32
ID_PATTERN = r"[0-9a-f]{16}"
TOKEN = re.compile(rf"ppn_({ID_PATTERN})_[A-Za-z0-9_-]{{43}}", re.ASCII)
# Compared with when there is no such token, so that both take the same work.
NO_DIGEST = "0" * 64


@dataclass(frozen=True)
class Issued:
    """A token that was just issued: the only moment at which its text is known.

    Args:
        token: as the store knows it.
        text: what the customer sends; shown once.
    """

    token: Token
    text: str = field(repr=False)


def new_id() -> str:
    """The public part of a new token."""
    return secrets.token_hex(ID_BYTES)


def new_text(token_id: str) -> str:
    """The whole text of a new token, with 256 random bits."""
    return f"ppn_{token_id}_{secrets.token_urlsafe(SECRET_BYTES)}"


def id_of(text: str) -> str | None:
    """The public part of a token; None for a text that cannot be one."""
    found = TOKEN.fullmatch(text)
    return None if found is None else found[1]


def check_id(token_id: str) -> None:
    """Refuse what is no token's public part, without repeating it: it may be a whole token.

    Raises:
        Refusal: `token_id_invalid`.
    """
    if not re.fullmatch(ID_PATTERN, token_id):
        raise Refusal(
            "this is no id of a token",
            code="token_id_invalid",
            constraint="16 hexadecimal digits",
            hint="list the tokens; what has become known of one should be revoked",
        )


def digest(text: str) -> str:
    """What the store keeps: SHA-256 in hex. 256 random bits need no slow hash."""
    return hashlib.sha256(text.encode()).hexdigest()


def check(text: str, known: Token | None, kept: str, now: datetime) -> Token:
    """The token a text is, if it is one and in force.

    Args:
        text: what was sent.
        known: the token that its public part names; None without one.
        kept: the digest that is stored for it; `NO_DIGEST` without one.
        now: the time.

    Raises:
        Refusal: `token_refused`, the same whatever is wrong with it.
    """
    same = hmac.compare_digest(digest(text), kept)
    if known is None or not same or not known.holds(now):
        raise refused()
    return known


def refused() -> Refusal:
    """The one refusal of every token that is not good: nothing is said of the reason."""
    return Refusal(
        "the bearer token is not valid",
        code="token_refused",
        constraint="valid bearer token",
        hint="ask the pool's operator for a token",
    )
