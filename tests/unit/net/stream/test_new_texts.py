"""`net/stream/new_texts.py`: what goes up of a request that guards have changed, and what stores keep of it."""

from __future__ import annotations

from typing import Any

from gai_fast.core.processing.processor import StreamInfo
from gai_fast.core.requests.texts import texts_of, with_texts
from gai_fast.guards.input import InputCheck
from gai_fast.model.request import AssistantMessage, ReasoningPart, Request, TextPart, UserMessage
from gai_fast.net.stream.new_texts import NewTexts, new_texts
from tests.guarding import Counts, matching

SIGNED = AssistantMessage(content=[ReasoningPart(text="a kestrel", signature="s"), TextPart(text="yes")])


def changed(request: Request, *guards: Any) -> NewTexts | None:
    texts = texts_of(request)
    check = InputCheck(guards, [string for text in texts for string in text.strings], StreamInfo("s1"), Counts())
    while not check.turn():
        pass
    check.end()
    return new_texts(texts, check)


def test_nothing_is_written_anew_where_guards_find_nothing() -> None:
    assert changed(Request(query="an owl"), matching()) is None


def test_what_is_masked_goes_up_and_is_kept_so() -> None:
    request = Request(system="be brief", query="a kestrel")
    new = changed(request, matching())
    assert new is not None
    assert with_texts(request, new.sent, new.left_out).query == "a [words]"
    assert new.kept == new.sent
    assert len(new.sent) == 1, "the system prompt stays as it came"


def test_stores_keep_own_words_in_place_of_placeholders() -> None:
    request = Request(query="a kestrel, a@b.example")
    new = changed(request, matching(), matching("pii", kinds=("email",), restore=True))
    assert new is not None
    assert [*new.sent.values()] == ["a [words], <EMAIL_1>"]
    assert [*new.kept.values()] == ["a [words], a@b.example"]


def test_signed_reasoning_is_left_out_if_it_is_masked_and_stays_if_it_comes_back() -> None:
    for restore, is_left_out in ((False, True), (True, False)):
        request = Request(messages=[UserMessage(content="hi"), SIGNED, UserMessage(content="go on")])
        new = changed(request, matching("patterns", patterns=("kestrel",), restore=restore))
        assert new is not None
        assert bool([*new.left_out]) is is_left_out
