"""Bearer tokens: their text, their hash, and the one refusal of all that are not good."""

from __future__ import annotations

import hmac
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import Refusal
from ppn.tenant.model import Token
from ppn.tenant.tokens import NO_DIGEST, Issued, check, digest, id_of, new_id, new_text
from ppn.wire.problems import problem_of, status_of
from tests.unit.tenant.samples import NOW

SECOND = timedelta(seconds=1)
TOKEN = Token(id="0123456789abcdef", tenant="acme", scope="tenant", created=NOW)
TEXT = new_text(TOKEN.id)


def refused(text: str, known: Token | None, kept: str) -> Refusal:
    """The refusal of a token."""
    with pytest.raises(Refusal) as caught:
        check(text, known, kept, NOW)
    return caught.value


def test_a_token_is_its_id_and_256_random_bits() -> None:
    """TEN-03: `ppn_`, the id, 43 characters of base64url; no two are alike."""
    made = {new_text(new_id()) for _ in range(1000)}
    assert len({text.split("_", 2)[2] for text in made}) == 1000
    for text in made:
        word, token_id, secret = text.split("_", 2)
        assert (word, len(token_id), len(secret)) == ("ppn", 16, 43)
        assert id_of(text) == token_id


@given(st.text(max_size=80))
def test_what_is_no_token_has_no_id(text: str) -> None:
    assert id_of(text) is None


@pytest.mark.parametrize(
    "text",
    [TEXT + "\n", " " + TEXT, TEXT[:-1], TEXT + "A", TEXT.upper(), TEXT.replace("_", "-", 1), ""],
    # The token is another in each process; the names of the tests must not be.
    ids=["newline", "space", "short", "long", "upper", "hyphen", "empty"],
)
def test_almost_a_token_has_no_id(text: str) -> None:
    assert id_of(text) is None


def test_the_text_is_in_no_representation() -> None:
    """TEN-03: a token that is logged by mistake tells nothing."""
    issued = Issued(TOKEN, TEXT)
    secret = TEXT.split("_", 2)[2]
    assert secret not in repr(issued)
    assert secret not in digest(TEXT)


def test_a_token_in_force_is_found() -> None:
    assert check(TEXT, TOKEN, digest(TEXT), NOW) is TOKEN
    ending = replace(TOKEN, expires=NOW + timedelta(microseconds=1))
    assert check(TEXT, ending, digest(TEXT), NOW) is ending


def test_every_failure_is_the_same_refusal() -> None:
    """TEN-03: unknown, wrong, revoked and expired cannot be told apart; 401 each."""
    found = [
        refused(TEXT, None, NO_DIGEST),
        refused(new_text(TOKEN.id), TOKEN, digest(TEXT)),
        refused(TEXT, replace(TOKEN, revoked=NOW - SECOND), digest(TEXT)),
        refused(TEXT, replace(TOKEN, revoked=NOW + SECOND), digest(TEXT)),
        refused(TEXT, replace(TOKEN, expires=NOW), digest(TEXT)),
        refused(TEXT, replace(TOKEN, expires=NOW - SECOND), digest(TEXT)),
    ]
    bodies = {json.dumps(problem_of(refusal).model_dump()) for refusal in found}
    assert len(bodies) == 1
    assert status_of(found[0]) == 401
    assert TOKEN.id not in bodies.pop()


def test_a_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """TEN-03: whole digests, by the function made for it, also when there is no such token."""
    compared: list[tuple[str, str]] = []
    real = hmac.compare_digest

    def compare(left: str, right: str) -> bool:
        compared.append((left, right))
        return real(left, right)

    monkeypatch.setattr("ppn.tenant.tokens.hmac.compare_digest", compare)
    refused(TEXT, None, NO_DIGEST)
    check(TEXT, TOKEN, digest(TEXT), NOW)
    assert compared == [(digest(TEXT), NO_DIGEST), (digest(TEXT), digest(TEXT))]
    assert len(NO_DIGEST) == len(digest(TEXT))
