"""`gai_fast/guards/stages/judging.py`: what judges are asked of a stream's events, and what their verdicts do."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.processing.chain import Chain
from gai_fast.core.processing.processor import Stop, StreamInfo
from gai_fast.guards.stages.judging import JudgeStage
from gai_fast.guards.verdicts import Failed, JudgeVerdict
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from tests.guarding import Answering, Counts, judging
from tests.unit.core.test_relay_money import CUT, Scene, chunk
from tests.unit.formats.streams import call, call_delta, call_start, finish, reasoning, text
from tests.unit.guards.stages.test_stage import SIGNATURE, START, USAGE

FINE = JudgeVerdict(flagged=False)
BAD = JudgeVerdict(flagged=True, category="violence", score=0.9)
LATE = Failed("late", "no verdict within 1 s")
STREAM = StreamInfo("s1", model="m", caller="anna")
LONG = "forty characters of text, or a bit more. "


class Judged:
    """A stage whose judges answer when the test says so, and what has left it."""

    def __init__(self, action: Any = "stop", *more: Any, **settings: Any) -> None:
        self.judge = Answering()
        self.counts = Counts()
        self.stage = JudgeStage([judging(self.judge, action, **settings), *more], STREAM, self.counts)
        self.woken = 0
        self.now = 1000
        self.stage.connect(self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def take(self, events: Any) -> list[Any]:
        out: list[Any] = []
        try:
            out.extend(events)
        except (Stop, Error) as end:
            out.append(end)
        return out

    def add(self, *events: Any) -> list[Any]:
        return [out for event in events for out in self.take(self.stage.process(event, self.now))]

    def answer(self, verdict: Any = FINE, at: int = 0) -> list[Any]:
        self.judge.answer(verdict, at)
        assert self.stage.due_ms == 0
        return self.take(self.stage.flush(self.now))

    def wait(self, milliseconds: int) -> list[Any]:
        self.now += milliseconds
        due = self.stage.due_ms
        return self.take(self.stage.flush(self.now)) if due is not None and due <= self.now else []

    @property
    def texts(self) -> list[str]:
        return self.judge.texts

    @property
    def state(self) -> tuple[int | None, int, bool]:
        return self.stage.due_ms, self.stage.waiting, self.stage.holds


def kinds(events: list[Any]) -> list[Any]:
    return [
        each if isinstance(each, Exception) else each.get("text") or each.get("arguments") or each["type"]
        for each in events
    ]


# ---- what is asked ---------------------------------------------------------------------------------------------------


def test_a_question_names_the_stream_and_its_text() -> None:
    made = Judged()
    assert made.add(START) == [START]
    assert made.add(text("Hi"), text(LONG)) == []
    (asked,) = made.judge.asked
    assert asked.question.members() == {
        "guard": "policy", "on": "output", "channel": "text", "text": "Hi" + LONG,
        "model": "m", "caller": "anna", "stream_id": "s1",
    }  # fmt: skip
    given = made.answer()
    assert kinds(given) == ["Hi", LONG]
    assert made.woken == 1
    assert (made.stage.holds, made.stage.due_ms, made.counts.all) == (False, None, [])


def test_events_that_pass_are_the_same_objects_without_probabilities() -> None:
    made = Judged()
    first, second = text("one", index=3), text(LONG, logprobs=[{"token": "x"}])
    made.add(first, second)
    given = made.answer()
    assert given[0] is first
    assert given[1] == text(LONG)


def test_a_piece_is_asked_for_after_a_tenth_of_a_second() -> None:
    made = Judged()
    made.add(text("Hi"))
    assert made.stage.due_ms == 1100
    assert made.wait(100) == []
    assert made.texts == ["Hi"]
    assert made.state == (None, 2, True)


def test_the_time_of_a_question_begins_when_its_text_was_ready() -> None:
    """Four questions are out: the fifth waits, and has less time for it."""
    made = Judged()
    for size in (32, 64, 128, 256, 512):
        made.add(text("x" * size))
    assert [each.ready for each in made.judge.asked] == [None] * 4
    made.now += 300
    made.judge.time += 0.3
    made.answer()
    assert made.judge.asked[-1].ready == pytest.approx(5.0)
    ((guard, delay),) = made.counts.delays
    assert (guard, round(delay, 6)) == ("policy", 0.3)


def test_each_kind_of_text_is_a_channel() -> None:
    made = Judged()
    refusal: Event = {"type": "refusal.delta", "text": "No. "}
    made.add(reasoning("hm"), text("Hi", choice=1), refusal, call_start(), call_delta('{"a":'), call_delta("1}"))
    assert made.texts == ["hm", "No. "], "each ends where another one begins"
    made.add(call(arguments='{"a":1}'), finish_of_choice())
    assert [each.question.channel for each in made.judge.asked] == ["reasoning", "refusal", "tool_call"]
    assert made.texts[-1] == '{"a":1}'
    assert kinds(made.answer(at=2)) == []
    assert kinds(made.answer(at=1)) == []
    out = made.answer()
    assert kinds(out) == ["hm", "No. ", "tool.call.start", '{"a":', "1}", "tool.call", "step.end"]


def finish_of_choice() -> Any:
    return {"type": "step.end"}


@pytest.mark.parametrize("said", [{}, {"related_questions": ["A bird?"]}])
def test_a_judge_is_not_asked_about_ends_of_choices_and_drops_none(said: dict[str, Any]) -> None:
    ends: list[Any] = [{"choice": 1, "finish_reason": "length"}]
    judged = Judged("mask")
    end: Any = {**finish(), "provider_metadata": {**said, "choices": ends}}
    judged.stage.announce(end)
    judged.take(judged.stage.release())
    assert judged.texts == (['{"related_questions":["A bird?"]}'] if said else [])
    if said:
        assert kinds(judged.answer(JudgeVerdict(flagged=True))) == ["safety"]
    assert judged.add(end) == [{**finish(), "provider_metadata": {"choices": ends}}]


def test_a_call_without_deltas_and_a_server_tool_and_titles_are_judged() -> None:
    made = Judged()
    tool: Any = {"type": "server_tool", "server_tool": {"name": "web_search", "input": {"q": "birds"}}}
    cited: Any = {"type": "citations", "citations": [{"uri": "u", "title": "A"}, {"cited_text": "B"}]}
    own: Any = {"type": "tool.call", "call_id": "c2", "tool_call": {"name": "grep", "input": 'a "b"'}}
    made.add(call(arguments='{"a":1}'), own, tool, cited)
    assert made.texts == ['{"a":1}', 'a "b"', '{"name":"web_search","input":{"q":"birds"}}', "A\nB"]
    assert [each.question.channel for each in made.judge.asked] == ["tool_call", "tool_call", "tool_call", "text"]
    given = made.answer() + made.answer() + made.answer() + made.answer()
    assert kinds(given) == ["tool.call", "tool.call", "server_tool", "citations"]


@pytest.mark.parametrize("title", ["titles A", "A"])
def test_a_stop_within_titles_lets_none_of_them_through(title: str) -> None:
    made = Judged()
    made.add({"type": "citations", "citations": [{"uri": "u", "title": title}, {"cited_text": "B"}]})
    given = made.answer(JudgeVerdict(flagged=True, spans=((len(title), len(title) + 1),)))
    assert kinds(given[:-1]) == ["safety"]
    assert isinstance(given[-1], Stop)


def test_results_of_tools_and_blocks_of_the_provider_are_judged() -> None:
    made = Judged("mask")
    result: Any = {"type": "tool.result", "tool_result": {"a": "x"}}
    block: Any = {"type": "provider.block", "provider": "demo", "block": {"b": "y"}}
    assert made.add(result, block, block) == []
    assert made.texts == ['{"a":"x"}', '{"b":"y"}', '{"b":"y"}']
    assert kinds(made.answer() + made.answer()) == ["tool.result", "provider.block"]
    assert kinds(made.answer(BAD)) == ["safety"]


def test_a_judge_reads_arguments_without_their_escapes() -> None:
    made = Judged()
    made.add(call_start(), call_delta('{"a":"\\u0062'), call_delta('omb \\u0431"}'), call())
    assert made.texts == ['{"a":"bomb б"}']


def test_titles_do_not_end_the_text_before_them() -> None:
    made = Judged()
    made.add(text("Hi"), {"type": "citations", "citations": [{"uri": "u", "title": "A"}]}, text(" there"))
    assert made.texts == ["A"]


def test_other_events_wait_behind_the_text_of_their_choice() -> None:
    made = Judged()
    image: Event = {"type": "image", "image": {"data": "x"}, "choice": 1}
    assert made.add(text("Hi"), USAGE, image) == [image]
    made.wait(100)
    assert kinds(made.answer()) == ["Hi", "usage"]


def test_a_whole_answer_asks_for_its_rest_and_waits() -> None:
    made = Judged()
    made.add(text("Hi"))
    assert made.take(made.stage.release(made.now)) == []
    assert (made.texts, made.stage.holds) == (["Hi"], True)
    assert made.take(made.stage.release(made.now)) == []
    assert len(made.texts) == 1


# ---- verdicts --------------------------------------------------------------------------------------------------------


def test_a_stop_is_told_and_ends_the_stream() -> None:
    made = Judged()
    made.add(text(LONG), text("more"))
    before, told, end = made.answer(JudgeVerdict(True, "violence", 0.9, ((6, 16),)))
    assert before["text"] == "forty "
    assert told["safety"] == {
        "category": "violence", "action": "stop", "score": 0.9, "guard": "policy", "on": "output",
    }  # fmt: skip
    assert (end.finish_reason, end.reason) == ("content_filter", "guard")
    assert made.counts.all == [("stop", "policy", "output"), ("stopped", "policy", "output", "s1", "anna")]
    assert made.add(text("x"), USAGE, finish()) == [finish()]
    assert (made.stage.holds, made.stage.due_ms) == (False, None)


def test_a_masked_reasoning_loses_its_signature() -> None:
    made = Judged("mask")
    made.add(reasoning(LONG), SIGNATURE, text("x"))
    given = made.answer(JudgeVerdict(True, "violence", None, ((6, 16),)))
    assert kinds(given) == ["forty [violence] of text, or a bit more. ", "safety"]
    assert "score" not in given[1]["safety"]
    assert made.counts.all == [("mask", "policy", "output")]


def test_masked_titles_are_left_out_and_told() -> None:
    made = Judged("mask")
    made.add({"type": "citations", "citations": [{"uri": "u", "title": "A"}]}, USAGE)
    assert kinds(made.answer(BAD)) == ["safety", "usage"]


@pytest.mark.parametrize("action", ["mask", "stop"])
def test_a_flagged_call_is_no_call(action: Any) -> None:
    made = Judged(action)
    made.add(call_start(), call_delta('{"a":1}'), call(arguments='{"a":1}'))
    *told, end = made.answer(BAD)
    assert [each["safety"]["action"] for each in told] == ["stop"]
    assert isinstance(end, Stop)


def test_a_flag_holds_nothing_and_is_told_when_it_comes() -> None:
    made = Judged("flag")
    assert kinds(made.add(text(LONG))) == [LONG]
    assert made.stage.holds, "`finish` waits"
    given = made.answer(BAD)
    assert [each["safety"]["action"] for each in given] == ["flag"]
    assert not made.stage.holds


def test_a_flag_that_comes_late_is_told_and_counted_once_a_match() -> None:
    made = Judged("flag")
    made.add(START, text("A kestrel. " + LONG), text(LONG * 3), text(LONG * 7))
    assert [each.count("kestrel") for each in made.texts] == [1, 1, 1]
    told = [each["type"] for _ in range(3) for each in made.answer(BAD)]
    assert told == ["safety"]
    assert made.counts.all == [("flag", "policy", "output")]


def test_exposed_text_is_out_before_its_verdict() -> None:
    made = Judged(max_exposure=60)
    assert kinds(made.add(text(LONG), text("20 characters more. "))) == [LONG]
    assert kinds(made.answer()) == ["20 characters more. "]


@pytest.mark.parametrize("fails_open", [False, True])
def test_a_failure_ends_the_stream_or_is_warned_of_once(fails_open: bool) -> None:
    made = Judged(fails_open=fails_open)
    made.add(text(LONG), text("x" * 90))
    given = made.answer(LATE)
    if fails_open:
        assert given[1:] == [text(LONG)]
        assert given[0] == {"type": "warning", "reason": "guard_failed", "guard": "policy"}
        assert kinds(made.answer(LATE)) == ["x" * 90]
        assert made.counts.all == [("failed", "policy")] * 2
    else:
        (error,) = given
        assert (error.code, error.reason, error.guard, error.temporary) == (
            "provider_unavailable", "guard_failed", "policy", True,
        )  # fmt: skip
        assert made.texts == []
        assert made.add(text("x"), {"type": "error"}) == [{"type": "error"}]


def test_several_judges_are_asked_at_once_and_all_must_let_it_through() -> None:
    second = Answering()
    made = Judged("mask", judging(second, "mask", name="second"))
    made.add(text(LONG))
    assert made.texts == second.texts == [LONG]
    assert made.answer(JudgeVerdict(True, "a", None, ((0, 5),))) == []
    second.answer(JudgeVerdict(True, "b", None, ((6, 16),)))
    given = made.take(made.stage.flush(made.now))
    assert given[0]["text"] == "[a] [b] of text, or a bit more. "
    assert [each["safety"]["guard"] for each in given[1:]] == ["policy", "second"]


@pytest.mark.parametrize("kind", ["finish", "error", "stream.reset", "gone"])
def test_an_end_gives_up_the_questions(kind: str) -> None:
    made = Judged()
    made.add(text(LONG), text("more"))
    asked = made.judge.asked[0]
    if kind == "gone":
        made.stage.connect(None)
    else:
        assert kinds(made.add({"type": kind})) == [kind]
    assert asked.is_cancelled
    made.judge.answer(BAD)
    assert (made.stage.due_ms, made.stage.holds, made.woken) == (None, False, 0)


def test_a_reset_begins_again() -> None:
    made = Judged("mask")
    made.add(reasoning(LONG))
    made.answer(BAD)
    made.add({"type": "stream.reset", "reason": "x"}, START)
    assert made.add(SIGNATURE) == [SIGNATURE]
    made.add(text("y" * 31))
    assert made.texts == []
    made.add(text("y"))
    assert made.texts == ["y" * 32]


# ---- in a stream -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["cancel", "drain", "break"])
def test_whatever_ends_a_stream_drops_what_has_no_verdict(end: str) -> None:
    judge = Answering()
    scene = Scene(chain=Chain([JudgeStage([judging(judge)], STREAM, Counts())]))
    scene.say(chunk(LONG))
    if end == "cancel":
        scene.relay.stop("cancelled")
    elif end == "drain":
        scene.relay.fail(Error("overloaded", "draining"))
    else:
        scene.relay.receive_eof(CUT)
    assert kinds(scene.sink.take()) == ["start", "finish" if end == "cancel" else "error", "done"]
    assert judge.texts == []


def test_a_failure_while_the_end_waits_is_the_end() -> None:
    judge = Answering()
    scene = Scene(chain=Chain([JudgeStage([judging(judge)], STREAM, Counts())]))
    scene.say(chunk(LONG), chunk(finish="stop"), "[DONE]")
    judge.answer(LATE)
    scene.relay.tick(1)
    events: list[Any] = scene.sink.take()
    assert kinds(events) == ["start", "error", "done"]
    assert events[-2]["error"]["guard"] == "policy"


def test_a_slow_judge_delays_no_token_within_its_exposure() -> None:
    """Forty tokens of four characters a second, and verdicts after 300 ms: the figure of `benchmarks.macro.guards`."""
    made = Judged(max_exposure=200)
    due: list[int] = []
    left = most = 0
    for number in range(400):
        while due and due[0] <= made.now:
            due.pop(0)
            left += len(made.answer())
        left += len(made.wait(0))
        left += len(made.add(text("wort")))
        due += [made.now + 300] * (len(made.judge.asked) - len(due))
        most = max(most, len(due))
        assert left == number + 1, "each token leaves as it comes"
        made.now += 25
    assert most <= 4


def test_what_waits_behind_a_text_without_a_verdict_is_counted() -> None:
    """The upstream is read no further than a reader's buffer: a sound is longer than what it says."""
    made = Judged()
    sound: Event = {"type": "audio.delta", "audio": {"data": "x" * 1000}}
    made.add(text(LONG), *[sound] * 50)
    assert made.stage.waiting > 50_000
    assert kinds(made.answer()) == [LONG, *["audio.delta"] * 50]
    assert made.stage.waiting == 0
    made.add(text(LONG), *[sound] * 50, {"type": "stream.reset", "reason": "x"})
    assert made.stage.waiting == 0


def test_behind_a_call_under_way_little_waits_and_nothing_holds_the_upstream_back() -> None:
    """Its rest must be read: what waits behind it would wait without end."""
    made = Judged()
    sound: Event = {"type": "audio.delta", "audio": {"data": "x" * 1000}}
    made.add(call_start(), call_delta('{"a":'))
    out = made.add(*[sound] * 100)
    assert 30 < len(out) < 40
    assert made.stage.waiting == 0
    made.add(call_delta("1}"), call(arguments='{"a":1}'))
    assert kinds(made.answer())[-1] == "tool.call"
    assert (made.stage.waiting, made.stage.holds) == (0, False)
