"""The beginning of a conversation: the same in each of its turns, in every dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.requests.prompt_prefix import prompt_prefix
from gai_fast.core.requests.reading import parse_request
from gai_fast.model.request import Request
from tests.limits import LIMITS


def native(**members: Any) -> Request:
    return parse_request(json.dumps(members).encode())


ASKED = [{"type": "text", "text": "Hi"}]
LATER = [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And now?"}]
TURNS: dict[str, list[Request | dict[str, Any]]] = {
    "native": [
        native(system="Be brief.", query="Hi"),
        native(system="Be brief.", messages=[{"role": "user", "content": "Hi"}]),
        native(system="Be brief.", messages=[{"role": "user", "content": ASKED}, LATER[0]], query="And now?"),
    ],
    "chat": [
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]},
        {"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": ASKED}, *LATER]},
    ],
    "messages": [
        {"system": "Be brief.", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5},
        {"system": [{"type": "text", "text": "Be brief."}], "messages": [{"role": "user", "content": ASKED}, *LATER]},
    ],
    "responses": [
        {"instructions": "Be brief.", "input": "Hi"},
        {"instructions": "Be brief.", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]},
        {"instructions": "Be brief.", "input": [{"role": "user", "content": "Hi"}, *LATER], "temperature": 1},
    ],
}


@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
def test_every_turn_of_a_conversation_has_its_beginning(turns: list[Request | dict[str, Any]]) -> None:
    assert {prompt_prefix(turn) for turn in turns} == {"Be brief.\0Hi\0"}


@pytest.mark.parametrize(
    "other",
    [
        {"messages": [{"role": "user", "content": "Bye"}]},
        {"messages": [{"role": "system", "content": "H"}, {"role": "user", "content": "i"}]},
        {"prompt": "Bye"},
        {"prompt": ["Bye"]},
    ],
)
def test_another_conversation_has_another(other: dict[str, Any]) -> None:
    assert prompt_prefix(other) != prompt_prefix({"messages": [{"role": "user", "content": "Hi"}]})


def test_a_legacy_prompt_is_a_beginning() -> None:
    assert prompt_prefix({"prompt": "Once upon a time"}) == "Once upon a time\0"


def test_images_and_options_are_no_part_of_it() -> None:
    image = {"type": "image", "url": "https://x.example/1.png"}
    assert prompt_prefix(native(messages=[{"role": "user", "content": [image, *ASKED]}], temperature=1)) == "Hi\0"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": None},
        {"messages": [None, 5, {"role": "user"}]},
        {"messages": [{"content": [None, {"text": 5}, "x"]}]},
        {"system": {"a": 1}, "input": 7, "prompt": [[1, 2]]},
    ],
)
def test_whatever_a_client_sends_has_a_beginning_or_none(body: dict[str, Any]) -> None:
    assert prompt_prefix(body) == ""


def test_a_long_one_is_cut() -> None:
    text = "x" * (2 * LIMITS.affinity_text)
    assert (
        len(prompt_prefix({"system": text, "messages": [{"role": "user", "content": text}]}))
        == LIMITS.affinity_text + 1
    )
