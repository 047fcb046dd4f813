"""`gai_fast/guards/stages/pieces.py`: what is judged when, and what may leave."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gai_fast.guards.characters import is_word
from gai_fast.guards.stages import pieces
from gai_fast.guards.stages.pieces import Ended, JudgedMatch, Outcome, Passed, Piece, Pieces, Rules, Warned
from gai_fast.guards.verdicts import Channel, Failed, JudgeVerdict
from tests.limits import LIMITS

FINE = JudgeVerdict(flagged=False)
BAD = JudgeVerdict(flagged=True, category="violence", score=0.9)
LATE = Failed("late", "no verdict")


def rules(action: pieces.Action = "stop", exposure: int = 0, fails_open: bool = False) -> Rules:
    return Rules(action, "[{}]".format, exposure, fails_open)


class Stream:
    """One stream of a text channel, and the pieces that were asked for and not judged yet."""

    def __init__(self, *judges: Rules) -> None:
        self.pieces = Pieces(judges or [rules()])
        self.now = 0
        self.asked: list[Piece] = []
        self.left: list[Outcome] = []

    def add(self, text: str, channel: Channel = "text", choice: int = 0, call: str = "") -> None:
        self.pieces.add({"text": text}, text, choice, channel, call, self.now)
        self.go_on()

    def go_on(self, milliseconds: int = 0) -> None:
        self.now += milliseconds
        self.asked += self.pieces.asks(self.now)
        self.left += self.pieces.take()

    def judge(self, verdict: JudgeVerdict | Failed = FINE, at: int = 0) -> None:
        self.pieces.judged(self.asked.pop(at), verdict)
        self.go_on()

    def due(self) -> int | None:
        return self.pieces.due_ms

    @property
    def texts(self) -> list[str]:
        return [piece.text for piece in self.asked]

    @property
    def text(self) -> str:
        passed = [each for each in self.left if isinstance(each, Passed)]
        return "".join(each.event["text"] if each.text is None else each.text for each in passed)


# ---- when a piece is judged ------------------------------------------------------------------------------------------


def test_a_piece_is_judged_at_32_characters_and_the_next_at_twice_the_last_ones_size() -> None:
    stream = Stream()
    sizes: list[int] = []
    for _ in range(800):
        stream.add("wort")
        while stream.asked:
            sizes.append(stream.asked[0].size)
            stream.judge()
    assert sizes == [32, 64, 128, 256, 512, 512, 512, 512, 512]
    assert stream.text == "wort" * (sum(sizes) // 4)


def test_a_piece_is_judged_100_ms_after_its_first_character() -> None:
    stream = Stream()
    stream.go_on(7)
    stream.add("One")
    assert stream.due() == 107
    stream.go_on(60)
    stream.add(" two")
    stream.go_on(39)
    assert stream.texts == []
    stream.go_on(1)
    assert stream.texts == ["One two"]
    assert stream.due() is None
    assert (stream.text, stream.pieces.holds, stream.pieces.waiting) == ("", True, 7)
    stream.judge()
    assert (stream.text, stream.pieces.holds, stream.pieces.waiting) == ("One two", False, 0)
    assert [each.text for each in stream.left if isinstance(each, Passed)] == [None, None], "the events themselves"


def test_a_short_piece_makes_the_next_one_short() -> None:
    """The sizes double from the last one's."""
    stream = Stream()
    stream.add("One")
    stream.go_on(100)
    stream.judge()
    stream.add(" two")
    assert stream.texts == []
    stream.add(" 3")
    assert stream.texts == ["One two 3"]


def test_each_piece_has_a_time_of_its_own() -> None:
    stream = Stream()
    stream.add("One", choice=1)
    stream.go_on(10)
    stream.add("two")
    stream.go_on(10)
    stream.add("x" * 32)
    stream.go_on(30)
    stream.add("three")
    assert stream.due() == 100
    stream.go_on(50)
    assert stream.texts == ["two" + "x" * 32, "One"]
    assert stream.due() == 150
    stream.go_on(50)
    assert len(stream.asked) == 3


def test_the_text_before_goes_along() -> None:
    stream = Stream()
    for number in range(30):
        stream.add(f"{number:032}")
        for piece in stream.asked:
            whole = "".join(f"{each:032}" for each in range(number + 1))
            assert whole.endswith(piece.text)
            assert piece.context == min(256, piece.end - piece.size)
        while stream.asked:
            stream.judge()


def test_four_pieces_are_out_and_all_that_waits_is_the_next() -> None:
    stream = Stream()
    for _ in range(4):
        stream.add("x" * 512)
    assert len(stream.asked) == 4
    stream.add("y" * 600)
    stream.add("z" * 600)
    stream.go_on(1000)
    assert len(stream.asked) == 4
    assert stream.due() is None, "no timer fires in vain"
    assert stream.pieces.waiting == 4 * 512 + 1200
    stream.judge(at=2)
    assert stream.asked[-1].text == "x" * 256 + "y" * 600 + "z" * 600
    assert stream.text == ""


def test_a_very_long_text_is_cut() -> None:
    stream = Stream()
    stream.add("x" * 70_000)
    assert [piece.size for piece in stream.asked] == [32_768, 32_768, 4464]
    stream.judge(at=1)
    assert stream.text == ""
    stream.judge()
    assert stream.text == "x" * 65_536
    stream.judge()
    assert stream.text == "x" * 70_000
    parts = [each for each in stream.left if isinstance(each, Passed)]
    assert [len(each.text or "") for each in parts] == [32_768, 32_768, 4464]
    assert not any(each.is_masked for each in parts)


def test_text_ends_where_another_channel_begins() -> None:
    stream = Stream()
    stream.add("Hm", "reasoning")
    stream.add("Yes", "text")
    assert stream.texts == ["Hm"]
    stream.add("!", "reasoning")
    assert stream.texts == ["Hm", "Yes"]
    stream.judge(at=1)
    assert stream.text == ""
    stream.judge()
    assert stream.text == "HmYes"
    stream.pieces.finish()
    stream.go_on()
    assert stream.texts == ["Hm!"], "what was let through before in its channel"
    assert stream.pieces.holds
    stream.judge()
    assert (stream.text, stream.pieces.holds) == ("HmYes!", False)


def test_text_ends_where_a_call_begins() -> None:
    stream = Stream()
    stream.add("Let me see.")
    stream.pieces.end_prose(0)
    stream.pieces.end_prose(1)
    stream.pieces.behind({"text": "<start>"}, 0)
    stream.go_on()
    assert stream.texts == ["Let me see."]
    stream.judge()
    assert stream.text == "Let me see.<start>"


def test_channels_that_take_turns_do_not_cost_a_request_each() -> None:
    stream = Stream()
    for _ in range(50):
        stream.add("a", "reasoning")
        stream.add("b", "text")
    assert [piece.size for piece in stream.asked] == [1, 1, 1, 1]
    stream.judge()
    stream.judge()
    assert [piece.size for piece in stream.asked] == [1, 1, 48, 48]


# ---- what leaves -----------------------------------------------------------------------------------------------------


def test_pieces_leave_in_order() -> None:
    stream = Stream()
    for letter in "abc":
        stream.add(letter * 512)
    stream.judge(at=2)
    stream.judge(at=1)
    assert stream.text == ""
    stream.judge()
    assert stream.text == "a" * 512 + "b" * 512 + "c" * 512


def test_other_events_wait_behind_the_text_of_their_choice() -> None:
    stream = Stream()
    stream.add("x" * 32)
    stream.pieces.behind({"text": "<usage>"}, 0)
    stream.pieces.behind({"text": "<other>"}, 1)
    stream.go_on()
    assert stream.text == "<other>"
    stream.judge()
    assert stream.text == "<other>" + "x" * 32 + "<usage>"
    stream.pieces.behind({"text": "<now>"}, 0)
    stream.go_on()
    assert stream.text.endswith("<usage><now>")


def test_choices_do_not_wait_for_each_other() -> None:
    stream = Stream()
    stream.add("a" * 32)
    stream.add("b" * 32, choice=1)
    stream.judge(at=1)
    assert stream.text == "b" * 32


def test_arguments_are_one_piece_that_waits_for_the_complete_call() -> None:
    stream = Stream(rules(exposure=1000))
    stream.add("Let me see.")
    for _ in range(100):
        stream.add("0123456789", "tool_call", call="c1")
        stream.add("abcdefghij", "tool_call", call="c2")
    assert stream.text == "Let me see."
    assert stream.texts == ["Let me see."]
    stream.go_on(1000)
    stream.judge()
    assert (stream.texts, stream.pieces.waiting) == ([], 0), "the upstream must be read until the call is complete"
    stream.pieces.complete(0, "c1")
    stream.pieces.behind({"text": "<c1>"}, 0)
    stream.go_on()
    assert stream.texts == ["0123456789" * 100]
    stream.judge()
    assert stream.text == "Let me see.0123456789", "in the order of the events"
    stream.pieces.complete(0, "c2")
    stream.go_on()
    stream.judge()
    assert stream.text == "Let me see." + "0123456789abcdefghij" * 100 + "<c1>"
    stream.add("{}", "tool_call", call="c1")
    stream.pieces.complete(0, "c1")
    stream.go_on()
    assert stream.texts == ["{}"], "an id that was used before"


def test_large_arguments_are_one_piece() -> None:
    stream = Stream()
    stream.add("x" * 40_000, "tool_call", call="c")
    stream.add("y" * 40_000, "tool_call", call="c")
    stream.pieces.complete(0, "c")
    stream.go_on()
    assert [piece.size for piece in stream.asked] == [80_000]


def test_a_call_without_arguments_needs_no_verdict() -> None:
    stream = Stream()
    stream.add("", "tool_call", call="c")
    stream.pieces.complete(0, "c")
    stream.pieces.complete(0, "unknown")
    stream.go_on()
    assert (stream.asked, len(stream.left), stream.pieces.holds) == ([], 1, False)


def test_so_many_characters_are_out_before_their_verdict() -> None:
    stream = Stream(rules(exposure=50))
    stream.add("a" * 40)
    assert stream.text == "a" * 40
    stream.add("b" * 8, choice=1)
    stream.add("c" * 8)
    assert stream.text == "a" * 40 + "b" * 8, "of the whole stream"
    stream.add("d", choice=1)
    assert stream.text.endswith("bd")
    stream.judge()
    assert stream.text == "a" * 40 + "b" * 8 + "d" + "c" * 8
    stream.add("e" * 60)
    assert stream.text.endswith("c"), "an event leaves as a whole"


def test_flags_do_not_hold_but_finish_waits_for_them() -> None:
    stream = Stream(rules("flag"))
    stream.add("x" * 40)
    assert stream.text == "x" * 40
    stream.add("{}", "tool_call", call="c")
    assert stream.text == "x" * 40 + "{}"
    stream.pieces.finish()
    stream.go_on()
    assert stream.pieces.holds
    stream.judge(BAD)
    stream.judge()
    assert stream.left[-1] == JudgedMatch(0, "flag", "violence", 0.9, 0)
    assert not stream.pieces.holds


def test_a_text_waits_for_all_judges() -> None:
    stream = Stream(rules(), rules("mask"), rules("flag"))
    stream.add("x" * 32)
    assert [piece.judge for piece in stream.asked] == [0, 1, 2]
    stream.judge()
    assert stream.text == ""
    stream.judge()
    assert stream.text == "x" * 32


def test_a_slow_judge_of_flags_does_not_slow_the_others() -> None:
    stream = Stream(rules("flag"), rules())
    for _ in range(20):
        stream.add("x" * 512)
        (own,) = [at for at, piece in enumerate(stream.asked) if piece.judge == 1]
        stream.judge(at=own)
    assert stream.text == "x" * 512 * 20


# ---- verdicts --------------------------------------------------------------------------------------------------------


def test_a_stop_lets_through_what_stands_before_the_match() -> None:
    stream = Stream()
    stream.add("a" * 32)
    stream.add("b" * 30 + "c" * 34)
    stream.judge()
    stream.judge(JudgeVerdict(flagged=True, category="x", spans=((52, 60), (70, 80))))
    assert stream.text == "a" * 32 + "b" * 20
    assert stream.left[-2:] == [JudgedMatch(0, "stop", "x", None, 0), Ended(0)]
    assert (stream.pieces.is_over, stream.pieces.holds) == (True, False)
    stream.add("more")
    stream.pieces.behind({"text": "more"}, 0)
    assert stream.text == "a" * 32 + "b" * 20


def test_a_stop_without_spans_is_before_its_piece() -> None:
    stream = Stream()
    stream.add("a" * 32)
    stream.add("b" * 64)
    stream.judge()
    stream.judge(BAD)
    assert stream.text == "a" * 32


def test_a_stop_counts_at_once_and_drops_text_without_a_verdict() -> None:
    stream = Stream(rules(), rules())
    stream.add("a" * 32)
    stream.add("b" * 64)
    stream.judge(BAD, at=2)  # of the second piece
    assert stream.text == ""
    assert isinstance(stream.left[-1], Ended)
    needless = stream.pieces.drop()
    assert {id(piece) for piece in needless} == {id(piece) for piece in stream.asked}
    stream.judge(BAD)
    assert len(stream.left) == 2, "a verdict that comes later"


def test_what_stands_before_a_stop_needs_the_verdicts_before_it() -> None:
    stream = Stream()
    stream.add("a" * 32)
    stream.add("b" * 64)
    stream.judge(JudgeVerdict(flagged=True, spans=((80, 90),)), at=1)
    assert (stream.text, stream.left[-1]) == ("", Ended(0))


def test_what_stands_before_a_stop_needs_the_other_judges_verdicts() -> None:
    stream = Stream(rules(), rules())
    stream.add("a" * 32)
    stream.judge(JudgeVerdict(flagged=True, spans=((20, 25),)))
    assert stream.text == ""
    stream = Stream(rules(), rules(exposure=100))
    stream.add("a" * 32)
    stream.judge(JudgeVerdict(flagged=True, spans=((20, 25),)))
    assert stream.text == "a" * 20


def test_nothing_behind_a_stop_is_exposed() -> None:
    stream = Stream(rules(exposure=20))
    for letter in "abcd":
        stream.add(letter * 10)
    assert stream.text == "a" * 10 + "b" * 10
    stream.judge(JudgeVerdict(flagged=True, spans=((25, 26),)))
    assert stream.text == "a" * 10 + "b" * 10 + "c" * 5


def test_a_match_that_is_out_stops_what_follows() -> None:
    stream = Stream(rules(exposure=100))
    stream.add("a" * 32)
    stream.judge(BAD)
    assert stream.text == "a" * 32
    assert isinstance(stream.left[-1], Ended)


def test_a_mask_replaces_the_spans_over_any_events() -> None:
    stream = Stream(rules("mask"))
    for letter in "abcdefgh":
        stream.add(letter * 4)
    stream.judge(JudgeVerdict(flagged=True, category="x", spans=((6, 18), (30, 31))))
    assert stream.text == "aaaabb[x]eeffffgggghh[x]h"
    match = JudgedMatch(0, "mask", "x", None, 0)
    assert stream.left[:3] == [
        Passed({"text": "aaaa"}),
        Passed({"text": "bbbb"}, "bb[x]", is_masked=True),
        match,
    ], "events that are left empty do not leave"
    assert stream.left.count(match) == 1


def test_a_mask_without_spans_replaces_what_the_piece_adds() -> None:
    stream = Stream(rules("mask"))
    stream.add("a" * 32)
    stream.add("b" * 64)
    stream.judge()
    stream.judge(BAD)
    assert stream.text == "a" * 32 + "[violence]"
    stream.add("c" * 200)
    assert stream.texts == ["c" * 200], "from behind the last flagged piece"
    stream.judge(dataclasses.replace(BAD, category=None))
    assert stream.text == "a" * 32 + "[violence][]"


def test_spans_in_what_went_along_replace_the_piece() -> None:
    """A text that is flagged is never let through as it is."""
    stream = Stream(rules("mask"))
    stream.add("a" * 32)
    stream.judge()
    stream.add("b" * 64)
    stream.judge(JudgeVerdict(flagged=True, category="x", spans=((3, 9),)))
    assert stream.text == "a" * 32 + "[x]"
    stream.add("c" * 128)
    stream.judge()
    stream.add("d" * 256)
    stream.judge(JudgeVerdict(flagged=True, category="x", spans=((120, 138),)))
    assert stream.text == "a" * 32 + "[x]" + "c" * 128 + "[x]" + "d" * 246


def test_a_match_that_went_along_is_not_reported_again() -> None:
    stream = Stream(rules("mask"))
    stream.add("a" * 32)
    stream.add("b" * 64)
    stream.judge(JudgeVerdict(flagged=True, category="x", spans=((30, 32),)))
    assert stream.asked[0].context == 32
    stream.judge(JudgeVerdict(flagged=True, category="x", spans=((30, 32),)))
    assert stream.text == "a" * 30 + "[x]" + "b" * 64
    assert sum(isinstance(each, JudgedMatch) for each in stream.left) == 1


@pytest.mark.parametrize("action", ["mask", "flag"])
def test_a_verdict_that_overtakes_another_flags_nothing_anew(action: pieces.Action) -> None:
    """The second piece is flagged for what went along, which the verdict on the first is about to flag."""
    stream = Stream(rules(action))
    stream.add("A kestrel flew over the old town. ")
    stream.add("Nobody saw it, not even the keeper of the lighthouse, who slept until noon.")
    assert len(stream.asked) == 2
    stream.judge(JudgeVerdict(flagged=True, spans=((2, 9),)), at=1)
    assert not [each for each in stream.left if isinstance(each, JudgedMatch)]
    stream.judge(JudgeVerdict(flagged=True, spans=((2, 9),)))
    [match] = [each for each in stream.left if isinstance(each, JudgedMatch)]
    assert match.action == action
    said = "[]" if action == "mask" else "kestrel"
    assert stream.text.startswith(f"A {said} flew over the old town. Nobody saw it, ")
    stream.pieces.finish()
    stream.go_on()
    while stream.asked:
        stream.judge()
    assert stream.text.endswith("until noon.")


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
@pytest.mark.parametrize("names_spans", [True, False])
def test_a_judge_of_flags_that_is_slower_than_the_text_says_a_match_once(
    order: tuple[int, ...], names_spans: bool
) -> None:
    """Three pieces are out before the first verdict, and the match goes along with two of them."""
    stream = Stream(rules("flag"))
    for each in ("A kestrel flew over the old town. ", "Nobody saw it. " * 5, "Not even the keeper. " * 8):
        stream.add(each)
    asked, stream.asked = stream.asked, []
    assert len([each for each in asked if "kestrel" in each.text]) == 3
    for place in order:
        at = asked[place].text.find("kestrel")
        spans = ((at, at + 7),) if names_spans else ()
        stream.pieces.judged(asked[place], JudgeVerdict(flagged=True, category="x", spans=spans))
        stream.go_on()
    assert [each for each in stream.left if isinstance(each, JudgedMatch)] == [JudgedMatch(0, "flag", "x", None, 0)]


def test_a_flag_of_another_category_or_of_new_text_is_another_match() -> None:
    stream = Stream(rules("flag"))
    for each in ("A kestrel flew over the old town. ", "Nobody saw it. " * 5, "Not even the keeper. " * 30):
        stream.add(each)
    for category in ("x", "y"):
        stream.judge(JudgeVerdict(flagged=True, category=category))
    while stream.asked:
        stream.judge()
    stream.add("Another kestrel flew over the new town. " * 20)
    stream.judge(JudgeVerdict(flagged=True, category="x"))
    found = [each.category for each in stream.left if isinstance(each, JudgedMatch)]
    assert found == ["x", "y", "x"]


def test_a_masks_pieces_end_between_words() -> None:
    stream = Stream(rules("mask"))
    stream.add("It was Black")
    stream.go_on(100)
    assert stream.texts == ["It was "]
    assert stream.due() == 200, "the rest is asked for as soon as any text"
    stream.go_on(50)
    stream.add("wood who came")
    stream.go_on(50)
    assert stream.texts == ["It was ", "It was Blackwood who "]
    stream.judge()
    stream.judge(JudgeVerdict(flagged=True, spans=((7, 16),)))
    stream.go_on(100)
    assert stream.texts == ["came"], "a word alone does not wait again"
    stream.judge()
    assert stream.text == "It was [] who came"


@pytest.mark.parametrize("last", ["anna@example.com", "555-123-4567", "re\u0301sume\u0301s"])
def test_an_address_a_number_and_a_word_with_marks_are_in_one_piece(last: str) -> None:
    pieces = Pieces([rules("mask")])
    pieces.add(a := {"type": "text.delta"}, f"Please write to her at once, {last}", 0, "text", "", 0)
    asked = [each for at in (0, 100, 200, 300) for each in pieces.asks(at)]
    assert a
    assert any(each.text[each.context :].endswith(last) for each in asked), [each.text for each in asked]


def test_a_flag_counts_before_the_verdict_on_an_earlier_piece() -> None:
    pieces = Pieces([rules("flag")])
    pieces.add({}, "A first piece of a text, and so on. ", 0, "text", "", 0)
    first = pieces.asks(100)
    pieces.add({}, "A second piece of this text, and so on. ", 0, "text", "", 100)
    (second,) = pieces.asks(200)
    assert first
    pieces.judged(second, JudgeVerdict(True, spans=((second.context, second.context + 3),)))
    assert [type(each).__name__ for each in pieces.take() if not isinstance(each, Passed)] == ["JudgedMatch"]


def test_a_word_that_ends_its_text_is_asked_for_with_it() -> None:
    stream = Stream(rules("mask"))
    stream.add("It was Black")
    stream.add("hm", "reasoning")
    stream.add("漢字", choice=1)
    stream.go_on(100)
    assert stream.texts == ["It was Black", "hm", "漢字"]
    stream.add(" at last")
    stream.pieces.finish()
    stream.go_on()
    assert stream.texts[-1] == "It was Black at last"


def test_two_judges_mask_one_place_once() -> None:
    stream = Stream(rules("mask"), rules("mask"))
    stream.add("a" * 32)
    stream.judge(JudgeVerdict(flagged=True, category="x", spans=((5, 10),)))
    stream.judge(JudgeVerdict(flagged=True, category="y", spans=((8, 20), (20, 22))))
    assert stream.text == "aaaaa[x][y]" + "a" * 10
    assert [each.judge for each in stream.left if isinstance(each, JudgedMatch)] == [0, 1]


def test_a_mask_stops_a_call() -> None:
    stream = Stream(rules("mask"))
    stream.add("{}", "tool_call", call="c")
    stream.pieces.complete(0, "c")
    stream.go_on()
    stream.judge(BAD)
    assert stream.left == [JudgedMatch(0, "stop", "violence", 0.9, 0), Ended(0)]


def test_text_that_is_out_is_not_masked() -> None:
    stream = Stream(rules("mask", exposure=20))
    stream.add("a" * 16)
    stream.add("b" * 16)
    stream.judge(JudgeVerdict(flagged=True, category="x", spans=((4, 20),)))
    assert stream.text == "a" * 16 + "[x]" + "b" * 12
    stream.add("c" * 16)
    stream.go_on(100)
    stream.judge(BAD)
    assert stream.left[-1] == JudgedMatch(0, "mask", "violence", 0.9, 0)


def test_a_failure_ends_the_stream() -> None:
    stream = Stream()
    stream.add("a" * 32)
    stream.judge(LATE)
    assert (stream.text, stream.left) == ("", [Ended(0, LATE)])


def test_a_failure_that_is_open_lets_the_text_through_and_warns_once() -> None:
    stream = Stream(rules("mask", fails_open=True))
    for letter in "abc":
        stream.add(letter * 512)
    stream.judge(LATE, at=1)
    stream.judge(LATE)
    stream.judge()
    assert stream.text == "a" * 512 + "b" * 512 + "c" * 512
    assert [each for each in stream.left if not isinstance(each, Passed)] == [Warned(0)]


def test_a_second_verdict_on_a_piece_counts_for_nothing() -> None:
    stream = Stream(rules("flag"))
    stream.add("a" * 32)
    piece = stream.asked[0]
    stream.judge(BAD)
    stream.pieces.judged(piece, BAD)
    stream.go_on()
    assert sum(isinstance(each, JudgedMatch) for each in stream.left) == 1


def test_a_reset_drops_what_is_held() -> None:
    stream = Stream(rules(fails_open=True))
    for _ in range(4):
        stream.add("a" * 512)
    stream.judge(LATE)
    late, stream.asked, stream.left = stream.asked, [], []
    assert {id(piece) for piece in stream.pieces.drop()} == {id(piece) for piece in late}
    assert (stream.pieces.holds, stream.pieces.waiting, stream.pieces.due_ms) == (False, 0, None)
    for letter in "bcde":
        stream.add(letter * 512)
    for piece in late:
        stream.pieces.judged(piece, BAD)
    assert len(stream.asked) == 4
    stream.judge(LATE)
    assert stream.left == [Passed({"text": "b" * 512})], "warned once a stream"


# ---- any cut, any order, any time of verdicts ------------------------------------------------------------------------

CHANNELS: tuple[Channel, ...] = ("text", "reasoning", "refusal")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 1), st.sampled_from(CHANNELS), st.integers(0, 90)),
        st.tuples(st.just("call"), st.integers(0, 1), st.sampled_from("pq"), st.integers(0, 60)),
        st.tuples(st.just("complete"), st.integers(0, 1), st.sampled_from("pq"), st.just(0)),
        st.tuples(st.just("behind"), st.integers(0, 1), st.just(""), st.just(0)),
        st.tuples(st.just("time"), st.just(0), st.just(""), st.integers(0, 150)),
        st.tuples(st.just("judge"), st.integers(0, 11), st.sampled_from(["fine", "failed", "flagged"]), st.just(0)),
    ),
    max_size=60,
)
JUDGES = st.lists(
    st.builds(
        rules,
        st.sampled_from(["mask", "stop", "flag"]),
        st.sampled_from([0, 1, 40, 200]),
        st.just(True),
    ),
    min_size=1,
    max_size=3,
)


class Watched:
    """A stream whose characters are all different, so that each can be followed; checks the rules after each step."""

    def __init__(self, judges: Sequence[Rules], flags: bool) -> None:
        self.pieces = Pieces(judges)
        self.judges = judges
        self.flags = flags
        self.now = 0
        self.next = 0x10000
        self.events: dict[int, list[Any]] = {0: [], 1: []}
        self.texts: dict[tuple[int, str, str], str] = {}
        self.of_calls: set[str] = set()
        self.complete: set[str] = set()
        self.asked: list[Piece] = []
        self.judged: list[set[str]] = [set() for _ in judges]
        self.asked_of: list[set[str]] = [set() for _ in judges]
        self.pending: list[dict[str, int]] = [{} for _ in judges]
        self.out: list[str] = []
        self.left: dict[int, list[Any]] = {0: [], 1: []}

    def new(self, size: int) -> str:
        text = "".join(chr(self.next + at) for at in range(size))
        self.next += size
        return text

    def step(self, kind: str, number: int, word: str, size: int) -> None:
        if kind == "add" or kind == "call":
            text = self.new(size)
            event = {"text": text, "choice": number}
            self.events[number].append(event)
            if kind == "add":
                self.add(event, text, number, word, "")
            else:
                self.of_calls |= set(text)
                self.add(event, text, number, "tool_call", word)
        elif kind == "complete":
            self.complete |= set(self.texts.pop((number, "tool_call", word), ""))
            self.pieces.complete(number, word)
        elif kind == "behind":
            event = {"text": "", "choice": number}
            self.events[number].append(event)
            self.pieces.behind(event, number)
        elif kind == "time":
            self.now += size
        elif self.asked:
            self.judge(self.asked.pop(number % len(self.asked)), word)
        self.look()

    def add(self, event: Any, text: str, choice: int, channel: Any, call: str) -> None:
        key = choice, channel, call
        self.texts[key] = self.texts.get(key, "") + text
        if channel != "tool_call":
            for pending in self.pending:
                pending.update(dict.fromkeys(text, self.now))
        self.pieces.add(event, text, choice, channel, call, self.now)

    def judge(self, piece: Piece, word: str) -> None:
        own = piece.text[piece.context :]
        self.judged[piece.judge] |= set(own)
        if word == "failed":
            self.pieces.judged(piece, LATE)
        elif word == "flagged" and self.flags and self.judges[piece.judge].action == "flag":
            self.pieces.judged(piece, BAD)
        else:
            self.pieces.judged(piece, FINE)

    def look(self) -> None:
        for piece in self.pieces.asks(self.now):
            own = piece.text[piece.context :]
            assert own
            assert piece.context <= LIMITS.judged_context
            assert not set(own) & self.asked_of[piece.judge], "no character is asked about twice"
            self.asked_of[piece.judge] |= set(own)
            for character in own:
                self.pending[piece.judge].pop(character, None)
            if piece.channel == "tool_call":
                assert piece.context == 0
                assert set(own) <= self.complete
            else:
                text = self.texts[piece.choice, piece.channel, ""]
                assert piece.text in text
                behind = text[text.index(own[-1]) + 1 :]
                if self.judges[piece.judge].action == "mask" and all(is_word(ord(each)) for each in behind):
                    self.pending[piece.judge].update(dict.fromkeys(behind, self.now))  # a word that has begun
            self.asked.append(piece)
        counts = Counter(piece.judge for piece in self.asked)
        assert all(count <= LIMITS.judged_at_once for count in counts.values())
        for each, pending in enumerate(self.pending):
            if counts[each] < LIMITS.judged_at_once:
                assert all(self.now - since < LIMITS.judged_wait for since in pending.values())
        for outcome in self.pieces.take():
            if isinstance(outcome, Passed):
                assert outcome.text is None, "whole events, if nothing is flagged"
                self.left[outcome.event["choice"]].append(outcome.event)
                self.out += outcome.event["text"]
        for choice, events in self.left.items():
            assert events == self.events[choice][: len(events)], "in order"
        for judge, judged in zip(self.judges, self.judged, strict=True):
            if judge.action != "flag":
                early = set(self.out) - judged
                assert len(early) <= judge.max_exposure
                assert not early & self.of_calls

    def end(self) -> None:
        self.pieces.finish()
        self.look()
        for _ in range(1000):
            if not self.asked:
                break
            self.judge(self.asked.pop(), "fine")
            self.look()
        assert self.left == self.events, "all is out"
        assert (self.pieces.holds, self.pieces.waiting, self.pieces.due_ms) == (False, 0, None)


@given(judges=JUDGES, steps=STEPS, flags=st.booleans())
def test_whatever_comes_when_the_order_and_the_bounds_hold(
    judges: list[Rules], steps: list[tuple[str, int, str, int]], flags: bool
) -> None:
    watched = Watched(judges, flags)
    for step in steps:
        watched.step(*step)
    for choice in (0, 1):
        for call in "pq":
            watched.step("complete", choice, call, 0)
    watched.end()


@settings(max_examples=settings().max_examples * 3 // 4)
@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=30),
    found=st.sets(st.integers(0, 400), max_size=12),
    order=st.randoms(use_true_random=False),
    exposure=st.sampled_from([0, 30]),
)
def test_a_mask_changes_the_marked_characters_alone(
    sizes: list[int], found: set[int], order: Any, exposure: int
) -> None:
    """The judge knows which characters are bad; what is out before its verdict keeps them."""
    total = sum(sizes)
    whole = "".join(chr(0x4E00 + at) for at in range(total))
    bad = {whole[at] for at in found if at < total}
    stream = Stream(rules("mask", exposure), rules())
    at = 0
    early: set[str] = set()

    def judge() -> None:
        at = order.randrange(len(stream.asked))
        piece = stream.asked[at]
        early.update(set(piece.text) & set(stream.text))
        places = [place for place, character in enumerate(piece.text) if character in bad]
        is_own = piece.judge == 0 and places
        stream.judge(JudgeVerdict(True, "x", None, tuple((a, a + 1) for a in places)) if is_own else FINE, at)

    for size in sizes:
        stream.add(whole[at : at + size])
        at += size
        while stream.asked and order.random() < 0.5:
            judge()
    stream.pieces.finish()
    stream.go_on()
    while stream.asked:
        judge()
    unmasked = [character for character in stream.text if character in whole]
    if not exposure:
        assert not bad & set(unmasked)
    assert not stream.pieces.holds
    masked = set(whole) - set(unmasked)
    if not masked <= bad:  # a piece whose only spans lay in what went along was replaced as a whole
        assert any(isinstance(each, JudgedMatch) for each in stream.left)
    assert sorted(unmasked) == unmasked, "in order"


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=30),
    judges=st.lists(
        st.builds(rules, st.sampled_from(["mask", "stop"]), st.sampled_from([0, 7, 100])), min_size=1, max_size=3
    ),
    bad=st.integers(0, 600),
    ends=st.sampled_from(["stop", "failure", "upstream"]),
    order=st.randoms(use_true_random=False),
)
def test_whatever_ends_a_stream_nothing_unjudged_follows(
    sizes: list[int], judges: list[Rules], bad: int, ends: str, order: Any
) -> None:
    """The first judge stops at a character or fails there, or the upstream does."""
    judges = [rules("stop", judges[0].max_exposure), *judges[1:]]
    whole = "".join(chr(0x4E00 + at) for at in range(sum(sizes)))
    stream = Stream(*judges)
    judged: list[set[str]] = [set() for _ in judges]
    is_over = False
    early = ""

    def judge() -> None:
        nonlocal is_over, early
        piece = stream.asked[at := order.randrange(len(stream.asked))]
        own = piece.text[piece.context :]
        place = piece.text.find(chr(0x4E00 + bad))
        if place < piece.context or piece.judge:
            judged[piece.judge] |= set(own)
            stream.judge(FINE, at)
            return
        early = stream.text
        is_over = True
        if ends == "stop":
            judged[0] |= set(piece.text[piece.context : place])
            stream.judge(JudgeVerdict(True, None, None, ((place, place + 1),)), at)
        elif ends == "failure":
            stream.judge(LATE, at)
        else:
            stream.pieces.drop()

    at = 0
    for size in sizes:
        if not is_over:
            stream.add(whole[at : at + size])
            at += size
        while stream.asked and not is_over and order.random() < 0.5:
            judge()
    stream.pieces.finish()
    stream.go_on()
    while stream.asked and not is_over:
        judge()
    text = stream.text
    assert whole.startswith(text)
    for each, own in zip(judges, judged, strict=True):
        assert len(set(text) - own) <= each.max_exposure
    if not is_over:
        assert text == whole
    elif ends == "stop":
        assert len(text) <= max(len(early), bad), "nothing from the match on"
    else:
        assert text == early
    if judges[0].max_exposure == 0 and is_over:
        assert chr(0x4E00 + bad) not in text
    assert not stream.pieces.holds


@pytest.mark.parametrize("size", [1, 7, 32, 511])
def test_a_judge_that_is_behind_gets_all_that_waits(size: int) -> None:
    stream = Stream()
    for _ in range(2000):
        stream.add("x" * size)
    sizes = [piece.size for piece in stream.asked]
    stream.judge()
    waiting = 2000 * size - sum(sizes)
    assert stream.asked[-1].size == min(waiting, LIMITS.judged_most // size * size)
