"""Requests read: what a native one may say, and how everything else is refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from gai_fast.core.requests.reading import (
    characters,
    check_members,
    conversation,
    cut_body,
    has_run_members,
    members_for_scores,
    parse_object,
    parse_request,
    turns,
)
from gai_fast.kernels import IMPLEMENTATION
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.request import (
    AssistantMessage,
    CheckedBody,
    NamedTool,
    Reasoning,
    Request,
    SystemMessage,
    ToolCallPart,
    ToolMessage,
    UserMessage,
)
from tests.limits import LIMITS

SECRET = "my private words"


def refused(body: bytes | dict[str, Any]) -> InvalidRequest:
    """Returns the refusal of a body: always a 400, always of one line, never with the caller's words in it."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(InvalidRequest) as caught:
        parse_request(raw)
    error = caught.value
    assert (error.status, error.temporary, error.phase) == (400, False, None)
    assert SECRET not in error.message
    return error


# ---- what is taken ---------------------------------------------------------------------------------------------------


def test_a_query_alone_is_a_request() -> None:
    request = parse_request(b'{"query": "Tell me a story"}')
    assert conversation(request) == [UserMessage(content="Tell me a story")]
    assert request.stream
    assert not request.resumable
    assert request.model is UNSET


FULL = {
    "model": "fast",
    "system": "Be brief.",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Weather here?"},
                {"type": "image", "url": "https://example.com/a.png"},
                {"type": "image", "data": "aGk=", "media_type": "image/png"},
                {"type": "audio", "data": "aGk=", "media_type": "audio/wav"},
                {"type": "file", "data": "aGk=", "media_type": "application/pdf", "filename": "a.pdf"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "reasoning", "text": "Hm", "signature": "sig", "provider": "anthropic"},
                {"type": "reasoning", "signature": "blob", "redacted": True},
                {"type": "text", "text": "Let me look."},
                {
                    "type": "tool_call",
                    "call_id": "call_1",
                    "name": "weather",
                    "input": {"city": "Oslo"},
                    "signature": "s",
                },
            ],
        },
        {"role": "tool", "call_id": "call_1", "content": "4 °C", "is_error": False},
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
    ],
    "query": "And now?",
    "tools": [{"name": "weather", "description": "…", "parameters": {"type": "object"}, "strict": True}],
    "tool_choice": {"name": "weather"},
    "response_format": {"type": "json_schema", "name": "answer", "schema": {"type": "object"}, "strict": True},
    "reasoning": {"effort": "low", "max_tokens": 1024},
    "temperature": 0.7,
    "top_p": 1,
    "max_tokens": 500,
    "stop": ["END"],
    "seed": 1,
    "metadata": {"user": "u"},
    "provider_options": {"anthropic": {"thinking": {}}},
    "json_snapshots": 200,
    "stream": False,
    "resumable": True,
    "request_id": "r",
    "idempotency_key": "k",
}


def test_everything_that_the_contract_names_is_taken() -> None:
    request = parse_request(json.dumps(FULL).encode())
    assert request.tool_choice == NamedTool(name="weather")
    assert not request.stream
    assert request.resumable
    kinds = [type(message) for message in conversation(request)]
    assert kinds == [SystemMessage, UserMessage, AssistantMessage, ToolMessage, SystemMessage, UserMessage]
    assert conversation(request)[0].content == "Be brief."
    assert conversation(request)[-1].content == "And now?"


@pytest.mark.parametrize("field", FULL)
def test_a_field_may_be_missing_and_a_null_is_not_missing(field: str) -> None:
    parse_request(json.dumps({**{key: value for key, value in FULL.items() if key != field}, "query": "q"}).encode())
    assert f"`$.{field}`" in refused({**FULL, field: None}).message


def test_parameters_and_input_are_kept_as_they_were_written() -> None:
    """Row 9: a 20-digit integer stays one; so do order, white space and duplicate keys."""
    text = b'{ "n": 12345678901234567890, "x": 1.10, "n": 1e400, "nothing": null }'
    body = (
        b'{"messages": [{"role": "assistant", "content": [{"type": "tool_call", "call_id": "c", "name": "f", "input": '
        + text
        + b'}]}], "tools": [{"name": "f", "parameters": '
        + text
        + b"}]}"
    )
    request = parse_request(body)
    part = request.messages[0].content[0]
    assert isinstance(part, ToolCallPart)
    assert bytes(part.input) == text
    assert bytes(request.tools[0].parameters) == text


@pytest.mark.parametrize("value", ["null", "true", "12345678901234567890", '"not json {"', "[1]"])
def test_a_call_that_was_once_answered_comes_back_whatever_its_input_is(value: str) -> None:
    call = f'{{"type":"tool_call","call_id":"c","name":"f","input":{value}}}'
    body = f'{{"messages":[{{"role":"assistant","content":[{call}]}}]}}'
    part = parse_request(body.encode()).messages[0].content[0]
    assert isinstance(part, ToolCallPart)
    assert bytes(part.input).decode() == value


def test_integers_keep_their_digits_wherever_they_stand() -> None:
    digits = 123456789012345678901234567890
    request = parse_request(
        json.dumps(
            {"query": "q", "seed": digits, "metadata": {"n": digits}, "provider_options": {"x": {"n": digits}}}
        ).encode()
    )
    assert request.seed == request.metadata["n"] == request.provider_options["x"]["n"] == digits


def test_row_6_of_duplicate_keys_the_last_counts() -> None:
    assert not parse_request(b'{"query":"q","stream":true,"stream":false}').stream


def test_row_12_escaped_controls_are_text() -> None:
    assert parse_request(b'{"query":"a\\u0000\\u0007\\u2028\\r\\n"}').query == "a\0\a\u2028\r\n"


def test_escaped_pairs_of_surrogates_are_characters() -> None:
    assert parse_request(b'{"query":"\\ud83d\\ude00"}').query == "😀"


def test_row_38_many_messages_are_a_matter_of_size_alone() -> None:
    message = '{"role":"user","content":"x"}'
    assert len(parse_request(f'{{"messages":[{",".join([message] * 100_000)}]}}'.encode()).messages) == 100_000


def test_an_answer_that_was_empty_can_be_sent_back() -> None:
    parse_request(b'{"messages":[{"role":"assistant","content":[]}]}')


def test_characters_are_those_of_all_texts() -> None:
    request = parse_request(json.dumps(FULL).encode())
    assert characters(request) == len("Be brief.Weather here?HmLet me look.4 °CBe kind.And now?")


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_row_1_an_empty_body_ends_too_early() -> None:
    assert refused(b"").message == "The body is not JSON: it ends too early (byte 0): it is empty"


@pytest.mark.parametrize(
    ("body", "kind"), [(b"null", "null"), (b"[]", "array"), (b'"x"', "str"), (b"1", "int"), (b"true", "bool")]
)
def test_row_2_a_body_must_be_an_object(body: bytes, kind: str) -> None:
    error = refused(body)
    assert error.reason == "validation"
    assert error.message == f"The request is not valid: Expected `object`, got `{kind}`"


@pytest.mark.parametrize(
    ("body", "offset"),
    [
        (b'{"query":', 9),
        (b'{"query":"my private words', 26),
        (b'{"query":"my private words"', 27),
        (b'{"query":"q"} x', 14),
        (b'{"query":"q"}{}', 13),
    ],
)
def test_rows_3_and_4_what_is_cut_or_too_much_is_reported_with_its_offset(body: bytes, offset: int) -> None:
    error = refused(body)
    assert error.reason == "json"
    result = int(error.message.rpartition("(byte ")[2].rstrip(")"))
    assert abs(result - offset) <= 1


@pytest.mark.parametrize(
    "value",
    ["NaN", "Infinity", "-Infinity", "01", ".5", "+1", "1.", "'x'", "// c\n1", "/* c */ 1", "0x1", "True", "1e"],
)
def test_row_5_what_only_resembles_json_is_refused(value: str) -> None:
    assert refused(f'{{"query":"q","metadata":{{"x":{value}}}}}'.encode()).reason == "json"


@pytest.mark.parametrize("opened", [b"[", b'{"a":', b'[{"a":', b'{"query":[', b'[""', b" [\n"])
@pytest.mark.timeout(60)
def test_row_7_a_depth_bomb_is_refused_before_anything_recurses(opened: bytes) -> None:
    assert refused(opened * 100_000).reason in ("depth", "items", "json")
    assert refused(b'{"query":"q","metadata":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}").reason == "depth"


def schema(depth: int) -> dict[str, Any]:
    """Returns a request nested so deep; the body, `tools`, the tool and `parameters` are four levels of it."""
    nested: dict[str, Any] = {}
    for _ in range(depth - 4):
        nested = {"properties": nested}
    return {"query": "q", "tools": [{"name": "f", "parameters": nested}]}


def test_row_8_a_schema_may_nest_as_deep_as_the_limit_and_no_deeper() -> None:
    parse_request(json.dumps(schema(LIMITS.json_depth)).encode())
    assert f"deeper than {LIMITS.json_depth} levels" in refused(schema(LIMITS.json_depth + 1)).message
    assert refused(schema(900)).reason == "depth"


def test_brackets_in_strings_are_no_nesting() -> None:
    parse_request(json.dumps({"query": "[" * 1000 + '"' + "{\\" * 1000}).encode())


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", [b'\\"', b'"', b'"x"', b"\\\\", b"\\"])
def test_looking_for_depth_takes_linear_time_whatever_the_quotes(unit: bytes) -> None:
    """Looking for the end of a string that has none from each of its quotes again took minutes for a megabyte."""
    refused(b'{"a":' * 40 + b"[" * 30 + b'"' + unit * 2_000_000)


def test_row_9_a_number_that_no_float_can_hold_is_refused() -> None:
    assert "range" in refused(b'{"query":"q","metadata":{"x":1e400}}').message
    assert "range" in refused(b'{"query":"q","seed":' + b"9" * 5000 + b"}").message


@pytest.mark.parametrize("value", ["\\ud800", "\\udc00", "\\ud800x", "\\ud800\\ud800", "x\\udfff\\ud800"])
def test_row_10_half_of_a_pair_is_refused_and_reported_as_that(value: str) -> None:
    assert "surrogate pair (byte " in refused(f'{{"query":"{value}"}}'.encode()).message


@pytest.mark.parametrize(
    "body",
    [
        b'{"query":"\xff"}',
        b'{"query":"\xed\xa0\x80"}',
        b'{"query":"\xc0\x80"}',
        b'{"query":"q","tools":[{"name":"f","parameters":{"x":"\xff"}}]}',
        '{"query":"q"}'.encode("utf-16"),
        '{"query":"q"}'.encode("utf-16-le"),
        b'\xef\xbb\xbf{"query":"q"}',
    ],
)
def test_row_11_a_body_is_utf8_without_a_byte_order_mark(body: bytes) -> None:
    assert refused(body).reason == "json"


def test_row_34_an_unknown_field_is_named_with_its_path() -> None:
    assert "`steam`" in refused({"query": "q", "steam": SECRET}).message
    deep = refused({"messages": [{"role": "user", "content": "x", "nmae": SECRET}]})
    assert "`nmae`" in deep.message
    assert "`$.messages[0]`" in deep.message


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"stream": "true"}, "$.stream"),
        ({"max_tokens": "5"}, "$.max_tokens"),
        ({"temperature": None}, "$.temperature"),
        ({"query": 5}, "$.query"),
        ({"model": ["m"]}, "$.model"),
        ({"messages": {}}, "$.messages"),
        ({"messages": [5]}, "$.messages[0]"),
        ({"messages": [{"role": "user", "content": None}]}, "$.messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "$.messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": SECRET}]}]}, "$.messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "$.messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_call"}]}]}, "$.messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "$.messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "url": SECRET, "data": SECRET}]}]},
            "$.messages[0].content[0]",
        ),
        ({"messages": [{"role": "user"}]}, "$.messages[0]"),
        ({"messages": [{"content": "x"}]}, "$.messages[0]"),
        ({"messages": [{"role": SECRET, "content": "x"}]}, "$.messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "$.messages[0]"),
        ({"tools": [{"description": SECRET}]}, "$.tools[0]"),
        ({"tools": [{"name": ""}]}, "$.tools[0].name"),
        ({"tools": [{"name": "f", "parameters": None}]}, "$.tools[0].parameters"),
        ({"tools": [{"name": "f", "parameters": SECRET}]}, "$.tools[0].parameters"),
        ({"tool_choice": SECRET}, "$.tool_choice"),
        ({"tool_choice": {"nam": "f"}}, "$.tool_choice"),
        ({"response_format": {"type": SECRET}}, "$.response_format.type"),
        ({"response_format": {"type": "json_schema", "schema": [SECRET]}}, "$.response_format.schema"),
        ({"reasoning": {"effort": SECRET}}, "$.reasoning.effort"),
        ({"reasoning": {"max_tokens": -1}}, "$.reasoning.max_tokens"),
        ({"stop": "END"}, "$.stop"),
        ({"stop": ["END", 5]}, "$.stop[1]"),
        ({"metadata": [SECRET]}, "$.metadata"),
        ({"provider_options": {SECRET: 5}}, "$.provider_options[...]"),
        ({"json_snapshots": 0}, "$.json_snapshots"),
        ({"seed": 1.5}, "$.seed"),
    ],
)
def test_row_35_a_wrong_type_is_named_by_its_path_and_its_value_is_not_reported(
    body: dict[str, Any], path: str
) -> None:
    error = refused({"query": "q", **body})
    assert error.reason == "validation"
    assert f"`{path}`" in error.message


def test_a_whole_number_is_an_integer_however_it_is_written() -> None:
    """As in JSON Schema; JSON texts beside it stay as they came."""
    body = b"""{"query": "\\u00e9", "seed": -7.0, "max_tokens": 5e1, "json_snapshots" : 749.0, "seed": -8.0,
        "reasoning": {"max_tokens": 0.0}, "tools": [{"name": "f", "parameters": {"maximum": 5.0, "a":  1}}]}"""
    request = parse_request(body)
    assert (request.query, request.seed, request.max_tokens, request.json_snapshots) == ("é", -8, 50, 749)
    assert type(request.max_tokens) is int
    assert request.reasoning == Reasoning(max_tokens=0)
    assert bytes(request.tools[0].parameters) == b'{"maximum": 5.0, "a":  1}'


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ('"seed": 1.0, "max_tokens": 1.5', "$.max_tokens"),
        ('"seed": 1.0, "max_tokens": 0.0', "$.max_tokens"),
        ('"seed": 1.0, "max_tokens": true', "$.max_tokens"),
        ('"seed": 1.0, "max_tokens": "5.0"', "$.max_tokens"),
        ('"seed": 1.0, "reasoning": {"max_tokens": -0.5}', "$.reasoning.max_tokens"),
        ('"seed": 1.0, "reasoning": [1.0]', "$.reasoning"),
        ('"seed": 1.0, "max_tokens": 1e300', "$.max_tokens"),
        ('"seed": 1.0, "my private words": 1', "`my private words`"),
    ],
)
def test_what_is_no_integer_is_refused_beside_one_that_is(given: str, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(f'{{"query": "q", {given}}}'.encode())
    assert caught.value.reason == "validation"
    assert path in caught.value.message


@pytest.mark.parametrize("members", ['"seed": 1.0, "max_tokens": 1e400', '"max_tokens": 1e400, "seed": 1.0'])
def test_a_number_that_no_float_holds_is_refused_beside_an_integer(members: str) -> None:
    assert refused(f'{{"query": "q", {members}}}'.encode()).reason in ("json", "validation")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"seed": 1.0, "query": }', "invalid character (byte 23)"),
        (b'{"seed": 1.0, "query": "q"', "it ends too early (byte 26)"),
        (b'{"seed": 1.0, "query": "q"} more', "trailing characters (byte 29)"),
        (b'{"reasoning": {"max_tokens": 1.0, "effort": }, "query": "q"}', "invalid character (byte 44)"),
    ],
)
def test_what_follows_a_fraction_may_be_no_json(body: bytes, expected: str) -> None:
    """A body is read up to its first fraction, and again as a whole."""
    error = refused(body)
    assert error.reason == "json"
    assert expected in error.message


@pytest.mark.parametrize("value", ["-1", "0", "1e9", "1000000000", "1.5", "100000001", "9" * 30])
def test_row_36_max_tokens_is_a_positive_number_within_reason(value: str) -> None:
    assert "`$.max_tokens`" in refused(f'{{"query":"q","max_tokens":{value}}}'.encode()).message


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", -1), ("temperature", 99), ("temperature", 2.01), ("top_p", 2), ("top_p", -0.1)]
)
def test_row_37_a_number_out_of_range_is_refused(field: str, value: float) -> None:
    assert f"`$.{field}`" in refused({"query": "q", field: value}).message


def test_row_37_n_has_no_place_in_a_native_request() -> None:
    assert "`n`" in refused({"query": "q", "n": 10**6}).message


@pytest.mark.parametrize("body", [{}, {"messages": []}, {"system": "x"}, {"messages": [], "system": "x"}])
def test_row_38_a_request_must_ask_something(body: dict[str, Any]) -> None:
    assert "give `query` or `messages`" in refused(body).message


@pytest.mark.parametrize("model", ["", "x" * 257, "x" * 10_000])
def test_row_39_a_models_name_has_a_length(model: str) -> None:
    assert "`$.model`" in refused({"query": "q", "model": model}).message


def test_row_40_only_the_configuration_names_upstreams() -> None:
    assert "`base_url`" in refused({"query": "q", "base_url": "http://169.254.169.254/"}).message


def test_the_name_of_an_unknown_field_is_cut() -> None:
    assert len(refused({"query": "q", "k" * 10**6: 1}).message) <= LIMITS.error_message


@given(st.binary(max_size=64))
def test_any_bytes_are_a_request_or_an_invalid_request(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        parse_request(body)


@given(st.data())
def test_a_mutilated_request_is_refused_and_nothing_worse(data: st.DataObject) -> None:
    body = bytearray(json.dumps(FULL).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidRequest):
        parse_request(bytes(body))


# ---- other dialects --------------------------------------------------------------------------------------------------


def test_an_object_of_another_dialect_is_read_with_the_same_care() -> None:
    assert parse_object(b'{"n": 12345678901234567890123, "a": 1, "a": null}') == {
        "n": 12345678901234567890123,
        "a": None,
    }
    for body in (b"[]", b"{", b'{"a":"\xff"}', b'{"a":"\\ud800"}', b"[" * 100_000, b'{"a":NaN}'):
        with pytest.raises(InvalidRequest):
            parse_object(body)


def test_a_body_is_cut_where_nothing_else_must_be_checked() -> None:
    small = b'{"model": "m", "n": 1}'
    cut = ("m", b'{"model":', b',"n":1}') if IMPLEMENTATION == "native" else None
    assert cut_body(small, b"model") == cut
    assert cut_body(CheckedBody(small), b"model") is None
    most = 5 * LIMITS.object_members  # so many members have more bytes
    for size, result in ((most, cut and "m"), (most + 1, None)):
        body = b'{"model":"m","n":"%b"}' % (b"x" * (size - 20))
        assert len(body) == size
        found = cut_body(body, b"model")
        assert (found and found[0]) == result


def test_depth_counts_what_is_open_at_once() -> None:
    limit = LIMITS.json_depth - 1  # the object around it is one level
    parse_object(b'{"x":[' + b"[],{}," * 1000 + b"[]]}")
    parse_object(b'{"x":' + b"[" * limit + b"]" * limit + b"}")
    with pytest.raises(InvalidRequest, match=f"deeper than {LIMITS.json_depth} levels"):
        parse_object(b'{"x":' + b"[" * (limit + 1) + b"]" * (limit + 1) + b"}")
    for small in (b"", b"[],", b"{},[[]],", b"[[[[[[{}]]]]]],"):  # beside what is deep
        whole = b"[]"
        for _ in range(limit - 1):
            whole = b"[" + (small if len(whole) > len(small) else b"") + whole + b"]"
        parse_object(b'{"x":' + whole + b"}")
        with pytest.raises(InvalidRequest, match=f"deeper than {LIMITS.json_depth} levels"):
            parse_object(b'{"x":[' + whole + b"]}")


def test_what_keeps_the_loop_busy_for_long_is_refused_before_it_is_parsed() -> None:
    """Millions of small values: each reader takes longer for them than their parsing does."""
    values, containers = LIMITS.json_values, LIMITS.json_containers
    ints = b'{"x":[%b]}'
    parse_object(ints % b",".join([b"0"] * (values - 1)))
    for body, what in (
        (ints % b",".join([b"0"] * values), f"{values} values"),
        (b'{"x":"",%b}' % b",".join([b'"":""'] * values), f"{values} values"),
        (ints % b",".join([b'""'] * 3_000_000), f"{values} values"),
        (ints % b",".join([b"{}"] * (containers - 1)), f"{containers} objects and arrays"),
        (
            b"{%b}" % b",".join([b'"%d":0' % at for at in range(LIMITS.object_members + 1)]),
            f"{LIMITS.object_members} members",
        ),
        (ints % b",".join([b"1" * 4000] * 100), f"{LIMITS.json_long_digits} digits"),
    ):
        problem = refused(body)
        assert problem.reason == "items"
        assert f" more than {what}" in problem.message
    parse_object(ints % b",".join([b"{}"] * (containers - 2)))


@pytest.mark.parametrize("unit", ["7", '"{', '\\"{', "\\", '",', "[[,,{", "\n[", '\n"['])
def test_what_is_in_strings_is_no_value(unit: str) -> None:
    text = json.dumps({"query": unit * (LIMITS.json_values + 1), "metadata": {"x": [[]] * LIMITS.json_depth}})
    assert parse_request(text.encode()).query == unit * (LIMITS.json_values + 1)


@pytest.mark.parametrize(
    ("body", "nearest"),
    [
        (b'{"qurey":"x"}', "; did you mean 'query'?"),
        (b'{"prompt":"x"}', "; did you mean 'query'?"),
        (b'{"query":"x","max_completion_tokens":1}', "; did you mean 'max_tokens'?"),
        (b'{"query":"x","format":"json"}', "; did you mean 'response_format'?"),
        (b'{"query":"x","temprature":1}', "; did you mean 'temperature'?"),
        (b'{"messages":[{"role":"user","contnet":"x"}]}', "; did you mean 'content'?"),
        (b'{"query":"x","zzz":1}', "unknown field `zzz`"),
        (b'{"query":"x","type":1}', "unknown field `type`"),
    ],
)
def test_an_unknown_field_is_reported_with_the_nearest_known_one(body: bytes, nearest: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request(body)
    assert str(refused.value).endswith(nearest)


@pytest.mark.parametrize(
    ("member", "hint"),
    [
        (
            '"tools":[{"type":"function","function":{"name":"a"}}]',
            "; native tools are flat; OpenAI's requests go to /v1/chat/completions",
        ),
        (
            '"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x"}}]}]',
            "; native parts are flat; OpenAI's requests go to /v1/chat/completions",
        ),
        (
            '"messages":[{"role":"assistant","content":"","tool_calls":[]}]',
            "; native calls are parts of type tool_call; OpenAI's requests go to /v1/chat/completions",
        ),
        (
            '"tools":[{"name":"a","input_schema":{}}]',
            "; a native tool has `parameters`; Anthropic's requests go to /v1/messages",
        ),
        (
            '"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64"}}]}]',
            "; native parts are flat; Anthropic's requests go to /v1/messages",
        ),
        (
            '"messages":[{"role":"user","content":"x"},{"role":"assistant","content":null,"tool_calls":[]}]',
            '; a message without text has the content "", a native call is a part of it; '
            "OpenAI's requests go to /v1/chat/completions",
        ),
        *(
            (
                f'"tool_choice":{choice}',
                '; a native choice is a word or {"name": …}; '
                "OpenAI's requests go to /v1/chat/completions, Anthropic's requests go to /v1/messages",
            )
            for choice in ('{"type":"function","function":{}}', '{"type":"auto"}', '{"type":"tool","name":"a"}')
        ),
        (
            '"response_format":{"type":"json_schema","json_schema":{}}',
            "; a native format has `schema` itself; OpenAI's requests go to /v1/chat/completions",
        ),
    ],
)
def test_a_part_of_another_api_is_refused_with_its_native_form_and_that_apis_route(member: str, hint: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request(f'{{"query":"x",{member}}}'.encode())
    assert str(refused.value).endswith(hint)


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ('"messages":[{"role":"developer","content":"x"}]', "messages[0].role`; known: system, user, assistant, tool"),
        (
            '"messages":[{"role":"user","content":[{"type":"image_url"}]}]',
            "messages[0].content[0].type`; known: text, image, audio, file, video, provider_block, reasoning, "
            "tool_call, as the role allows",
        ),
        ('"response_format":{"type":"json_object"}', "response_format.type`; known: text, json, json_schema"),
        ('"reasoning":{"effort":"most"}', "reasoning.effort`; known: none, minimal, low, medium, high, xhigh, max"),
        ('"reasoning":{"summary":"long"}', "reasoning.summary`; known: none, auto, concise, detailed"),
        ('"verbosity":"loud"', "verbosity`; known: low, medium, high"),
        ('"tool_choice":"any"', "tool_choice`; known: auto, none, required"),
    ],
)
def test_a_value_that_a_field_does_not_have_is_reported_with_those_that_it_has(member: str, expected: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request(f'{{"query":"x",{member}}}'.encode())
    assert str(refused.value).endswith(f"value - at `$.{expected}")


def test_every_turn_has_its_path() -> None:
    request = parse_request(b'{"system":"s","query":"q","messages":[{"role":"user","content":"a"}]}')
    assert [(path, message.content) for path, message in turns(request)] == [
        ("system", "s"),
        ("messages[0]", "a"),
        ("query", "q"),
    ]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"names": "abc"}, "Expected `array | null`, got `str` - at `$.here.names`"),
        ({"names": ["a", 1]}, "Expected `str`, got `int` - at `$.here.names[1]`"),
        ({"kind": SECRET}, "Invalid enum value - at `$.here.kind`"),
    ],
)
def test_members_that_a_type_names_are_refused_by_their_path_and_not_quoted(given: dict[str, Any], why: str) -> None:
    named = msgspec.defstruct("Named", [("names", list[str] | None, None), ("kind", Literal["a"] | None, None)])
    with pytest.raises(InvalidRequest) as caught:
        check_members(given, named, "$.here")
    assert caught.value.message == f"The request is not valid: {why}"
    check_members({"names": None, "kind": "a", "other": [SECRET]}, named, "$.here")


@pytest.mark.parametrize(
    ("request_", "paths"),
    [
        (Request(), []),
        (Request(logprobs=False, top_logprobs=0), []),
        (Request(logprobs=True, top_logprobs=2), ["logprobs", "top_logprobs"]),
        ({"logprobs": 0}, ["logprobs"]),
        ({"logprobs": None, "top_logprobs": None, "include": None}, []),
        ({"include": ["x", "message.output_text.logprobs"], "top_logprobs": 3}, ["top_logprobs", "include[1]"]),
    ],
)
def test_members_that_ask_for_probabilities(request_: Request | dict[str, Any], paths: list[str]) -> None:
    assert members_for_scores(request_) == paths


@pytest.mark.parametrize(
    ("members", "says_something"),
    [({}, False), ({"gateway_tools": []}, True), ({"max_steps": 1}, True), ({"approvals": "deny"}, True)],
)
def test_a_request_may_say_something_about_the_gateways_tools(members: dict[str, Any], says_something: bool) -> None:
    assert has_run_members(parse_request(json.dumps({"query": "a", **members}).encode())) is says_something
