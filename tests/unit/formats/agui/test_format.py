"""`gai_fast/formats/agui/format.py`: the names of a run."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.formats import get_format
from gai_fast.model.errors import InvalidRequest
from tests.unit.formats.streams import START, context, encoded, objects_of

AGUI = get_format("agui")


def test_an_answer_repeats_the_names_of_its_request() -> None:
    bound = AGUI.answer_format({"threadId": "t", "runId": "r"})
    assert (bound.name, bound.framings) == ("agui", ("sse",))
    started = objects_of(encoded(bound.encoder("sse", context()), [START]))[0]
    assert (started["threadId"], started["runId"]) == ("t", "r")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"runId": "r"}, "missing required field `threadId`"),
        ({"threadId": "t", "runId": 5}, "Expected `str`, got `int` - at `$.runId`"),
        ({"threadId": "", "runId": "r"}, "Expected 1 to 255 characters - at `$.threadId`"),
        ({"threadId": "t", "runId": "x" * 256}, "Expected 1 to 255 characters - at `$.runId`"),
    ],
)
def test_a_name_is_a_short_text(body: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        AGUI.answer_format(body)
    assert problem in caught.value.message


def test_its_own_body_is_reported_from_a_native_request() -> None:
    assert AGUI.owns_request({"threadId": "t"})
    assert not AGUI.owns_request({"query": "Hi"})


def test_a_format_without_names_answers_as_it_is() -> None:
    simple = get_format("simple")
    assert simple.answer_format({}) is simple
