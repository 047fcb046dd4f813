"""What every provider builds on: error bodies, counts, calls, verbatim JSON."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from msgspec import UNSET

from gai_fast.errors import Error, InvalidRequest, Malformed, Said, Unsupported
from gai_fast.limits import LIMITS
from gai_fast.providers import API, Adapter, Target, get_provider
from gai_fast.providers._chunks import count, members, parse_chunk, parse_object, text_of
from gai_fast.providers._events import citation, counted_usage, server_tool
from gai_fast.providers._failures import error_object, said_of
from gai_fast.providers._requests import image_data, image_url, is_given, merged
from gai_fast.providers._room import Room
from gai_fast.providers._tool_calls import ToolCalls
from gai_fast.providers.groq import Groq
from gai_fast.request import ImagePart, Request
from tests.unit.providers.answers import plain


class TestErrorObject:
    @pytest.mark.parametrize(
        ("body", "message", "words", "status"),
        [
            ({"error": {"message": "m", "type": "t", "code": "c"}}, "m", ("c", "t"), None),
            ({"error": "text"}, "text", (), None),
            ({"code": "c", "error": "text"}, "text", ("c",), None),
            ({"object": "error", "message": "m", "code": "1300", "raw_status_code": 429}, "m", ("1300",), 429),
            (
                {"type": "error", "error": {"type": "overloaded_error", "message": "m"}},
                "m",
                ("overloaded_error",),
                None,
            ),
            (
                [{"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "m"}}],
                "m",
                ("PERMISSION_DENIED",),
                403,
            ),
            ({"message": "Unauthorized", "request_id": "r"}, "Unauthorized", (), None),
            ({"detail": [{"loc": ["body", "n"], "msg": "too big", "type": "v"}]}, "body.n: too big", (), None),
            ({"detail": "Not Found"}, "Not Found", (), None),
            ({"error": {"message": {"detail": "inner"}}}, "inner", (), None),
            ({"error": {"message": "m", "code": "400", "type": None}}, "m", (), 400),
            ({"error": {"message": "m", "http_status_code": 422}}, "m", (), 422),
            ({"error": ["text"]}, "text", (), None),
            ({"error": True, "message": "m"}, "m", (), None),
            ({"success": False, "errors": [{"code": 7003, "message": "m"}], "result": {}}, "m", (), None),
        ],
    )
    def test_every_shape_is_understood(
        self, body: Any, message: str, words: tuple[str, ...], status: int | None
    ) -> None:
        error = error_object(body)
        assert error is not None
        said = said_of(error)
        assert (said.message, said.words, said.status) == (message, words, status)

    @pytest.mark.parametrize(
        "body",
        [
            None,
            1,
            "text",
            [],
            {},
            {"error": None},
            {"error": {}},
            {"error": ""},
            {"error": False},
            {"errors": []},
            {"choices": [], "message": "no error"},
        ],
    )
    def test_what_is_no_error_is_none(self, body: Any) -> None:
        assert error_object(body) is None

    def test_words_of_an_inner_object_come_first(self) -> None:
        said = said_of({"message": "m", "code": "outer"}, {"error_type": "inner"})
        assert said.words == ("inner", "outer")

    def test_the_object_is_kept_as_it_came(self) -> None:
        error = {"message": "m", "type": "t", "param": "p", "code": None, "extra": [1]}
        assert said_of(error).details == error

    def test_what_is_nested_too_deep_is_not_told(self) -> None:
        deep: Any = "bottom"
        for _ in range(2 * LIMITS.arguments_depth):
            deep = {"message": deep}
        said = said_of({"message": "m", "code": "c", "inner": deep})
        assert (said.message, said.words, said.details) == ("m", ("c",), {"message": "m", "code": "c"})
        assert said_of({"message": deep, "code": "c"}).message == ""


class TestDecodeError:
    def test_a_json_body_speaks(self) -> None:
        body = b'{"error":{"message":"slow down","type":"tokens","code":"rate_limit_exceeded"}}'
        error = get_provider("openai").decode_error(429, {"retry-after": "7"}, body)
        assert (error.code, error.message, error.retry_after_ms) == ("rate_limited", "slow down", 7000)
        assert error.provider == "openai"
        assert error.phase == "first_event"

    def test_a_wait_that_the_body_tells_counts_before_the_message(self) -> None:
        class Patient(Groq):
            def said(self, body: Any) -> Said | None:
                return Said(body["message"], status=429, retry_after_ms=body.get("wait"))

        for wait, expected in ((3000, 3000), (None, 5000)):
            body = {"message": "try again in 5s", "wait": wait}
            assert Patient().decode_error(429, {}, json.dumps(body).encode()).retry_after_ms == expected
            told = Patient().adapter().told(json.dumps(body))
            assert told.retry_after_ms == expected
        body = {"message": "try again in 5s", "wait": 3000}
        assert Patient().decode_error(429, {"retry-after": "7"}, json.dumps(body).encode()).retry_after_ms == 7000

    @pytest.mark.parametrize(("status", "expected"), [(429, 60_000), (503, None)])
    def test_a_limit_that_is_told_with_every_answer_is_no_reason_for_another_failure(
        self, status: int, expected: int | None
    ) -> None:
        error = get_provider("openai").decode_error(status, {"x-ratelimit-reset-requests": "1m0s"}, b"busy")
        assert error.retry_after_ms == expected

    def test_plain_text_is_the_message(self) -> None:
        assert get_provider("openai").decode_error(502, {}, b"upstream is gone\n").message == "upstream is gone"

    @pytest.mark.parametrize("depth", [LIMITS.arguments_depth + 1, 900, 100_000])
    def test_a_body_of_any_depth_is_an_error(self, depth: int) -> None:
        for provider in ("openai", "gemini"):
            body = b'{"error":{"code":"rate_limit_exceeded","message":%b}}' % (b"[" * depth + b"]" * depth)
            assert get_provider(provider).decode_error(429, {}, body).code == "rate_limited"

    @pytest.mark.parametrize("body", [b"<html>secret</html>", b""])
    def test_markup_and_silence_are_told_by_the_status(self, body: bytes) -> None:
        error = get_provider("openai").decode_error(503, {}, body)
        assert (error.code, error.message) == ("provider_unavailable", "openai answered with status 503")


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (7, 7), ("12", 12), (3.0, 3), (0, 0), (None, None), (True, None), (-1, None), (1.5, None), ("1.5", None),
        ("+5", None), ("", None), ("٣", None), ("9" * 30, None), (2**60, None), ([], None), ({}, None),
    ],
)  # fmt: skip
def test_only_whole_numbers_of_sane_size_count(value: Any, number: int | None) -> None:
    assert count(value) == number


class TestUsage:
    def test_keys_stand_in_order_and_zero_parts_are_absent(self) -> None:
        usage = counted_usage(10, 5, cached=0, written=2, reasoning=1)
        assert list(usage.items()) == [
            ("input_tokens", 10),
            ("output_tokens", 5),
            ("total_tokens", 15),
            ("cache_write_input_tokens", 2),
            ("reasoning_tokens", 1),
        ]

    def test_reasoning_outside_the_output_is_added_where_the_total_shows_it(self) -> None:
        assert counted_usage(307, 26, reasoning=227, total=560)["output_tokens"] == 253
        assert counted_usage(15, 78, reasoning=64, total=93)["output_tokens"] == 78
        assert counted_usage(15, 78, reasoning=64, total=1)["output_tokens"] == 78

    def test_what_the_provider_left_out_stays_out(self) -> None:
        assert counted_usage(None, 5, total=9) == {"output_tokens": 5}


class TestToolCalls:
    def test_indices_are_dense_and_ids_unique(self) -> None:
        calls = ToolCalls(Room())
        opened = [calls.open(identifier, "f")[0] for identifier in ("a", "a", None, "call_2", "a")]
        assert [call.index for call in opened] == [0, 1, 2, 3, 4]
        assert calls.told == opened
        assert len({call.call_id for call in opened}) == 5
        assert opened[0].call_id == "a"

    def test_an_id_that_is_made_is_told_by_its_seed(self) -> None:
        made = [ToolCalls(Room()).open(None, "f", seed)[0].call_id for seed in ("", "a", "b", "a", "\ud83d")]
        assert made[0] == "call_0"
        assert made[1] == made[3]
        assert len(set(made)) == 4
        assert all(re.fullmatch("call_[0-9a-f]{1,24}", one) for one in made)

    def test_a_call_has_a_start_its_fragments_and_its_end(self) -> None:
        calls = ToolCalls(Room())
        call, events = calls.open("a", "f")
        events += calls.add(call, '{ "x"') + calls.add(call, "") + calls.add(call, ": 1 }") + calls.close(call)
        assert plain(events) == [
            {"type": "tool.call.start", "call_id": "a", "tool_call": {"name": "f"}, "index": 0},
            {"type": "tool.call.delta", "call_id": "a", "index": 0, "arguments": '{ "x"'},
            {"type": "tool.call.delta", "call_id": "a", "index": 0, "arguments": ": 1 }"},
            {"type": "tool.call", "call_id": "a", "tool_call": {"name": "f", "input": '{"x":1}'}},
        ]
        assert calls.close(call) == []

    def test_a_name_that_comes_late_is_told_before_the_fragments(self) -> None:
        calls = ToolCalls(Room())
        call, events = calls.open("a", "")
        assert events == calls.add(call, "{") == []
        assert [event["type"] for event in calls.add(call, "}", "f")] == [
            "tool.call.start",
            "tool.call.delta",
            "tool.call.delta",
        ]

    def test_calls_are_numbered_as_they_are_told(self) -> None:
        calls = ToolCalls(Room())
        nameless, _ = calls.open("a", "")
        _, (start,) = calls.open("b", "f")
        assert (start["call_id"], start["index"]) == ("b", 0)
        assert calls.close(nameless)[0]["index"] == 1

    def test_a_call_without_a_name_is_told_all_the_same(self) -> None:
        calls = ToolCalls(Room())
        call, _ = calls.open("a", "")
        assert [event["type"] for event in calls.close(call)] == ["tool.call.start", "tool.call"]

    @pytest.mark.parametrize(
        ("arguments", "value"),
        [
            ("", "{}"),
            (" \n", "{}"),
            ('{"n": 12345678901234567890, "f": 1.10}', '{"n":12345678901234567890,"f":1.10}'),
            ("{oops", "{oops"),
            ("null", "null"),
        ],
    )
    def test_arguments_are_kept_verbatim_without_white_space(self, arguments: str, value: str) -> None:
        calls = ToolCalls(Room())
        call, _ = calls.open("a", "f")
        calls.add(call, arguments)
        assert plain(calls.close(call))[0]["tool_call"]["input"] == value

    @pytest.mark.parametrize(("arguments", "told"), [("", 0), ('{"a":', 0), ('{"a":1}', 1)])
    def test_a_call_cut_off_is_told_only_if_its_text_is_json(self, arguments: str, told: int) -> None:
        calls = ToolCalls(Room())
        call, _ = calls.open("a", "f")
        calls.add(call, arguments)
        assert len(calls.close_all(cut_off=True)) == told

    def test_halves_of_a_character_in_two_fragments_are_joined(self) -> None:
        calls = ToolCalls(Room())
        call, _ = calls.open("a", "f")
        calls.add(call, '{"x":"\ud83c')
        calls.add(call, '\udf0d"}')
        assert plain(calls.close(call))[0]["tool_call"]["input"] == '{"x":"🌍"}'

    def test_there_is_a_limit(self) -> None:
        calls = ToolCalls(Room())
        for _ in range(LIMITS.tool_calls):
            calls.open(None, "f")
        with pytest.raises(Error, match=f"more than {LIMITS.tool_calls} tool calls") as failed:
            calls.open(None, "f")
        assert (failed.value.code, failed.value.reason) == ("provider_unavailable", "tool_calls")


class TestMembers:
    TEXT = ' {"a" : [ {"b": {"c": 1.10}}, {"x": 0}, {"b": {"c":[1 , {"c": 2}]}}, 7 ], "b": {"c": "no"}} '

    def test_texts_come_verbatim_and_in_order(self) -> None:
        assert list(members(self.TEXT, "a", "b", "c")) == ["1.10", '[1 , {"c": 2}]']

    def test_nothing_is_found_where_nothing_is(self) -> None:
        assert list(members(self.TEXT, "a", "b", "z")) == []
        assert list(members("{}", "a")) == list(members('{"a":[]}', "a", "b")) == list(members("7", "a")) == []


class TestChunks:
    def test_half_a_surrogate_pair_is_read(self) -> None:
        assert parse_chunk('{"a":"\\ud83c"}') == {"a": "\ud83c"}

    @pytest.mark.parametrize("data", ["{", "nonsense", '{"a":NaN}'])
    def test_what_is_not_json_is_malformed(self, data: str) -> None:
        with pytest.raises(Malformed, match="not JSON"):
            parse_chunk(data)

    def test_what_is_no_object_is_malformed(self) -> None:
        with pytest.raises(Malformed, match="a JSON list, not an object"):
            parse_object("[]")
        assert parse_object("{}") == {}

    def test_a_text_is_text_or_absent(self) -> None:
        assert (text_of(None), text_of("a")) == ("", "a")
        with pytest.raises(Malformed, match="JSON int"):
            text_of(1)


def test_a_citation_leaves_out_what_says_nothing() -> None:
    assert citation("u", "t", 0, 4) == {"uri": "u", "title": "t", "start": 0, "end": 4}
    assert citation("u", "", 0, 0) == {"uri": "u"}
    assert citation(None, None, "x", 4) == {}


def test_the_input_of_a_server_tool_is_its_value_or_its_text() -> None:
    assert server_tool("i", "search", "started", '{"q":"x"}')["server_tool"]["input"] == {"q": "x"}
    assert server_tool("i", "search", "started", '{"q"')["server_tool"]["input"] == '{"q"'
    assert server_tool("i", "search", "completed")["server_tool"] == {
        "id": "i",
        "name": "search",
        "status": "completed",
    }


def test_an_image_is_its_url_or_its_data_in_one() -> None:
    assert image_url(ImagePart(url="https://x/y.png")) == "https://x/y.png"
    assert image_url(ImagePart(data="AAAA", media_type="image/png")) == "data:image/png;base64,AAAA"
    with pytest.raises(InvalidRequest, match="media_type"):
        image_url(ImagePart(data="AAAA"))


def test_the_data_of_an_image_may_stand_in_its_url() -> None:
    assert image_data(ImagePart(data="AAAA", media_type="image/png")) == ("image/png", "AAAA")
    assert image_data(ImagePart(url="data:image/png;base64,AAAA")) == ("image/png", "AAAA")
    assert image_data(ImagePart(url="https://x/y.png")) is None
    assert image_data(ImagePart(url="data:,text")) is None


def test_options_are_merged_as_json_merge_patch_says() -> None:
    body = {"a": 1, "b": {"c": 2, "d": [1]}, "e": 3}
    assert merged(body, {"a": {"x": None, "y": 1}, "b": {"c": None, "d": [2]}, "e": None, "f": None}) == {
        "a": {"y": 1},
        "b": {"d": [2]},
    }
    assert body == {"a": 1, "b": {"c": 2, "d": [1]}, "e": 3}


@pytest.mark.parametrize(
    ("value", "given"), [(UNSET, False), ("", False), ([], False), ({}, False), (0, True), (False, True), ([0], True)]
)
def test_nothing_given_is_nothing_asked_for(value: Any, given: bool) -> None:
    assert is_given(value) is given


@pytest.mark.parametrize(
    ("provider", "options", "path"),
    [
        ("anthropic", {"betas": [1]}, "betas[0]"),
        ("anthropic", {"betas": ["a", "b\r\nx-evil: 1"]}, "betas[1]"),
        ("anthropic", {"betas": ["a" * (LIMITS.identifier + 1)]}, "betas[0]"),
        ("anthropic", {"betas": "abc"}, "betas"),
        ("anthropic", {"betas": ["a"] * (LIMITS.betas + 1)}, "betas"),
        ("gemini", {"tools": [1]}, "tools[0]"),
        ("gemini", {"tools": {"functionDeclarations": []}}, "tools"),
        ("azure", {"api_version": ["v1"]}, "api_version"),
        ("azure:responses", {"api_version": 1}, "api_version"),
    ],
)
def test_options_that_are_read_here_are_checked_and_refused_by_their_path(
    provider: str, options: dict[str, Any], path: str
) -> None:
    api = get_provider(provider)
    with pytest.raises(InvalidRequest) as caught:
        api.build_request(Request(query="Hi", provider_options={api.provider: options}), Target("m1"))
    assert caught.value.message.endswith(f" - at `$.provider_options.{api.provider}.{path}`")
    assert (caught.value.status, caught.value.reason) == (400, "validation")


def test_options_that_are_read_here_may_be_null_and_others_anything() -> None:
    options = {"betas": None, "tools": 5, "max_tokens": "many"}
    sent = get_provider("anthropic").build_request(
        Request(query="Hi", provider_options={"anthropic": options}), Target("m1")
    )
    assert json.loads(sent.body).items() >= {"tools": 5, "max_tokens": "many"}.items()
    assert "anthropic-beta" not in dict(sent.headers)


def test_of_a_body_in_its_own_dialect_an_api_checks_only_what_it_reads() -> None:
    azure = get_provider("azure")
    with pytest.raises(InvalidRequest, match=r"Expected `str \| null`, got `int` - at `\$\.api_version`"):
        azure.build_passthrough({"messages": 5, "api_version": 1}, Target("m1"))
    sent = azure.build_passthrough({"messages": 5, "api_version": None}, Target("m1"))
    assert json.loads(sent.body) == {"messages": 5, "model": "m1"}
    assert "?api-version=20" in sent.path


class TestUnsupported:
    def test_a_field_is_refused_by_its_path(self) -> None:
        with pytest.raises(Unsupported) as refused:
            get_provider("anthropic").leave_out("messages[0]", Target("m"), "odd")
        assert refused.value.message == "anthropic does not support `messages[0]`: odd"
        assert refused.value.reason == "field"

    def test_or_left_out_and_noted(self) -> None:
        target = Target("m", on_unsupported="drop")
        get_provider("anthropic").leave_out("messages[0]", target, "odd")
        assert target.dropped == ["messages[0]"]

    def test_a_callers_own_word_is_cut(self) -> None:
        assert len(get_provider("anthropic").unsupported("metadata." + "x" * 9000).message) < 300

    def test_what_an_api_lacks_is_gone_from_the_request(self) -> None:
        api, asked = get_provider("anthropic"), Request(query="Hi", seed=0, stop=["x"])
        with pytest.raises(Unsupported, match="`seed`"):
            api.possible(asked, Target("m"))
        target = Target("m", on_unsupported="drop")
        assert api.possible(asked, target) == Request(query="Hi", stop=["x"])
        assert target.dropped == ["seed"]
        given = Request(query="Hi")
        assert api.possible(given, target) is given


def test_what_a_provider_leaves_undone_is_an_exception() -> None:
    class Undone(API):
        provider = "undone"

    # Compiled, the class can be made all the same; who calls what is missing learns of it.
    with pytest.raises((TypeError, NotImplementedError)):
        Undone().adapter()  # type: ignore[abstract]


def test_an_api_without_a_dialect_takes_no_foreign_request() -> None:
    with pytest.raises(Unsupported, match="anthropic does not take this request"):
        get_provider("anthropic").build_passthrough({}, Target("m"))


def test_an_adapter_has_nothing_to_tell_before_an_error_unless_it_says_so() -> None:
    assert Adapter.abort(get_provider("openai").adapter()) == []


def test_an_error_event_is_told_in_whatever_shape_it_is() -> None:
    adapter = get_provider("openai").adapter()
    assert adapter.told('{"error":{"message":"m","code":"rate_limit_exceeded"}}').code == "rate_limited"
    assert adapter.told('{"odd":1}').message == '{"odd":1}'
    assert adapter.told("it broke").message == "it broke"
