"""`gai_fast/guards/stages/channel.py`: several guards of one text, and events in between."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.guards.stages.channel import STOP, Channel
from tests.unit.guards.stages.literal import Hit, WordGuard, WordSearch

USAGE: Any = {"type": "usage", "usage": {"input_tokens": 1}}


def plain(items: list[Any]) -> list[Any]:
    return [
        each if isinstance(each, str) or each is STOP else each.get("safety", {}).get("action", each["type"])
        for each in items
    ]


def run(channel: Channel, *items: Any) -> list[Any]:
    return plain([out for item in items for out in channel.take(item)])


def test_text_without_a_match_passes_as_it_came() -> None:
    channel = Channel([WordGuard(["kestrel"]), WordGuard(["xerus"])], 0)
    assert [channel.take(text) for text in ("one ", "two")] == [["one "], ["two"]]
    assert (channel.holds, channel.changes, channel.end()) == (False, 0, [])


@pytest.mark.parametrize("cut", range(1, 19))
def test_a_match_is_found_over_any_cut_and_what_stands_around_it_is_as_it_was(cut: int) -> None:
    text = "the kestrel is red"
    channel = Channel([WordGuard(["kestrel"])], 0)
    given = run(channel, text[:cut], text[cut:]) + plain(channel.end())
    assert "".join(each for each in given if each != "mask") == "the [words] is red"
    assert given.count("mask") == 1
    assert channel.changes == 1


def test_a_guard_sees_what_the_one_before_has_let_through() -> None:
    channel = Channel([WordGuard(["kestrel"]), WordGuard(["[words]"], name="second")], 0)
    assert run(channel, "a kestrel") + plain(channel.end()) == ["a [words]", "mask", "mask"]


def test_events_keep_their_place_in_the_text() -> None:
    channel = Channel([WordGuard(["kestrel"]), WordGuard(["seven"])], 0)
    assert run(channel, "a kes", USAGE) == ["a "]
    assert channel.holds
    assert run(channel, "ten se", USAGE, "ven") == ["kes", "usage", "ten ", "[words]", "mask", "usage"]


def test_an_event_within_a_match_comes_behind_it() -> None:
    channel = Channel([WordGuard(["kestrel"])], 0)
    assert run(channel, "kes", USAGE, "trel!") == ["[words]", "mask", "usage", "!"]


def test_the_end_lets_all_through() -> None:
    channel = Channel([WordGuard(["kestrel"]), WordGuard(["seven"])], 0)
    assert run(channel, "a kes", USAGE) == ["a "]
    assert plain(channel.end()) == ["kes", "usage"]
    assert not channel.holds
    assert run(channel, "trel") == ["trel"], "another text"


def test_a_stop_lets_through_what_stands_before_it() -> None:
    channel = Channel([WordGuard(["kestrel"], "stop"), WordGuard(["seven"])], 0)
    assert run(channel, "one se", "kestrel and more") == ["one ", "se", "stop", STOP]


def test_a_later_guard_may_stop_earlier() -> None:
    channel = Channel([WordGuard(["kestrel"]), WordGuard(["seven"], "stop"), WordGuard(["x"])], 0)
    assert run(channel, "seven kestrel") == ["stop", STOP]
    both = Channel([WordGuard(["kestrel"], "stop"), WordGuard(["seven"], "stop", name="second")], 0)
    assert run(both, "a seven kestrel") == ["a ", "stop", STOP]


def test_a_flag_holds_nothing() -> None:
    channel = Channel([WordGuard(["kestrel"], "flag")], 0)
    assert run(channel, "a kes") == ["a kes"]
    assert not channel.holds
    assert run(channel, "trel") == ["trel", "flag"]
    assert channel.changes == 0


def test_own_words_come_back_without_an_event_and_are_escaped_in_json() -> None:
    guards = [WordGuard(["kestrel"]), WordGuard(["<NAME_1>"], "restore")]
    assert run(Channel(guards, 0), "I am <NAME_1>.") == ['I am A "kestrel".'], "behind all other guards"
    assert run(Channel(guards, 0, is_json=True), '{"a":"<NAME_1>"}') == ['{"a":"A \\"kestrel\\""}']


def test_events_between_the_arguments_of_a_call_wait_for_all_that_is_held() -> None:
    channel = Channel([WordGuard(["kestrel"])], 0, is_json=True)
    assert run(channel, '{"a":"kes', USAGE) == ['{"a":"']
    assert run(channel, 'trel"}') == ["[words]", "mask", '"}', "usage"]


class Endless(WordSearch):
    """Searches a word whose match goes on to the end of the text: the match is certain behind the word."""

    @property
    def certain(self) -> Hit | None:
        return Hit("words", 0, self._base) if self._has_begun else None

    def __init__(self) -> None:
        super().__init__(["kestrel"])
        self._has_begun = False

    def feed(self, text: str) -> list[str | Hit]:
        pieces = [] if self._has_begun else super().feed(text)
        matches = [each for each in pieces if isinstance(each, Hit)]
        if matches:
            self._has_begun = True
            return pieces[: pieces.index(matches[0])]
        return pieces

    def end(self) -> list[str | Hit]:
        if self._has_begun:
            self._has_begun = False
            return [Hit("words", 0, self._base)]
        return super().end()


class EndlessGuard(WordGuard):
    def scan(self) -> WordSearch:
        return Endless()


def test_a_stop_does_not_wait_for_a_match_that_goes_on() -> None:
    assert run(Channel([EndlessGuard(["kestrel"], "stop")], 0), "a kes", "trel and") == ["a ", "stop", STOP]
    channel = Channel([EndlessGuard(["kestrel"])], 0)
    assert run(channel, "a kes", "trel and", " on") == ["a "], "a mask does: it is one replacement"
    assert plain(channel.end()) == ["[words]", "mask"]
