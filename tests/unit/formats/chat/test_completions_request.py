"""`gai_fast/formats/chat/completions_request.py`: every member of a legacy request."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.formats import get_format
from gai_fast.model.errors import Error, InvalidRequest, Unsupported

COMPLETIONS = get_format("completions")


def read(**body: Any) -> tuple[Any, list[str]]:
    return COMPLETIONS.parse_request({"model": "m", "prompt": "Hi", **body})


def test_a_prompt_is_the_users_message() -> None:
    request, lost = read(
        temperature=0.5, top_p=1, max_tokens=5, seed=1, stop="x", stream=True, user="u", stream_options={}, suffix=None
    )
    assert lost == []
    assert (request.query, request.model, request.temperature, request.max_tokens) == ("Hi", "m", 0.5, 5)
    assert (request.stop, request.seed, request.stream) == (["x"], 1, True)
    assert read()[0].stream is False
    assert read(prompt=["Hi"], stop=["a", "b"])[0].stop == ["a", "b"]


def test_values_that_ask_for_the_default_are_no_loss() -> None:
    neutral = {"best_of": 1, "echo": False, "frequency_penalty": 0, "logit_bias": {}, "n": 1, "presence_penalty": 0.0}
    assert read(**neutral, suffix="")[1] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("best_of", 2),
        ("echo", True),
        ("frequency_penalty", 0.5),
        ("logit_bias", {"50256": -100}),
        ("logprobs", 0),
        ("presence_penalty", 1),
        ("suffix", "end"),
        ("surprise", 1),
    ],
)
def test_what_only_an_upstream_of_the_dialect_can_do_is_reported(name: str, value: Any) -> None:
    assert read(**{name: value})[1] == [name]


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2, 3], [[1], [2]]])
def test_a_prompt_that_is_no_text_is_unsupported(prompt: Any) -> None:
    with pytest.raises(Unsupported, match=r"at `\$\.prompt`"):
        read(prompt=prompt)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"prompt": None}, "missing required field `prompt`"),
        ({"prompt": []}, "missing required field `prompt`"),
        ({"prompt": 5}, "Expected `str | array`, got `int` - at `$.prompt`"),
        ({"stop": 5}, "at `$.stop`"),
        ({"n": "2"}, "at `$.n`"),
        ({"temperature": "hot"}, "at `$.temperature`"),
    ],
)
def test_a_wrong_type_is_refused_by_its_path(body: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**body)
    assert problem in caught.value.message


def test_several_choices_need_an_upstream_of_the_dialect() -> None:
    with pytest.raises(Error) as caught:
        read(n=2)
    assert caught.value.reason == "n"


def test_the_members_of_the_route() -> None:
    body = {"model": "m", "prompt": ["ab", "c", [1, 2]], "stream": True, "stream_options": {"include_usage": True}}
    asked = COMPLETIONS.read_request(body)
    assert (asked.model, asked.stream, asked.wants_usage, asked.prompt_characters) == ("m", True, True, 11)
    assert COMPLETIONS.read_request({"prompt": "abc"}).prompt_characters == 3
    assert COMPLETIONS.read_request({"prompt": True}).prompt_characters == 0
    tokens = [[1, 2, 3], [4, 5]], [1, 2, 3, 4, 5]
    assert [COMPLETIONS.read_request({"prompt": each}).prompt_characters for each in tokens] == [20, 20]
    assert COMPLETIONS.read_request({"prompt": ["ab", {}, "c"]}).prompt_characters == 3
    with pytest.raises(InvalidRequest):
        COMPLETIONS.read_request({"model": 5})
