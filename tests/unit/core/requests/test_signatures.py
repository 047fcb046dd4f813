"""Signatures in dialects that have one opaque text for them: the form, and its refusals."""

from __future__ import annotations

import pytest

from gai_fast.core.requests.signatures import is_ours, open_signature, seal
from gai_fast.model.errors import InvalidRequest


@pytest.mark.parametrize("signature", ["", "sig==", 'a"b', "gai:x::", "\u00fc"])
@pytest.mark.parametrize("about", [{}, {"call_id": "a:b"}, {"redacted": True}])
def test_a_signature_survives_the_way_to_the_client_and_back(signature: str, about: dict[str, object]) -> None:
    sealed = seal(signature, "gemini", **about)
    assert is_ours(sealed)
    assert open_signature(sealed, "$", "openai") == {"provider": "gemini", "signature": signature, **about}


def test_what_is_not_known_is_left_out() -> None:
    assert seal("s", None) == 'gai:{"signature":"s"}'
    assert open_signature('gai:{"signature":"s"}', "$", "openai") == {"signature": "s"}


def test_another_text_is_the_dialects_own() -> None:
    assert open_signature("gAAA", "$", "openai") == {"provider": "openai", "signature": "gAAA"}
    assert not any(map(is_ours, ("gAAA", "", None, 5, ["gai:"])))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("gai:", "Expected `object`, got `null` - at `$.x`"),
        ("gai:[1]", "Expected `object`, got `array` - at `$.x`"),
        ("gai:{}", "missing required field `signature` - at `$.x`"),
        ('gai:{"signature":1}', "Expected `str`, got `int` - at `$.x.signature`"),
        ('gai:{"signature":"s","redacted":1}', "Expected `bool`, got `int` - at `$.x.redacted`"),
        ('gai:{"signature":"s","call_id":{}}', "Expected `str`, got `object` - at `$.x.call_id`"),
    ],
)
def test_what_only_looks_sealed_is_refused(content: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        open_signature(content, "$.x", "openai")
    assert words in raised.value.message
