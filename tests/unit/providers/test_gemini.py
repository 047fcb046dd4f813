"""Google Gemini."""

from __future__ import annotations

import json
from typing import Any

import pytest

import gai_fast
from gai_fast.errors import Error, InvalidRequest, Malformed, NotFound, Unsupported
from gai_fast.events import Event
from gai_fast.limits import LIMITS
from gai_fast.providers import Target, get_provider
from gai_fast.reading import parse_request
from tests.kernels import cuts
from tests.unit.providers import answers
from tests.unit.providers.answers import between, body, body_without, calls_of, of_type, read_whole, request, text_of


def chunk(*parts: Any, finish: Any = None, index: Any = 0, **beside: Any) -> dict[str, Any]:
    """A chunk with one candidate; `usage` stands beside the candidate, the rest in it."""
    usage = {"usageMetadata": beside.pop("usage")} if "usage" in beside else {}
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": index, **beside}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], **usage, "modelVersion": "m1", "responseId": "r1"}


def text(said: str, **keys: Any) -> dict[str, Any]:
    return {"text": said, **keys}


def call(name: str = "", signature: str = "", **keys: Any) -> dict[str, Any]:
    part: dict[str, Any] = {"functionCall": ({"name": name} if name else {}) | keys}
    return part | ({"thoughtSignature": signature} if signature else {})


def piece(path: str, *, more: bool = False, **value: Any) -> dict[str, Any]:
    return {"jsonPath": path, **value} | ({"willContinue": True} if more else {})


STOP = chunk(text(""), finish="STOP")


def read(*chunks: Any) -> list[Event]:
    return answers.read("gemini", *chunks, done=False)


def failed(*chunks: Any) -> Error:
    with pytest.raises(Error) as caught:
        read(*chunks)
    return caught.value


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
        adapter = get_provider("gemini").adapter()
        with pytest.raises((Malformed, AttributeError, TypeError)):
            adapter.receive("", json.dumps(chunk(call("f"), **beside)))
        assert calls_of(answers.plain(adapter.receive("", json.dumps(chunk(call("g"))))))[0][0] == "call_0"

    def test_a_number_that_is_a_text_is_the_same_candidate(self) -> None:
        recited = {"citations": [{"startIndex": 1, "endIndex": 2, "uri": "u"}]}
        chunks = [chunk(text("a"), index="1"), chunk(text("b"), index="1", citationMetadata=recited)]
        [told] = of_type(read(*chunks, STOP), "citations")
        assert told == {"type": "citations", "citations": [{"uri": "u", "start": 1, "end": 2}], "choice": 1}

    @pytest.mark.parametrize(
        "part", [{"text": 1}, {"functionCall": "f"}, {"functionCall": {"partialArgs": [{"jsonPath": "a"}]}}, 7]
    )
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

    def test_of_an_end_that_ends_no_call_it_is_told_as_well(self) -> None:
        signed = of_type(read(chunk(text("a")), chunk(call(signature="s")), STOP), "reasoning.signature")
        assert signed == [{"type": "reasoning.signature", "block": 0, "signature": "s"}]

    def test_of_any_other_part_it_is_told_as_well(self) -> None:
        part = {"executableCode": {"code": "1"}, "thoughtSignature": "s"}
        signed = of_type(read(chunk(text("a")), chunk(part), STOP), "reasoning.signature")
        assert signed == [{"type": "reasoning.signature", "block": 1, "signature": "s"}]


class TestCalls:
    def test_a_whole_call_is_told_at_once_with_its_text_verbatim(self) -> None:
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

    def test_images_and_audio_are_told_with_their_media_type(self) -> None:
        parts = [
            {"inlineData": {"mimeType": "image/png", "data": "AA=="}, "thought": True},
            {"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "AAAA"}},
        ]
        assert between(read(chunk(*parts), STOP)) == [
            {"type": "image", "image": {"data": "AA==", "media_type": "image/png", "partial": True}},
            {"type": "audio.delta", "audio": {"chunk": "AAAA", "format": "L16;rate=24000"}},
        ]


def grounding(*supports: tuple[int, int, int], sources: Any = ({"uri": "u", "title": "t"},)) -> dict[str, Any]:
    return {
        "groundingChunks": [{"web": source} for source in sources],
        "groundingSupports": [
            {"segment": {"startIndex": start, "endIndex": end}, "groundingChunkIndices": [index]}
            for start, end, index in supports
        ],
    }


def cited(*chunks: Any) -> list[dict[str, Any]]:
    return [one for event in of_type(read(*chunks), "citations") for one in event["citations"]]


class TestCitations:
    def test_offsets_count_bytes_of_all_text_and_are_told_in_code_points(self) -> None:
        chunks = [chunk(text("Größe ")), chunk(text("…", thought=True)), chunk(text("ist 😀 7"))]
        last = chunk(finish="STOP", groundingMetadata=grounding((0, 7, 0), (8, 16, 0), (12, 18, 0)))
        assert cited(*chunks, last) == [
            {"uri": "u", "title": "t", "end": 5, "start": 0},
            {"uri": "u", "title": "t", "start": 6, "end": 11},
            {"uri": "u", "title": "t", "start": 10, "end": 13},
        ]

    def test_sources_without_a_span_are_told_once(self) -> None:
        sources = [{"uri": "a"}, {"uri": "b", "title": "B"}]
        said = chunk(text("x"), groundingMetadata=grounding((0, 1, 1), sources=sources))
        assert cited(said, said, STOP) == [{"uri": "b", "title": "B", "start": 0, "end": 1}, {"uri": "a"}]

    def test_supports_may_come_after_their_sources(self) -> None:
        early, late = grounding(), grounding((0, 1, 0))
        del early["groundingSupports"], late["groundingChunks"]
        said = cited(chunk(text("x"), groundingMetadata=early), chunk(groundingMetadata=late), STOP)
        assert said[-1] == {"uri": "u", "title": "t", "start": 0, "end": 1}

    @pytest.mark.parametrize("name", ["citations", "citationSources"])
    def test_what_cites_text_that_comes_later_waits_for_it(self, name: str) -> None:
        recited = {name: [{"startIndex": 1, "endIndex": 3, "uri": "u", "license": ""}]}
        assert cited(chunk(text("é"), citationMetadata=recited), chunk(text("b")), STOP) == [
            {"uri": "u", "start": 0, "end": 2}
        ]

    def test_what_cites_text_that_never_comes_has_no_span(self) -> None:
        chunks = [chunk(text("é"), citationMetadata={"citations": [{"endIndex": 9, "uri": "u"}]})]
        assert cited(*chunks, STOP) == [{"uri": "u"}]
        adapter = get_provider("gemini").adapter()
        adapter.receive("", json.dumps(chunks[0]))
        assert adapter.abort() == [{"type": "citations", "citations": [{"uri": "u"}]}]

    def test_what_is_recited_from_nowhere_has_its_span(self) -> None:
        recited = {"citations": [{"startIndex": 2, "endIndex": 4, "license": "mit"}, {"license": "mit"}]}
        assert cited(chunk(text("éabc"), citationMetadata=recited), STOP) == [{"start": 1, "end": 3}]

    def test_sources_of_every_kind(self) -> None:
        chunks = [
            {"retrievedContext": {"fileSearchStore": "stores/1", "text": "…"}},
            {"maps": {"uri": "m", "title": "M"}},
            {"image": {"sourceUri": "i"}},
            {"unknown": {}},
        ]
        page = {"retrievedUrl": "p", "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_SUCCESS"}
        lost = {"retrievedUrl": "q", "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_ERROR"}
        last = chunk(
            finish="STOP",
            groundingMetadata={"groundingChunks": chunks},
            urlContextMetadata={"urlMetadata": [page, lost]},
        )
        assert cited(last) == [{"uri": "stores/1"}, {"uri": "m", "title": "M"}, {"uri": "i"}, {"uri": "p"}]

    def test_beyond_the_text_that_is_kept_nothing_is_placed(self) -> None:
        adapter = get_provider("gemini").adapter()
        adapter.receive("", json.dumps(chunk(text("é" * (LIMITS.cited_text // 2 + 1)))))
        adapter.receive("", json.dumps(chunk(text("é"))))
        events = adapter.receive("", json.dumps(chunk(groundingMetadata=grounding((0, 2, 0)))))
        assert events == [{"type": "citations", "citations": [{"uri": "u", "title": "t"}]}]


class TestSafety:
    def test_ratings_that_say_something_are_told_once(self) -> None:
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

    def test_blank_data_says_nothing(self) -> None:
        adapter = get_provider("gemini").adapter()
        assert [adapter.receive("", data) for data in ("", " ")] == [[], []]
        assert not adapter.ended

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


SIGNED: dict[str, Any] = {"type": "tool_call", "call_id": "fc-1", "name": "f", "input": {"a": 1}, "signature": "s"}


def contents(*messages: dict[str, Any]) -> Any:
    return body("gemini", messages=list(messages))["contents"]


class TestRequests:
    def test_the_address_and_the_key(self) -> None:
        sent = request("gemini", model="gemini-3-pro", api_key="key")
        assert sent.path == "/v1beta/models/gemini-3-pro:streamGenerateContent?alt=sse"
        assert dict(sent.headers) == {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "x-goog-api-key": "key",
        }
        assert "x-goog-api-key" not in dict(request("gemini", api_key=None).headers)

    @pytest.mark.parametrize(
        ("model", "path"),
        [
            ("models/m", "/v1beta/models/m"),
            ("tunedModels/m", "/v1beta/tunedModels/m"),
            ("publishers/google/models/m", "/v1beta1/publishers/google/models/m"),
            ("projects/p/locations/l/publishers/google/models/m@1", None),
            ("../x?key=1#", "/v1beta/models/..%2Fx%3Fkey%3D1%23"),
            ("models/m:generateContent?", "/v1beta/models/m%3AgenerateContent%3F"),
        ],
    )
    def test_a_model_may_be_the_name_of_a_resource_and_leads_nowhere_else(self, model: str, path: str | None) -> None:
        sent = request("gemini", model=model).path
        expected = path or "/v1beta1/projects/p/locations/l/publishers/google/models/m%401"
        assert sent == f"{expected}:streamGenerateContent?alt=sse"

    @pytest.mark.parametrize("model", ["models/../files/x", "models//x", "models/./x", "models/"])
    def test_a_name_that_leads_elsewhere_is_not_found(self, model: str) -> None:
        with pytest.raises(NotFound):
            request("gemini", model=model)

    def test_turns_and_instructions(self) -> None:
        sent = body(
            "gemini",
            system="Be brief.",
            messages=[
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
                {"role": "system", "content": [{"type": "text", "text": "Always."}]},
                {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": ""}]},
                {"role": "user", "content": "d"},
            ],
        )
        assert sent == {
            "contents": [
                {"role": "user", "parts": [{"text": "a"}]},
                {"role": "model", "parts": [{"text": "b"}]},
                {"role": "user", "parts": [{"text": "c"}, {"text": "d"}]},
            ],
            "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Always."}]},
        }

    def test_media(self) -> None:
        parts = [
            {"type": "image", "data": "AA==", "media_type": "image/png"},
            {"type": "image", "url": "https://x.example/a.JPG?w=1"},
            {"type": "image", "url": "https://x.example/a", "media_type": "image/webp"},
            {"type": "image", "url": "https://x.example/a"},
            {"type": "image", "url": "data:image/gif;base64,AAAA"},
            {"type": "audio", "data": "BB==", "media_type": "audio/wav"},
            {"type": "file", "data": "CC==", "media_type": "application/pdf", "filename": "a.pdf"},
        ]
        assert contents({"role": "user", "content": parts})[0]["parts"] == [
            {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://x.example/a.JPG?w=1"}},
            {"fileData": {"mimeType": "image/webp", "fileUri": "https://x.example/a"}},
            {"fileData": {"fileUri": "https://x.example/a"}},
            {"inlineData": {"mimeType": "image/gif", "data": "AAAA"}},
            {"inlineData": {"mimeType": "audio/wav", "data": "BB=="}},
            {"inlineData": {"mimeType": "application/pdf", "data": "CC=="}},
        ]

    def test_calls_and_their_results_come_together(self) -> None:
        unsigned = {"type": "tool_call", "call_id": "call_0", "name": "g"}
        image = {"type": "image", "data": "AA==", "media_type": "image/png"}
        sent = contents(
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [SIGNED, unsigned]},
            {"role": "tool", "call_id": "call_0", "content": [{"type": "text", "text": "4"}, image]},
            {"role": "tool", "call_id": "fc-1", "content": "no", "is_error": True},
            {"role": "user", "content": "And?"},
        )
        assert sent[1:] == [
            {
                "role": "model",
                "parts": [
                    {"functionCall": {"id": "fc-1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "s"},
                    {"functionCall": {"id": "call_0", "name": "g", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "fc-1", "name": "f", "response": {"error": "no"}}},
                    {"functionResponse": {"id": "call_0", "name": "g", "response": {"output": "4"}}},
                    {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
                    {"text": "And?"},
                ],
            },
        ]

    @pytest.mark.parametrize(
        "model", ["publishers/google/models/m", "projects/p/locations/l/publishers/google/models/m"]
    )
    def test_vertex_takes_no_ids(self, model: str) -> None:
        messages = [{"role": "assistant", "content": [SIGNED]}, {"role": "tool", "call_id": "fc-1", "content": "4"}]
        sent = json.loads(request("gemini", model=model, messages=messages).body)["contents"]
        assert [turn["parts"] for turn in sent] == [
            [{"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "s"}],
            [{"functionResponse": {"name": "f", "response": {"output": "4"}}}],
        ]

    def test_an_id_that_is_used_again_means_the_last_call(self) -> None:
        turns = [
            message
            for name in "fg"
            for message in (
                {"role": "assistant", "content": [{"type": "tool_call", "call_id": "call_0", "name": name}]},
                {"role": "tool", "call_id": "call_0", "content": ""},
            )
        ]
        answered = [turn["parts"][0]["functionResponse"] for turn in contents(*turns)[1::2]]
        assert answered == [{"name": name, "response": {"output": ""}} for name in "fg"]

    @pytest.mark.parametrize("before", [0, 2])
    def test_results_are_in_the_order_of_their_calls(self, before: int) -> None:
        calls = [{"type": "tool_call", "call_id": f"call_{number}", "name": "f"} for number in range(3)]
        results = [{"role": "tool", "call_id": call["call_id"], "content": call["call_id"]} for call in calls]
        turn = [{"role": "assistant", "content": calls}, *reversed(results)]
        sent = contents(*[{"role": "assistant", "content": calls[::-1]}, *results] * before, *turn)[-1]["parts"]
        assert [part["functionResponse"]["response"]["output"] for part in sent] == ["call_0", "call_1", "call_2"]
        assert ["id" in part["functionResponse"] for part in sent] == [not before] * 3

    def test_a_result_of_no_call_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match=r"`messages\[1\]`"):
            contents({"role": "user", "content": "Hi"}, {"role": "tool", "call_id": "x", "content": ""})

    def test_arguments_that_are_no_object_are_not_supported(self) -> None:
        message = {"role": "assistant", "content": [{**SIGNED, "input": "text"}]}
        with pytest.raises(Unsupported, match=r"messages\[0\]\.content\[0\]"):
            contents(message)
        sent, dropped = body_without("gemini", messages=[message])
        assert (sent, dropped) == ({"contents": []}, ["messages[0].content[0]"])

    def test_only_its_own_signed_reasoning_is_sent_back(self) -> None:
        parts = [
            {"type": "reasoning", "text": "hm", "signature": "s", "provider": "gemini"},
            {"type": "reasoning", "text": "", "signature": "t"},
            {"type": "reasoning", "text": "unsigned", "provider": "gemini"},
            {"type": "reasoning", "text": "x", "signature": "u", "provider": "anthropic"},
            {"type": "reasoning", "signature": "v", "redacted": True},
        ]
        assert contents({"role": "assistant", "content": parts})[0]["parts"] == [
            {"text": "hm", "thought": True, "thoughtSignature": "s"},
            {"text": "", "thoughtSignature": "t"},
        ]

    def test_tools_have_json_schemas(self) -> None:
        schema = {"type": "object", "properties": {"a": {"const": 12345678901234567890}}}
        tools = [{"name": "f", "description": "d", "parameters": schema}, {"name": "g"}]
        assert body("gemini", tools=tools)["tools"] == [
            {
                "functionDeclarations": [
                    {"name": "f", "description": "d", "parametersJsonSchema": schema},
                    {"name": "g", "parametersJsonSchema": {"type": "object"}},
                ]
            }
        ]

    @pytest.mark.parametrize(
        ("choice", "strict", "config"),
        [
            (None, False, None),
            ("auto", False, {"mode": "AUTO"}),
            ("none", True, {"mode": "NONE"}),
            ("required", True, {"mode": "ANY"}),
            ({"name": "f"}, True, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
            ("auto", True, {"mode": "VALIDATED"}),
            (None, True, {"mode": "VALIDATED"}),
        ],
    )
    def test_tool_choice(self, choice: Any, strict: bool, config: Any) -> None:
        fields = {} if choice is None else {"tool_choice": choice}
        sent = body("gemini", tools=[{"name": "f", "strict": strict}], **fields)
        assert sent.get("toolConfig") == (config and {"functionCallingConfig": config})

    @pytest.mark.parametrize("choice", ["auto", "none"])
    def test_a_tool_choice_that_has_no_functions_to_choose_is_not_sent(self, choice: str) -> None:
        search = {"gemini": {"tools": [{"googleSearch": {}}]}}
        own = {"gemini": {"tools": [{"functionDeclarations": [{"name": "f"}]}]}}
        assert "toolConfig" not in body("gemini", tool_choice=choice)
        assert "toolConfig" not in body("gemini", tool_choice=choice, provider_options=search)
        assert "toolConfig" in body("gemini", tool_choice=choice, provider_options=own)
        assert "toolConfig" in body("gemini", tool_choice="required")

    def test_generation(self) -> None:
        sent = body("gemini", temperature=0.5, top_p=1, max_tokens=9, stop=["x"], seed=0)
        assert sent["generationConfig"] == {
            "temperature": 0.5,
            "topP": 1,
            "maxOutputTokens": 9,
            "stopSequences": ["x"],
            "seed": 0,
        }

    @pytest.mark.parametrize(
        ("wanted", "config"),
        [
            ({"type": "text"}, None),
            ({"type": "json"}, {"responseMimeType": "application/json"}),
            (
                {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
                {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}},
            ),
        ],
    )
    def test_response_format(self, wanted: Any, config: Any) -> None:
        assert body("gemini", response_format=wanted).get("generationConfig") == config

    def test_a_schema_is_needed_where_one_is_asked_for(self) -> None:
        with pytest.raises(InvalidRequest, match="`response_format` needs a `schema`"):
            body("gemini", response_format={"type": "json_schema"})

    @pytest.mark.parametrize(
        ("model", "wanted", "config"),
        [
            ("gemini-3-pro", {"effort": "low"}, {"thinkingLevel": "LOW", "includeThoughts": True}),
            ("gemini-2.5-flash", {"effort": "high"}, {"thinkingBudget": 24_576, "includeThoughts": True}),
            ("gemini-2.5-flash", {"effort": "high", "max_tokens": 9}, {"thinkingBudget": 9, "includeThoughts": True}),
            ("gemini-2.5-flash", {"max_tokens": 0}, {"thinkingBudget": 0}),
            ("gemini-3-pro", {}, None),
            ("gemini-3-pro", {"effort": "minimal"}, {"thinkingLevel": "LOW", "includeThoughts": True}),
            ("models/gemini-3.1-pro-preview", {"effort": "minimal"}, {"thinkingLevel": "LOW", "includeThoughts": True}),
            ("gemini-3.7-flash", {"effort": "minimal"}, {"thinkingLevel": "LOW", "includeThoughts": True}),
            ("gemini-3-flash", {"effort": "minimal"}, {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
            ("gemini-3.7-flash-lite", {"effort": "minimal"}, {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
            ("gemini-2.5-pro", {"effort": "minimal"}, {"thinkingBudget": 1024, "includeThoughts": True}),
        ],
    )
    def test_reasoning(self, model: str, wanted: Any, config: Any) -> None:
        sent = json.loads(request("gemini", model=model, reasoning=wanted).body)
        assert sent.get("generationConfig", {}).get("thinkingConfig") == config

    def test_options_are_merged_in(self) -> None:
        options = {
            "gemini": {
                "generationConfig": {"topK": 4, "temperature": None},
                "safetySettings": [],
                "toolConfig": {"functionCallingConfig": {"streamFunctionCallArguments": True}},
            },
            "openai": {"x": 1},
        }
        tools = [{"name": "f"}]
        sent = body("gemini", temperature=1, top_p=0.5, tools=tools, tool_choice="auto", provider_options=options)
        assert sent["generationConfig"] == {"topP": 0.5, "topK": 4}
        assert sent["safetySettings"] == []
        assert sent["toolConfig"]["functionCallingConfig"] == {"mode": "AUTO", "streamFunctionCallArguments": True}

    def test_what_it_has_no_place_for(self) -> None:
        with pytest.raises(Unsupported, match="gemini does not support `metadata`"):
            body("gemini", metadata={"a": "b"})


class TestRoundTrip:
    """What was answered goes back as it came, with every signature on its part."""

    ANSWER = (
        chunk(text("hm", thought=True)),
        chunk(text("So: ")),
        chunk(text("", thoughtSignature="sig-text")),
        chunk(call("f", "sig-call", args={"a": 1}), call("g", id="fc-2")),
        STOP,
    )

    def test_the_message_of_a_result(self) -> None:
        stream = "".join(f"data: {json.dumps(one)}\n\n" for one in self.ANSWER).encode()
        message = gai_fast.collect(gai_fast.decode("gemini", [stream])).message
        made = next(part["call_id"] for part in message["content"] if part["type"] == "tool_call")
        asked = {"messages": [message, {"role": "tool", "call_id": made, "content": "1"}]}
        sent = get_provider("gemini").build_request(parse_request(json.dumps(asked).encode()), Target("m"))
        assert json.loads(sent.body)["contents"] == [
            {
                "role": "model",
                "parts": [
                    {"text": "So: "},
                    {"text": "", "thoughtSignature": "sig-text"},
                    {"functionCall": {"id": made, "name": "f", "args": {"a": 1}}, "thoughtSignature": "sig-call"},
                    {"functionCall": {"id": "fc-2", "name": "g", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [{"functionResponse": {"id": made, "name": "f", "response": {"output": "1"}}}],
            },
        ]


class TestCopying:
    """What the relay may copy: chunks that change nothing but what their text and their usage say."""

    def copyable(self, *chunks: Any) -> list[bool]:
        adapter = get_provider("gemini").adapter()
        told = []
        for one in chunks:
            adapter.receive("", json.dumps(one))
            told.append(adapter.copyable)
        return told

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
