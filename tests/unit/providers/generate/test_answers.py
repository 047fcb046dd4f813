"""Answers of Gemini."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

import gai_fast
from gai_fast.model.errors import Error, Malformed
from gai_fast.model.events import other_ends
from gai_fast.providers import get_provider
from tests.kernels import cuts
from tests.limits import LIMITS
from tests.unit.providers import answer_reading as answers
from tests.unit.providers.answer_reading import between, calls_of, of_type, read_whole, text_of
from tests.unit.providers.gemini import STOP, call, chunk, failed, grounding, piece, read, text


class TestText:
    def test_parts_become_events_between_start_and_finish(self) -> None:
        assert read(chunk(text("Hi")), STOP) == [
            {"type": "start", "provider": "gemini", "model": "m1", "provider_metadata": {"id": "r1"}},
            {"type": "text.delta", "text": "Hi"},
            {
                "type": "finish",
                "provider": "gemini",
                "model": "m1",
                "finish_reason": "stop",
                "finish_reason_raw": "STOP",
            },
        ]

    def test_thoughts_are_reasoning(self) -> None:
        events = read(chunk(text("hm", thought=True), text("Hi")), STOP)
        assert (text_of(events, "reasoning.delta"), text_of(events)) == ("hm", "Hi")

    def test_text_beside_a_deep_answer_of_a_tool_is_reported(self) -> None:
        deep: Any = 1
        for _ in range(LIMITS.arguments_depth - 5):
            deep = [deep]
        answer = {"toolResponse": {"id": "a", "toolType": "URL_CONTEXT", "response": deep}}
        assert text_of(read(chunk(text("Hi"), answer), STOP)) == "Hi"

    @pytest.mark.parametrize("name", ["functionCall", "function_call"])
    @pytest.mark.parametrize("given", [{"args": {"a": 1}}, {"arguments": {"a": 1}}, {"args": '{"a":1}'}])
    def test_members_of_a_call_may_have_other_names(self, name: str, given: dict[str, Any]) -> None:
        events = read(chunk({name: {"name": "f", **given}}), STOP)
        assert [(made, arguments) for _, made, arguments in calls_of(events)] == [("f", '{"a":1}')]

    def test_what_is_empty_or_unknown_says_nothing(self) -> None:
        empty = [{"candidates": [{}]}, {"candidates": [{"content": None}]}, {"candidates": [{"content": {}}]}, {}]
        assert between(read(*empty, chunk(), chunk({"newThing": {"a": 1}}), chunk(text("")), STOP)) == []

    def test_a_chunk_that_says_nothing_at_all_is_no_start(self) -> None:
        adapter = get_provider("gemini").adapter("asked")
        assert adapter.receive("", '{"usageMetadata":{"promptTokenCount":3}}') == []
        assert adapter.receive("", json.dumps(chunk(text("a"))))[0]["model"] == "m1"

    def test_further_candidates_have_their_choice(self) -> None:
        events = read(chunk(text("b"), call("f"), index=1), chunk(text("a"), finish="STOP"), chunk(finish="X", index=1))
        assert text_of(events) == "a"
        assert {event.get("choice") for event in of_type(events, "tool.call.start", "tool.call")} == {1}
        assert events[-1]["finish_reason"] == "stop"

    def test_transcripts_are_text(self) -> None:
        assert text_of(read(chunk({"audioTranscription": {"text": "Hi"}}), STOP)) == "Hi"

    @pytest.mark.parametrize(
        "beside",
        [
            {"safetyRatings": [7]},
            {"groundingMetadata": {"groundingChunks": [7]}},
            {"groundingMetadata": {"groundingSupports": 7}},
            {"citationMetadata": [7]},
            {"finishMessage": 7},
            {"index": "x"},
        ],
    )
    def test_what_cannot_be_read_beside_the_parts_changes_nothing(self, beside: Any) -> None:
        assert read(chunk(text("a"), call("f"), **beside), STOP) == read(chunk(text("a"), call("f")), STOP)

    def test_a_number_that_is_a_text_is_the_same_candidate(self) -> None:
        recited = {"citations": [{"startIndex": 1, "endIndex": 2, "uri": "u"}]}
        chunks = [chunk(text("a"), index="1"), chunk(text("b"), index="1", citationMetadata=recited)]
        [result] = of_type(read(*chunks, STOP), "citations")
        assert result == {"type": "citations", "citations": [{"uri": "u", "start": 1, "end": 2}], "choice": 1}

    @pytest.mark.parametrize("part", [{"text": 1}, 7])
    def test_a_chunk_that_cannot_be_read_changes_nothing(self, part: Any) -> None:
        adapter = get_provider("gemini").adapter()
        with pytest.raises((Malformed, AttributeError, TypeError)):
            adapter.receive("", json.dumps(chunk(call("f", args={"a": 1}), part)))
        assert calls_of(answers.plain(adapter.receive("", json.dumps(chunk(call("g"))))))[0][0] == "call_0"

    def test_too_many_candidates_are_refused(self) -> None:
        adapter = get_provider("gemini").adapter()
        for index in range(LIMITS.choices):
            adapter.receive("", json.dumps(chunk(index=index)))
        with pytest.raises(Error, match="more than 128 choices"):
            adapter.receive("", json.dumps(chunk(index=LIMITS.choices)))


class TestSignatures:
    def test_of_text_it_names_the_block(self) -> None:
        chunks = [chunk(text("hm", thought=True)), chunk(text("a")), chunk(text("b", thoughtSignature="s"))]
        assert between(read(*chunks, chunk(text("", thoughtSignature="t"), finish="STOP")))[2:] == [
            {"type": "text.delta", "text": "b"},
            {"type": "reasoning.signature", "block": 1, "signature": "s"},
            {"type": "reasoning.signature", "block": 1, "signature": "t"},
        ]

    def test_of_a_thought_it_follows_the_thought(self) -> None:
        events = between(read(chunk(text("hm", thought=True, thoughtSignature="s")), STOP))
        assert events[-1] == {"type": "reasoning.signature", "block": 0, "signature": "s"}

    def test_of_a_call_it_names_the_call_before_the_call_is_complete(self) -> None:
        events = between(read(chunk(call("f", "s", args={}, id="c1")), STOP))
        assert events[1] == {"type": "reasoning.signature", "call_id": "c1", "signature": "s"}
        assert events[-1]["type"] == "tool.call"

    def test_of_several_calls_in_a_chunk_it_belongs_to_its_own(self) -> None:
        signed = of_type(read(chunk(call("f"), call("g", "s"), call("h")), STOP), "reasoning.signature")
        assert signed == [{"type": "reasoning.signature", "call_id": "call_1", "signature": "s"}]

    def test_of_an_end_that_ends_no_call_it_is_reported_as_well(self) -> None:
        signed = of_type(read(chunk(text("a")), chunk(call(signature="s")), STOP), "reasoning.signature")
        assert signed == [{"type": "reasoning.signature", "block": 0, "signature": "s"}]

    def test_of_any_other_part_it_is_reported_as_well(self) -> None:
        part = {"executableCode": {"code": "1"}, "thoughtSignature": "s"}
        signed = of_type(read(chunk(text("a")), chunk(part), STOP), "reasoning.signature")
        assert signed == [{"type": "reasoning.signature", "block": 1, "signature": "s"}]


class TestCalls:
    def test_a_whole_call_is_reported_at_once_with_its_text_verbatim(self) -> None:
        part = json.dumps(chunk(call("f", args={"n": 1}, id="c1"))).replace(
            ': {"n": 1}', ': {"n": 12345678901234567890, "f": 1.10}'
        )
        events = read(part, STOP)
        assert between(events) == [
            {"type": "tool.call.start", "call_id": "c1", "tool_call": {"name": "f"}, "index": 0},
            {
                "type": "tool.call.delta",
                "call_id": "c1",
                "index": 0,
                "arguments": '{"n": 12345678901234567890, "f": 1.10}',
            },
            {
                "type": "tool.call",
                "call_id": "c1",
                "tool_call": {"name": "f", "input": '{"n":12345678901234567890,"f":1.10}'},
            },
        ]
        assert events[-1]["finish_reason"] == "tool_calls"

    def test_calls_are_numbered_and_get_ids_where_they_have_none(self) -> None:
        events = read(chunk(call("f"), call("f", args={"a": 1})), chunk(call("g", id="x"), call("g", id="x")), STOP)
        assert calls_of(events) == [
            ("call_0", "f", "{}"), ("call_1", "f", '{"a":1}'), ("x", "g", "{}"), ("x_3", "g", "{}"),
        ]  # fmt: skip

    @pytest.mark.parametrize("arguments", [None, {}])
    def test_no_arguments_are_an_empty_object(self, arguments: Any) -> None:
        assert calls_of(read(chunk(call("f", args=arguments)), STOP)) == [("call_0", "f", "{}")]

    def test_pieces_are_written_as_they_come(self) -> None:
        chunks = [
            chunk(call("f", "s", willContinue=True)),
            chunk(call(partialArgs=[piece("$.a", stringValue='B"', more=True)], willContinue=True)),
            chunk(call(partialArgs=[piece("$.a", stringValue="os")], willContinue=True)),
            chunk(call(willContinue=True)),
            chunk(
                call(partialArgs=[piece("$.n[0]", numberValue=1), piece("$.n[1]", boolValue=False)], willContinue=True)
            ),
            chunk(call(partialArgs=[piece("$.z", nullValue="NULL_VALUE")])),
        ]
        chunks[4] = json.dumps(chunks[4]).replace('"numberValue": 1', '"numberValue": 1.50')
        events = read(*chunks, STOP)
        fragments = [event["arguments"] for event in of_type(events, "tool.call.delta")]
        assert fragments == ['{"a":"B\\"', "os", '","n":[1.50,false', '],"z":null', "}"]
        assert calls_of(events) == [("call_0", "f", '{"a":"B\\"os","n":[1.50,false],"z":null}')]

    def test_a_part_that_does_not_continue_ends_the_call(self) -> None:
        adapter = get_provider("gemini").adapter()
        adapter.receive("", json.dumps(chunk(call("f", willContinue=True))))
        assert [event["type"] for event in adapter.receive("", json.dumps(chunk(call())))] == ["tool.call"]
        assert adapter.receive("", json.dumps(chunk(call()))) == []

    def test_the_next_call_ends_one_in_pieces_and_so_does_the_finish(self) -> None:
        pieces = call("f", partialArgs=[piece("$.a", stringValue="x", more=True)], willContinue=True)
        events = read(chunk(pieces), chunk(pieces), STOP)
        assert calls_of(events) == [("call_0", "f", '{"a":"x"}'), ("call_1", "f", '{"a":"x"}')]

    def test_a_piece_that_continues_keeps_its_call_open(self) -> None:
        pieces = [
            call("f", partialArgs=[piece("$.a", stringValue="x", more=True)]),
            call(partialArgs=[piece("$.a", stringValue="y")]),
        ]
        assert calls_of(read(*map(chunk, pieces), STOP)) == [("call_0", "f", '{"a":"xy"}')]

    def test_a_string_may_go_on_without_having_said_so(self) -> None:
        pieces = [call("f", willContinue=True)]
        pieces += [call(partialArgs=[piece("$.a", stringValue=said)], willContinue=True) for said in "xyz"]
        assert calls_of(read(*map(chunk, pieces), chunk(call()), STOP)) == [("call_0", "f", '{"a":"xyz"}')]

    @pytest.mark.parametrize(
        "first", [{"willContinue": True}, {"partialArgs": [piece("$.a", stringValue="", more=True)]}]
    )
    def test_empty_arguments_beside_pieces_are_none(self, first: Any) -> None:
        last = call(args={}, partialArgs=[piece("$.a", stringValue="x")])
        assert calls_of(read(chunk(call("f", args={}, **first)), chunk(last), STOP)) == [("call_0", "f", '{"a":"x"}')]

    def test_halves_of_a_pair_in_two_pieces_are_one_character(self) -> None:
        pieces = [call("f", partialArgs=[piece("$.a", stringValue="x\ud83d", more=True)])]
        pieces += [call(partialArgs=[piece("$.a", stringValue=said, more=True)]) for said in ("\ude00", "\ud83d", "")]
        assert calls_of(read(*map(chunk, pieces), STOP)) == [("call_0", "f", '{"a":"x😀\ufffd"}')]

    def test_a_value_that_is_null_is_not_the_one(self) -> None:
        others = {"stringValue": None, "numberValue": None, "boolValue": None}
        pieces = [
            piece("$.n", **others | {"numberValue": 5}),
            piece("$.t", **others | {"boolValue": True}),
            piece("$.z", nullValue=None),
            piece("$.m", numberValue=6),
        ]
        events = read(chunk(call("f", args=None, partialArgs=pieces)), STOP)
        assert calls_of(events) == [("call_0", "f", '{"n":5,"t":true,"z":null,"m":6}')]

    def test_arguments_under_an_escaped_key_are_not_lost(self) -> None:
        escaped = json.dumps(chunk(call("f", args={"a": 1}))).replace("functionCall", "functionC\\u0061ll")
        assert calls_of(read(escaped, STOP)) == [("call_0", "f", '{"a":1}')]

    @pytest.mark.parametrize("reason", ["MAX_TOKENS", "SAFETY", "OTHER"])
    def test_one_in_pieces_that_nobody_ended_is_cut_off(self, reason: str) -> None:
        events = read(
            chunk(call("f", willContinue=True)), chunk(call("g")), chunk(call("h", willContinue=True), finish=reason)
        )
        assert [name for _, name, _ in calls_of(events)] == ["f", "g"]

    def test_a_piece_in_the_wrong_place_spoils_its_call(self) -> None:
        adapter = get_provider("gemini").adapter()
        adapter.receive(
            "", json.dumps(chunk(call("f", partialArgs=[piece("$.a[0]", numberValue=1)], willContinue=True)))
        )
        for _ in range(2):
            with pytest.raises(Malformed):
                adapter.receive("", json.dumps(chunk(call(partialArgs=[piece("$.a[7]", numberValue=1)]))))
        assert not of_type([*adapter.receive("", json.dumps(STOP)), *adapter.finish()], "tool.call")

    def test_a_call_whose_first_piece_is_in_the_wrong_place_never_began(self) -> None:
        adapter = get_provider("gemini").adapter()
        with pytest.raises(Malformed):
            adapter.receive("", json.dumps(chunk(call("f", partialArgs=[piece("$.a[7]", numberValue=1)]))))
        [start] = of_type(adapter.receive("", json.dumps(chunk(call("g")))), "tool.call.start")
        assert (start["tool_call"]["name"], start["index"]) == ("g", 0)


class TestPartsThatCannotBeRead:
    BAD: tuple[Any, ...] = (
        {"codeExecutionResult": 5},
        {"toolCall": [1]},
        {"functionCall": "f"},
        {"functionCall": {"partialArgs": [{"jsonPath": "a"}]}},
    )
    NAMELESS: Final = call(args={"x": 1})
    LOST: Final = call(partialArgs=[piece("$.a", stringValue="x")])
    """A piece of a call whose beginning is missing."""

    @pytest.mark.parametrize("bad", [*BAD, LOST, NAMELESS], ids=range(len(BAD) + 2))
    def test_the_parts_before_one_are_reported_and_calls_stay_dense(self, bad: Any) -> None:
        events = read(chunk(text("a"), call("f", args={}), bad), chunk(call("g", args={}), finish="STOP"))
        assert text_of(events) == "a"
        assert calls_of(events) == [("call_0", "f", "{}"), ("call_1", "g", "{}")]
        assert [event["index"] for event in of_type(events, "tool.call.start")] == [0, 1]
        assert len(of_type(events, "warning")) == 1

    @pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
    def test_text_after_one_is_kept(self, bad: Any) -> None:
        assert text_of(read(chunk(bad, text("a")), STOP)) == "a"

    def test_a_lost_piece_of_a_call_is_malformed(self) -> None:
        with pytest.raises(Malformed):
            get_provider("gemini").adapter().receive("", json.dumps(chunk(self.LOST, text("a"))))


class TestBlocks:
    """Parts that only Gemini understands."""

    def test_code_and_its_result_are_parts_of_their_own(self) -> None:
        parts = [
            {"executableCode": {"language": "PYTHON", "code": "1+1", "id": "a"}, "thoughtSignature": "c2ln"},
            {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2", "id": "a"}},
        ]
        blocks = of_type(read(chunk(text("Let me."), *parts), STOP), "provider.block")
        assert [(one["provider"], one["block"], one["index"]) for one in blocks] == [
            ("gemini", parts[0], 1),
            ("gemini", parts[1], 2),
        ]

    @pytest.mark.parametrize(
        "part",
        [
            {"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}},
            {"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}},
            {"fileData": {"mimeType": "video/mp4", "fileUri": "https://a.example/v"}, "videoMetadata": {"fps": 1}},
        ],
    )
    def test_what_is_no_image_and_no_sound_is_not_reported_as_one(self, part: dict[str, Any]) -> None:
        events = read(chunk(part), STOP)
        assert [one["block"] for one in of_type(events, "provider.block")] == [part]
        assert of_type(events, "image") == of_type(events, "audio.delta") == []

    def test_a_part_of_another_candidate_has_its_number(self) -> None:
        second = {"candidates": [{"index": 1, "content": {"parts": [{"executableCode": {"code": "1"}}]}}]}
        (block,) = of_type(read(second, STOP), "provider.block")
        assert block["choice"] == 1


class TestServerTools:
    def test_code_and_its_result_belong_together(self) -> None:
        code = {"executableCode": {"language": "PYTHON", "code": "1/0"}}
        result = {"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "no"}}
        tools = [
            event["server_tool"]
            for event in of_type(read(chunk(code), chunk(result), chunk(code), STOP), "server_tool")
        ]
        assert tools == [
            {
                "id": "code_execution_0",
                "name": "code_execution",
                "status": "started",
                "input": {"language": "PYTHON", "code": "1/0"},
            },
            {"id": "code_execution_0", "name": "code_execution", "status": "failed", "output": "no"},
            {**tools[0], "id": "code_execution_1"},
        ]

    def test_what_comes_after_the_answer_is_of_the_last_run(self) -> None:
        parts = [{"executableCode": {"code": "1"}}, *[{"codeExecutionResult": {"outcome": "OUTCOME_OK"}}] * 2] * 2
        tools = [event["server_tool"]["id"] for event in of_type(read(chunk(*parts), STOP), "server_tool")]
        assert tools == ["code_execution_0"] * 3 + ["code_execution_1"] * 3

    def test_an_answer_finds_its_call_by_its_id(self) -> None:
        parts = [{"toolCall": {"id": name, "toolType": "URL_CONTEXT", "args": {"urls": [name]}}} for name in "ab"]
        answer = {"toolResponse": {"id": "a", "toolType": "URL_CONTEXT", "response": {"ok": 1}}}
        last = of_type(read(chunk(*parts, answer), STOP), "server_tool")[-1]["server_tool"]
        assert last == {"id": "a", "name": "url_context", "status": "completed", "output": {"ok": 1}}

    def test_images_and_audio_are_reported_with_their_media_type(self) -> None:
        parts = [
            {"inlineData": {"mimeType": "image/png", "data": "AA=="}, "thought": True},
            {"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "AAAA"}},
        ]
        assert between(read(chunk(*parts), STOP)) == [
            {"type": "image", "image": {"data": "AA==", "media_type": "image/png", "partial": True}},
            {"type": "audio.delta", "audio": {"chunk": "AAAA", "format": "L16;rate=24000"}},
        ]


class TestSafety:
    def test_ratings_that_say_something_are_reported_once(self) -> None:
        dull = {"category": "A", "probability": "NEGLIGIBLE"}
        flagged = {"category": "B", "probability": "LOW", "probabilityScore": 0.25}
        blocked = {"category": "B", "probability": "HIGH", "blocked": True}
        events = read(
            *[chunk(text("x"), safetyRatings=[dull, flagged])] * 2, chunk(finish="SAFETY", safetyRatings=[blocked])
        )
        assert [event["safety"] for event in of_type(events, "safety")] == [
            {"category": "B", "action": "flagged", "score": 0.25},
            {"category": "B", "action": "blocked"},
        ]
        assert events[-1]["finish_reason"] == "content_filter"

    def test_a_blocked_prompt_is_an_error(self) -> None:
        error = failed({"promptFeedback": {"blockReason": "JAILBREAK"}})
        assert (error.code, error.reason, error.temporary) == ("content_filtered", "jailbreak", False)
        assert "JAILBREAK" in error.message
        assert failed({"promptFeedback": {"blockReason": "X" * 10_000}}).reason == "x" * LIMITS.kept_word
        feedback = {"blockReason": "OTHER", "blockReasonMessage": "No."}
        assert failed(chunk(text("a"), finish="STOP") | {"promptFeedback": feedback}).message == "No."

    def test_ratings_may_be_the_numbers_of_the_enum(self) -> None:
        ratings = [{"category": 8, "probability": 1}, {"category": 9, "probability": 3}]
        events = read(chunk(text("a"), safetyRatings=ratings), STOP)
        assert [event["safety"] for event in of_type(events, "safety")] == [{"category": "9", "action": "flagged"}]

    @pytest.mark.parametrize("word", ["BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"])
    def test_an_unspecified_reason_blocks_only_where_nothing_answers(self, word: str) -> None:
        feedback = {"promptFeedback": {"blockReason": word}}
        assert read(chunk(text("a"), finish="STOP") | feedback)[-1]["finish_reason"] == "stop"
        assert failed(feedback).code == "content_filtered"

    def test_what_is_said_of_a_prompt_that_is_not_blocked_is_no_error(self) -> None:
        assert text_of(read(chunk(text("a")) | {"promptFeedback": {"safetyRatings": []}}, STOP)) == "a"


class TestUsage:
    def test_all_is_added_up_and_the_last_counts(self) -> None:
        running = {"promptTokenCount": 100, "candidatesTokenCount": 1, "totalTokenCount": 101}
        last = {
            "promptTokenCount": 100,
            "toolUsePromptTokenCount": 7,
            "candidatesTokenCount": 30,
            "thoughtsTokenCount": 20,
            "cachedContentTokenCount": 64,
            "totalTokenCount": 157,
        }
        events = read(
            chunk(text("a"), usage=running), chunk(finish="STOP", usage=last), {"usageMetadata": {"trafficType": "X"}}
        )
        assert events[-1]["usage"] == {
            "input_tokens": 107,
            "output_tokens": 50,
            "total_tokens": 157,
            "cached_input_tokens": 64,
            "reasoning_tokens": 20,
        }

    @pytest.mark.parametrize(
        ("answer", "total", "output"),
        [(30, 137, 30), (30, 157, 50), (30, None, 50), (12, 119, 32)],
        ids=["inside", "beside", "no sum", "more thoughts than answer"],
    )
    def test_thoughts_that_the_total_shows_inside_the_answer_count_once(
        self, answer: int, total: int | None, output: int
    ) -> None:
        counts = {"promptTokenCount": 100, "toolUsePromptTokenCount": 7, "thoughtsTokenCount": 20}
        usage = {**counts, "candidatesTokenCount": answer, "totalTokenCount": total}
        counted = read(chunk(finish="STOP", usage=usage))[-1]["usage"]
        assert (counted["output_tokens"], counted["reasoning_tokens"]) == (output, 20)

    def test_what_is_left_out_is_zero(self) -> None:
        events = read(chunk(finish="STOP", usage={"promptTokenCount": 9, "totalTokenCount": 9}))
        assert events[-1]["usage"] == {"input_tokens": 9, "output_tokens": 0, "total_tokens": 9}

    def test_without_counts_there_is_none(self) -> None:
        assert "usage" not in read(chunk(finish="STOP", usage={"trafficType": "ON_DEMAND"}))[-1]


class TestEnd:
    @pytest.mark.parametrize(
        ("word", "reason"),
        [
            ("STOP", "stop"), (1, "stop"), ("MAX_TOKENS", "length"), (2, "length"), (3, "content_filter"),
            ("RECITATION", "content_filter"), ("IMAGE_PROHIBITED_CONTENT", "content_filter"),
            ("MODEL_ARMOR", "content_filter"), ("LANGUAGE", "other"), ("NO_IMAGE", "other"), (5, "other"),
            ("FINISH_REASON_UNSPECIFIED", "other"), ("SOMETHING_NEW", "other"), ("CONTINUATION", "pause"),
        ],
    )  # fmt: skip
    def test_words_and_numbers(self, word: Any, reason: str) -> None:
        end = read(chunk(text("a"), finish=word))[-1]
        assert (end["finish_reason"], end["finish_reason_raw"]) == (reason, str(word))

    def test_the_last_word_counts(self) -> None:
        events = read(chunk(text("a"), finish="STOP"), chunk(text("b"), finish="STOP"), chunk(finish="RECITATION"))
        assert events[-1]["finish_reason_raw"] == "RECITATION"

    def test_a_pause_has_its_token(self) -> None:
        end = read(chunk(finish="CONTINUATION", continuationToken="t"))[-1]
        assert end["provider_metadata"] == {"continuation_token": "t"}

    @pytest.mark.parametrize(
        "word",
        "MALFORMED_FUNCTION_CALL MALFORMED_RESPONSE UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS "
        "MISSING_THOUGHT_SIGNATURE".split(),
    )
    def test_a_failure_in_place_of_a_reason(self, word: str) -> None:
        error = failed(chunk(text("a"), finish=word))
        assert (error.code, error.reason) == ("internal", word.lower())
        assert word in error.message
        assert failed(chunk(finish=word, finishMessage="Because.")).message == "Because."

    @pytest.mark.parametrize(
        "chunks", [[], [chunk(text("a"))], [chunk(finish="STOP", index=1)], [{"usageMetadata": {}}]]
    )
    def test_without_a_reason_the_answer_is_truncated(self, chunks: list[Any]) -> None:
        error = failed(*chunks)
        assert (error.code, error.reason) == ("network", "truncated")

    def test_the_end_mark_of_a_proxy_ends_the_answer(self) -> None:
        assert read(chunk(text("a")), STOP, "[DONE]", chunk(text("b")))[-1]["finish_reason"] == "stop"
        adapter = get_provider("gemini").adapter()
        assert (adapter.receive("", "[DONE]"), adapter.ended) == ([], True)

    def test_an_end_mark_without_a_reason_is_another_reason(self) -> None:
        end = read(chunk(text("a")), "[DONE]")[-1]
        assert (end["finish_reason"], "finish_reason_raw" in end) == ("other", False)
        assert read(chunk(call("f")), "[DONE]")[-1]["finish_reason"] == "tool_calls"

    def test_a_whole_answer_is_one_chunk(self) -> None:
        whole = chunk(text("hm", thought=True), text("Hi"), call("f", args={"a": [1]}), finish="STOP")
        assert read_whole("gemini", whole) == read(whole)
        assert calls_of(read_whole("gemini", whole, "")) == [("call_0", "f", '{"a":[1]}')]

    @pytest.mark.parametrize("answer", [{}, {"candidates": []}, {"models": []}, 7, []])
    def test_json_that_is_no_answer_is_malformed(self, answer: Any) -> None:
        with pytest.raises(Malformed):
            read_whole("gemini", answer)


class TestErrors:
    def error(self, code: int, status: str, message: str = "m", details: Any = None) -> dict[str, Any]:
        return {
            "error": {"code": code, "message": message, "status": status} | ({"details": details} if details else {})
        }

    @pytest.mark.parametrize(
        ("code", "status", "expected"),
        [
            (400, "INVALID_ARGUMENT", "invalid_request"),
            (400, "FAILED_PRECONDITION", "forbidden"),
            (401, "UNAUTHENTICATED", "unauthorized"),
            (403, "PERMISSION_DENIED", "forbidden"),
            (404, "NOT_FOUND", "not_found"),
            (429, "RESOURCE_EXHAUSTED", "rate_limited"),
            (499, "CANCELLED", "internal"),
            (500, "INTERNAL", "internal"),
            (501, "UNIMPLEMENTED", "unsupported"),
            (503, "UNAVAILABLE", "overloaded"),
            (504, "DEADLINE_EXCEEDED", "timeout"),
        ],
    )
    def test_statuses_as_answer_and_in_the_stream(self, code: int, status: str, expected: str) -> None:
        said = self.error(code, status)
        for shape in (said, [said]):
            error = get_provider("gemini").decode_error(code, {}, json.dumps(shape).encode())
            assert (error.code, error.reason, error.message) == (expected, status.lower(), "m")
            assert failed(chunk(text("a")), shape).code == expected

    def test_a_key_that_is_refused_is_no_bad_request(self) -> None:
        details = ["?", {"@type": "x/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
        error = failed(self.error(400, "INVALID_ARGUMENT", "API key not valid.", details))
        assert (error.code, error.reason) == ("unauthorized", "api_key_invalid")

    def test_a_prompt_that_is_too_long(self) -> None:
        message = "The input token count (9) exceeds the maximum number of tokens allowed (8)."
        assert failed(self.error(400, "INVALID_ARGUMENT", message)).code == "context_length_exceeded"

    @pytest.mark.parametrize(("delay", "wait"), [("34s", 34_000), ("0.5s", 500), ("9999s", 120_000), ("soon", None)])
    def test_the_body_says_when_to_come_back(self, delay: str, wait: int | None) -> None:
        said = self.error(429, "RESOURCE_EXHAUSTED", details=[{"@type": "x/google.rpc.RetryInfo", "retryDelay": delay}])
        answer = get_provider("gemini").decode_error(429, {}, json.dumps(said).encode())
        assert answer.retry_after_ms == failed(said).retry_after_ms == wait
        assert answer.temporary

    def test_an_event_that_is_named_error(self) -> None:
        adapter = get_provider("gemini").adapter()
        with pytest.raises(Error, match="later"):
            adapter.receive("error", "later")

    def test_details_of_any_shape(self) -> None:
        assert failed(self.error(400, "INVALID_ARGUMENT", details="x")).code == "invalid_request"


class TestFraming:
    """Through the relay: how an answer may come."""

    CHUNKS = (chunk(text('Hel["')), chunk(text("lo}")), chunk(text(""), finish="STOP"))

    def test_an_array_is_read_as_it_comes(self) -> None:
        whole = json.dumps(self.CHUNKS, indent=2).replace("\n  },\n  {", "\n}\n,\r\n{").encode()
        for chunks in cuts(whole):
            events = list(gai_fast.decode("gemini", chunks, headers={"content-type": "application/json"}))
            assert [event["type"] for event in events] == ["start", "text.delta", "text.delta", "finish", "done"]
        before = list(gai_fast.decode("gemini", [whole[: whole.index(b"lo}")]]))
        assert [event["type"] for event in before] == ["start", "text.delta", "error", "done"]

    def test_an_array_that_breaks_off_after_the_reason_is_finished(self) -> None:
        whole = json.dumps(self.CHUNKS).encode()
        assert list(gai_fast.decode("gemini", [whole[:-1]]))[-1]["finished"]
        assert not list(gai_fast.decode("gemini", [whole[:-2]]))[-1]["finished"]

    def test_an_element_that_is_too_large_ends_the_answer(self) -> None:
        events = list(gai_fast.decode("gemini", [b'[{"a":"', b"x" * LIMITS.event, b'"}]']))
        assert events[0]["error"]["reason"] == "event_too_large"

    @pytest.mark.parametrize("wrapped", [False, True])
    @pytest.mark.parametrize("indent", [None, 2])
    def test_a_failure_may_stand_between_the_chunks_as_bare_json(self, wrapped: bool, indent: int | None) -> None:
        error: Any = {"error": {"code": 503, "message": "later", "status": "UNAVAILABLE"}}
        bare = json.dumps([error] if wrapped else error, indent=indent)
        head = f"data: {json.dumps(self.CHUNKS[0])}\r\n\r\n"
        for chunks in cuts((head + bare + "\n\n").encode()):
            events = list(gai_fast.decode("gemini", chunks))
            assert [event["type"] for event in events] == ["start", "text.delta", "error", "done"]
            assert events[-2]["error"]["code"] == "overloaded"
        for chunks in cuts(bare.encode()):
            assert next(iter(gai_fast.decode("gemini", chunks)))["error"]["code"] == "overloaded"


class TestCopying:
    """Chunks that the relay may copy: those that differ in their text and their usage only."""

    def copyable(self, *chunks: Any) -> list[bool]:
        adapter = get_provider("gemini").adapter()
        seen = []
        for one in chunks:
            adapter.receive("", json.dumps(one))
            seen.append(adapter.copyable)
        return seen

    def test_chunks_of_one_kind_from_the_second_on(self) -> None:
        usage = {"promptTokenCount": 1}
        said, thought = chunk(text("a"), usage=usage), chunk(text("a", thought=True), usage=usage)
        assert self.copyable(thought, thought, said, said, said, thought) == [False, True, False, True, True, False]

    def test_a_reason_or_other_usage_parts_them(self) -> None:
        said, idle = chunk(text("a")), chunk(text("a"), usage={"trafficType": "X"})
        counted = chunk(text("a"), usage={"promptTokenCount": 1})
        stop = chunk(text("a"), finish="STOP")
        assert self.copyable(said, idle, counted, counted, stop, stop) == [False, True, False, True, False, True]

    def test_what_cites_is_never_copied(self) -> None:
        said = chunk(text("a"), groundingMetadata=grounding((0, 1, 0)))
        assert not any(self.copyable(said, said, said))

    def test_what_was_copied_counts(self) -> None:
        adapter = get_provider("gemini").adapter()
        event = adapter.receive("", json.dumps(chunk(text("é"))))[-1]
        adapter.copied(event, 3, "äöü")
        adapter.copied({"type": "reasoning.delta"}, 9, "")
        adapter.kept("usageMetadata", '{"promptTokenCount":1,"candidatesTokenCount":2}')
        adapter.kept("usageMetadata", '{"trafficType":"X"}')
        events = adapter.receive("", json.dumps(chunk(finish="STOP", groundingMetadata=grounding((2, 8, 0)))))
        assert events[-1]["citations"] == [{"uri": "u", "title": "t", "start": 1, "end": 4}]
        assert adapter.finish()[-1]["usage"]["total_tokens"] == 3


@pytest.mark.parametrize(
    ("usage", "output"),
    [
        ({"promptTokenCount": 5, "totalTokenCount": 12}, 7),
        ({"promptTokenCount": 5, "thoughtsTokenCount": 3, "totalTokenCount": 12}, 7),
        ({"promptTokenCount": 5, "toolUsePromptTokenCount": 2, "totalTokenCount": 12}, 5),
        ({"promptTokenCount": 5, "totalTokenCount": 5}, 0),
        ({"promptTokenCount": 5, "candidatesTokenCount": 1, "totalTokenCount": 12}, 1),
        ({"promptTokenCount": 50, "totalTokenCount": 12}, 0),
    ],
)
def test_output_without_a_count_is_the_rest_of_the_total(usage: dict[str, int], output: int) -> None:
    """Before, an answer with a total alone had an output of 0."""
    events = read(chunk(text("a")), {**STOP, "usageMetadata": usage})
    assert events[-1]["usage"]["output_tokens"] == output


def test_a_text_without_its_json_counts_like_a_chunk() -> None:
    """The first text of a candidate, and one after a part of another kind, need their chunk."""
    adapter = get_provider("gemini").adapter()
    assert adapter.receive_text(0, "a") is None
    unnamed = {**chunk(text("a")), "modelVersion": None}
    adapter.receive("", json.dumps(unnamed))
    assert adapter.receive_text(0, "b") is None
    adapter.receive("", json.dumps(chunk(text("b"))))
    assert adapter.receive_text(None, "é") == {"type": "text.delta", "text": "é"}
    assert adapter.receive_text(1, "c") is None
    adapter.receive("", json.dumps(chunk(text("c"), index=1)))
    assert adapter.receive_text(1, "d") == {"type": "text.delta", "text": "d", "choice": 1}
    adapter.receive("", json.dumps(chunk(text("Hm", thought=True))))
    assert adapter.receive_text(0, "e") is None
    cited = adapter.receive("", json.dumps(chunk(text("e"), groundingMetadata=grounding((2, 5, 0)))))
    assert cited[-1]["citations"] == [{"uri": "u", "title": "t", "start": 2, "end": 4}]


def test_each_candidate_has_its_own_ratings_and_its_own_end() -> None:
    rated = {"safetyRatings": [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "HIGH"}]}
    events = read(chunk(text("a"), finish="STOP", **rated), chunk(text("b"), finish="MAX_TOKENS", index=1, **rated))
    assert [each.get("choice", 0) for each in events if each["type"] == "safety"] == [0, 1]
    assert other_ends(events[-1]) == [{"choice": 1, "finish_reason": "length", "finish_reason_raw": "MAX_TOKENS"}]
