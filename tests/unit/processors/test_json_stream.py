"""JSON answers as they stream: the events that pass, those that are added, and when."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.processors import StreamInfo, read_processor
from gai_fast.processors._schema import Schema
from gai_fast.processors.json_stream import JSONStreamProcessor, JSONStreamSettings
from tests.conftest import ChangeLimits
from tests.limits import LIMITS

from .streams import FINISH, START, delta, pieces, stream, text_of, through, types_of
from .test_json_text import VALUES, calls, written

SIZES = (1, 3, 1000)
DOCUMENT = '{"city": "Oslo", "days": [1, 2.5, {"sun": true}], "note": "a \\"b\\" \\ud83d\\ude00"}'


def run(text: str, edges: Any = 1, *, finish: Any = FINISH, **options: Any) -> list[Any]:
    return through(JSONStreamProcessor(**options), stream(*pieces(text, edges), finish=finish))


def snapshots(events: list[Any]) -> list[Any]:
    return [event["json"] for event in events if isinstance(event, dict) and event["type"] == "json.snapshot"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("on_invalid", ["warn", "error"])
def test_json_passes_unchanged_event_for_event(size: int, on_invalid: Any) -> None:
    events = stream(*pieces(f" \n{DOCUMENT}\n", size))
    assert through(JSONStreamProcessor(on_invalid=on_invalid), events) == events


@settings(max_examples=settings().max_examples * 3 // 10)
@given(VALUES, st.lists(st.integers(min_value=0), max_size=8))
def test_the_last_snapshot_is_the_document(value: Any, edges: list[int]) -> None:
    text = written(value, True, None)
    expected = json.loads(text)
    result = snapshots(run(text, edges, snapshots_ms=0))
    # An event's empty keys are left out: of an empty document there is nothing to tell.
    assert result[-1:] == ([expected] if expected not in ({}, [], "", None) else [])


def test_snapshots_come_as_often_as_they_were_asked_for() -> None:
    processor = JSONStreamProcessor(snapshots_ms=100)
    events = [START, *map(delta, ('{"a":"', "b", "c", "d", "e", '"', "}")), FINISH]
    out = through(processor, events, [0, 1000, 1050, 1099, 1100, 1150, 1160, 1170, 1170])
    assert snapshots(out) == [{"a": ""}, {"a": "bcd"}, {"a": "bcde"}]
    assert types_of(out)[:3] == ["start", "text.delta", "json.snapshot"]


def test_snapshots_go_on_where_the_clock_is_set_back() -> None:
    events = [START, *map(delta, ["[1, ", "2, ", "3, ", "4, "])]
    out = through(JSONStreamProcessor(snapshots_ms=50), events, [0, 100_000, 20, 30, 70])
    assert snapshots(out) == [[1], [1, 2, 3, 4]]


def test_a_snapshot_that_is_due_does_not_need_another_delta() -> None:
    processor = JSONStreamProcessor(snapshots_ms=100)
    through(processor, [START, delta('{"a":"b')], [0, 1000])
    assert processor.due_ms is None
    list(processor.process(delta("c"), 1001))
    assert processor.due_ms == 1100
    assert [event["json"] for event in processor.flush(1100)] == [{"a": "bc"}]
    assert processor.due_ms is None
    assert list(processor.flush(1200)) == []


def test_an_answer_that_is_cut_off_tells_what_there_is() -> None:
    out = run('{"a": "b', finish={**FINISH, "finish_reason": "length"}, snapshots_ms=10_000)
    assert snapshots(out)[-1] == {"a": "b"}
    assert "warning" not in types_of(out)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('{"a": nul}', '{"a": nul'),
        ("Sure! {}", ""),
        ('{"a": 1} Hope this helps', '{"a": 1} '),
        ('{"a": 1}{"a": 2}', '{"a": 1}'),
    ],
)
def test_what_is_no_json_is_reported_at_once(size: int, text: str, right: str) -> None:
    out = run(text, size)
    assert text_of(out) == text
    assert types_of(out).count("warning") == 1
    assert next(event for event in out if event["type"] == "warning")["reason"] == "invalid_json"
    refused = run(text, size, on_invalid="error")
    assert text_of(refused) == right
    assert types_of(refused)[-1] == "raised invalid_json"


@pytest.mark.parametrize("text", ["", " ", "{", '{"a":', "tru", "1.", "[1", '{"a":1}{"a"'])
def test_a_document_that_the_model_did_not_end_is_reported_at_the_end(text: str) -> None:
    assert types_of(run(text, 1))[-3:-2] == ["warning"]
    assert types_of(run(text, 1, on_invalid="error"))[-1] == "raised invalid_json"
    for reason in ("length", "cancelled", "content_filter"):
        finish = {**FINISH, "finish_reason": reason}
        assert "warning" not in types_of(run(text, 1, finish=finish, on_invalid="error"))


@pytest.mark.parametrize("before", ["", "1 "])
def test_a_number_that_is_too_long_is_reported_at_the_end(before: str) -> None:
    text = before + "1" * (LIMITS.integer_digits + 1)
    out = run(text, 1000, on_invalid="error")
    assert types_of(out)[-1] == "raised invalid_json"
    assert text_of(run(text, 1000)) == text


def test_an_unknown_reaction_to_invalid_json_is_refused() -> None:
    unknown: Any = "raise"
    with pytest.raises(ValueError, match=r"^`on_invalid` must be 'warn' or 'error', not 'raise'$"):
        JSONStreamProcessor(on_invalid=unknown)


def test_an_error_says_where_and_not_what() -> None:
    error = run('{"secret": x', on_invalid="error")[-1]
    assert isinstance(error, Error)
    assert (error.code, error.reason, error.temporary) == ("provider_unavailable", "invalid_json", True)
    assert error.message == "the answer of the model is not JSON: no value at character 11"


def test_a_tool_call_or_a_refusal_is_no_missing_json() -> None:
    for event in ({"type": "tool.call", "call_id": "c", "tool_call": {}}, {"type": "refusal.delta", "text": "no"}):
        events: list[Any] = [START, event, FINISH]
        assert through(JSONStreamProcessor(on_invalid="error"), events) == events


def test_after_an_error_of_its_own_it_passes_everything() -> None:
    processor = JSONStreamProcessor(on_invalid="error", snapshots_ms=0)
    through(processor, [START, delta("no")])
    rest: list[Any] = [delta("x"), {"type": "error", "error": {}}, {"type": "done", "finished": False}]
    assert through(processor, rest) == rest


def test_other_choices_and_kinds_pass_by() -> None:
    events: list[Any] = [
        START,
        delta("not json", choice=1),
        {"type": "reasoning.delta", "text": "hm"},
        delta("{}"),
        FINISH,
    ]
    assert through(JSONStreamProcessor(on_invalid="error"), events) == events


def test_a_reset_begins_again() -> None:
    events: list[Any] = [START, delta('{"a": 1'), {"type": "stream.reset"}, START, delta('{"b": 2}'), FINISH]
    out = through(JSONStreamProcessor(on_invalid="error", snapshots_ms=0), events)
    assert snapshots(out)[-1] == {"b": 2}
    assert types_of(out)[-1] == "finish"


# ---- the same document again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_document_that_is_said_again_is_left_out(size: int) -> None:
    again = ' {"b":[true],\n"a":1} '
    out = run('{"a": 1, "b": [true]}' + again * 3, size, on_invalid="error")
    assert text_of(out).strip() == '{"a": 1, "b": [true]}'
    assert types_of(out)[-1] == "done"


@pytest.mark.parametrize("rest", ['{"a": true}', '{"a": 1', "x", "{x"])
def test_what_only_begins_like_it_is_not_lost(rest: str) -> None:
    text = '{"a": 1}' + rest
    assert text_of(run(text, 1)) == text
    assert types_of(run(text, 1)).count("warning") == 1


def test_repetitions_may_be_kept() -> None:
    assert text_of(run('{"a": 1}{"a": 1}', remove_duplicates=False)) == '{"a": 1}{"a": 1}'


# ---- what stands around it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("before", "document", "after"),
    [
        ("```json\n", DOCUMENT, "\n```"),
        ("```\n", "[1, 2]", "\n```\nAs you can see [1]."),
        ("Sure! Here it is:\n\n```json\n", "{}", "```"),
        ("As [1] says {so to speak}, and [2] {\n", '{"a": 1}', "\n{"),
        ("The JSON: ", '{"a": 1}', ' {"a": 2}'),
        ("", DOCUMENT, ""),
        ("  \n", '[{"a": 1}]', ""),
        ("{{", '{"a": {"b": 1}}', "}}"),
        ("Hm {1} {", '{"a":1}', ""),
    ],
)
def test_prose_and_fences_are_left_out_where_that_is_asked_for(
    size: int, before: str, document: str, after: str
) -> None:
    out = run(before + document + after, size, recover=True, on_invalid="error", snapshots_ms=0)
    assert text_of(out) == document
    assert types_of(out)[-1] == "done"
    assert snapshots(out)[-1:] == [json.loads(document)] or document == "{}"


@pytest.mark.parametrize("text", ["no json at all", "{not json}", "see [1]", "{", "x" * (LIMITS.json_prose + 1)])
def test_prose_without_json_is_not_lost(text: str) -> None:
    out = run(text, 1000, recover=True)
    assert text_of(out) == text
    assert types_of(out).count("warning") == 1
    assert text_of(run(text, 1000, recover=True, on_invalid="error")) == ""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("text", "right"), [('Here: {"a": 1, x', '{"a": 1, '), ('{"a": NaN} {"b": 1}', '{"a": '), ("[" * 300, "[" * 255)]
)
def test_a_document_that_breaks_after_it_was_found_is_reported(size: int, text: str, right: str) -> None:
    out = run(text, size, recover=True, on_invalid="error")
    assert (text_of(out), types_of(out)[-1]) == (right, "raised invalid_json")


def test_the_search_for_a_document_ends_within_a_delta_too(change_limits: ChangeLimits) -> None:
    change_limits(json_prose=4096)
    text = "{" * LIMITS.json_prose + '{ {"a": 1}'
    assert text_of(run(text, len(text), recover=True)) == text


# ---- work ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"b":"xyz"},', "[[[[[[[[", "\n[\n[", '{"{"', '["[[[[', "{ {x}", 'prose { and "prose"'],
    ids=["a list", "brackets", "lists on lines", "names", "strings", "braces", "prose"],
)
@pytest.mark.parametrize("recover", [False, True])
def test_twice_the_text_costs_twice_the_steps(text: str, recover: bool) -> None:
    def work(count: int) -> int:
        events = stream(*pieces("[" + text * count, 4))
        processor = JSONStreamProcessor(recover=recover)
        return calls(lambda: through(processor, events))

    # Brackets in prose are tried to their depth: from there on, twice is twice.
    small, large = work(400), work(800)
    assert large < 2.1 * small


def test_a_snapshot_that_is_not_due_costs_nothing() -> None:
    def work(interval: int | None) -> int:
        events = stream(*pieces('{"a":"' + "x" * 2000 + '"}', 2))
        processor = JSONStreamProcessor(snapshots_ms=interval)
        return calls(lambda: through(processor, events))

    assert work(10_000) < 1.8 * work(None)


def test_snapshots_of_a_large_value_become_rarer_so_that_all_of_them_cost_a_multiple_of_it() -> None:
    def emitted(count: int) -> int:
        document = "[" + ",".join(["[1,2,3]"] * count) + "]"
        return len(snapshots(run(document, 1, snapshots_ms=0)))

    assert emitted(30) == 30 * 4  # of a small value, whenever there is more
    assert emitted(2000) < 1.6 * emitted(1000)


def test_all_snapshots_of_a_long_answer_are_a_few_times_their_bound_and_the_last_one_comes_in_any_case(
    change_limits: ChangeLimits,
) -> None:
    change_limits(json_snapshots=1000)

    def written(numbers: int) -> int:
        processor = JSONStreamProcessor(snapshots_ms=0)
        deltas = ["[", *["1234567," for _ in range(numbers)], "1]"]
        events = [event for text in deltas for event in processor.process({"type": "text.delta", "text": text})]
        found = snapshots(events)
        assert len(found[-1]) == numbers + 1
        assert processor.due_ms is None
        return sum(len(encode_json(each)) for each in found[:-1])

    assert 2000 < written(100) < 6000  # below the bound: by it
    assert written(1000) < 8000 * 2 + 6000  # beyond it: by the answer


def test_a_small_answer_has_the_interval_that_was_asked_for() -> None:
    document = "[" + ",".join(["12345"] * 300) + "]"
    assert len(snapshots(run(document, 6, snapshots_ms=0))) == 300


def test_a_member_that_is_repeated_in_one_delta_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[tuple[str, Any]] = []
    schema = Schema('{"properties": {"a": {"type": "array"}, "b": {"type": "integer"}}}')
    monkeypatch.setattr(schema, "member_problem", lambda name, value: checked.append((name, value)))
    processor = JSONStreamProcessor(schema)
    list(processor.process({"type": "text.delta", "text": '{"a": [1], "b": 1, "a": [2], "a": [3], '}))
    assert checked == [("b", 1), ("a", [3])]


def test_a_member_that_has_begun_again_is_checked_when_it_is_whole() -> None:
    schema = {"properties": {"a": {"type": "string", "minLength": 3}}}
    out = run('{"a": "abc", "a": "defg"}', [20], schema=schema, on_invalid="error")
    assert types_of(out)[-1] == "done"


def test_an_answer_beyond_its_limit_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[JSONStreamProcessor.__module__]
    monkeypatch.setattr(module, "LIMITS", type("Few", (), {"json_answer": 20, "json_last_snapshot": 20}))
    assert types_of(run('{"a": "' + "x" * 40, 4, on_invalid="error"))[-1] == "raised invalid_json"


def test_a_complete_document_beyond_a_limit_is_told_by_its_text_alone(change_limits: ChangeLimits) -> None:
    """It would be written at once."""
    document = "[" + "1," * 999 + "1]"
    change_limits(json_last_snapshot=len(document))
    assert len(snapshots(run(document, 100, snapshots_ms=10**6))[-1]) == 1000
    change_limits(json_last_snapshot=len(document) - 1)
    out = run(document, 100, snapshots_ms=10**6)
    assert (text_of(out), snapshots(out)) == (document, [[*[1] * 49]])


@pytest.mark.parametrize("document", ["[%s1]", '{"a": [%s1]}'])
@pytest.mark.parametrize("work", ["values", "patterns"])
def test_a_check_that_takes_too_much_is_not_begun_and_that_is_said(
    document: str, work: str, change_limits: ChangeLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold the loop: the library neither pauses nor lets other threads run."""
    costly: dict[str, Any] = {"anyOf": [{"minLength": at} for at in range(100)]}
    schema = Schema(json.dumps(costly if work == "values" else {"anyOf": [{"pattern": f"{at}"} for at in range(100)]}))
    change_limits(schema_work=100_000 if work == "values" else 50_000)
    checked: list[int] = []
    for name in ("problem", "member_problem"):
        monkeypatch.setattr(schema, name, lambda *given: checked.append(len(encode_json(given[-1]))))
    text = document % ("1," * 900)
    assert types_of(run(document % ("1," * 9), 100, schema=schema)).count("warning") == 0
    assert checked
    checked.clear()
    out = run(text, 100, schema=schema)
    assert [event["reason"] for event in out if event["type"] == "warning"] == ["schema_unchecked"]
    assert (text_of(out), checked) == (text, [])
    refused = run(text, 100, schema=schema, on_invalid="error")
    assert types_of(refused)[-1] == "raised schema_unchecked"


def test_a_repetition_is_held_and_compared_up_to_a_limit(change_limits: ChangeLimits) -> None:
    document = "[" + "1," * 99 + "1]"
    change_limits(json_repeated=len(document))
    assert text_of(run(document * 3, 10)) == document
    change_limits(json_repeated=len(document) - 1)
    out = run(document * 2, 1000)
    assert (text_of(out), types_of(out).count("warning")) == (document * 2, 1)


# ---- the configuration -----------------------------------------------------------------------------------------------


def test_a_stream_that_wants_no_json_has_no_processor() -> None:
    configured = read_processor({"use": "json_stream", "recover": True, "on_invalid": "error"})
    assert configured == JSONStreamSettings(recover=True, on_invalid="error")
    assert configured.processor(StreamInfo()) is None
    made = configured.processor(StreamInfo(wants_json=True, json_snapshots=200))
    assert isinstance(made, JSONStreamProcessor)
    assert made.snapshots_ms == 200
    assert made.touches == "deltas"


def test_an_answer_repeated_without_end_in_one_delta_is_no_repetition() -> None:
    text = "[1]" * 1000
    assert [event["type"] for event in run(text, ())] == ["start", "text.delta", "warning", "finish", "done"]
    assert "".join(event.get("text", "") for event in run("[1]" * 3, ())) == "[1]"
