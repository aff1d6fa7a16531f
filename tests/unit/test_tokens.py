"""Offer tokens: what was sealed comes back, and nothing else does."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.clock import DAY, SECOND
from libs.common.errors import Invalid
from libs.common.tokens import OfferToken, TokenSealer

KEY = bytes(range(32))
ALPHABET = string.ascii_letters + string.digits + "-_"
NOW = 1_700_000_000_000
TOKEN = OfferToken("d-1", "product:p-1", "anon:v-1", "basket", NOW, "p-1", 9.99)


def refusal(text: str, key: bytes = KEY) -> str:
    """The code with which opening ``text`` is refused."""
    with pytest.raises(Invalid) as caught:
        TokenSealer(key).open(text, NOW, DAY)
    assert caught.value.field == "/token"
    return caught.value.code


def test_sealed_token_opens_to_what_it_was_and_hides_it() -> None:
    text = TokenSealer(KEY).seal(TOKEN)
    assert TokenSealer(KEY).open(text, NOW + DAY, DAY) == TOKEN
    assert re.fullmatch(r"[A-Za-z0-9_-]+", text)
    assert text == TokenSealer(KEY).seal(TOKEN)


def test_token_expires() -> None:
    text = TokenSealer(KEY).seal(TOKEN)
    with pytest.raises(Invalid) as caught:
        TokenSealer(KEY).open(text, NOW + DAY + SECOND, DAY)
    assert caught.value.code == "token_expired"


def test_any_changed_character_is_refused() -> None:
    # Every length of the last base64 group, so that spare bits of the last character are among them.
    for decision in ("d", "dd", "ddd"):
        text = TokenSealer(KEY).seal(OfferToken(decision, "o", "c", "p", NOW))
        for place in range(len(text)):
            for character in ALPHABET:
                if character != text[place]:
                    changed = text[:place] + character + text[place + 1 :]
                    assert refusal(changed) == "token_invalid", (place, character)


@pytest.mark.parametrize("extra", [*ALPHABET, "=", "==", "\n", " ", "+", "/", ".", "é", "\0", "\udc80"])
def test_any_added_character_is_refused(extra: str) -> None:
    text = TokenSealer(KEY).seal(TOKEN)
    for place in range(len(text) + 1):
        # Adding a character next to its equal gives one text for two places: still a longer one.
        assert refusal(text[:place] + extra + text[place:]) == "token_invalid"


def test_any_removed_character_is_refused() -> None:
    text = TokenSealer(KEY).seal(TOKEN)
    for place in range(len(text)):
        assert refusal(text[:place] + text[place + 1 :]) == "token_invalid"
    assert refusal("") == "token_invalid"


def test_token_of_another_installation_is_refused() -> None:
    assert refusal(TokenSealer(bytes(32)).seal(TOKEN)) == "token_invalid"


@given(st.text(max_size=300))
def test_no_text_breaks_opening(text: str) -> None:
    assert refusal(text) == "token_invalid"


def test_huge_text_is_refused_before_it_is_read() -> None:
    assert refusal("A" * 1_000_000) == "token_invalid"
