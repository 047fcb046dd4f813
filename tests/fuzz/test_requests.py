"""Any JSON in every place of a caller's request, for every provider.

Invariant: `build_request` and `build_passthrough` give a request that can be sent, or raise an `Error` with the code
`invalid_request` or `unsupported`; no other exception, whatever stands in `provider_options`, in the rest of a native
request, or in a body of the provider's own dialect. The same holds for a body of a client's dialect that its format
reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gai_fast.core.requests.reading import parse_object, parse_request
from gai_fast.formats import get_format
from gai_fast.model.errors import InvalidRequest, Unsupported
from gai_fast.net.upstream.http_request import Origin, encode_request
from gai_fast.providers import API, Target, UpstreamRequest, get_provider
from tests.replaced import replaced
from tools.provider_table import apis

Path = tuple[str | int, ...]

NATIVE: dict[str, Any] = {
    "query": "Hi",
    "model": "m",
    "system": "Be brief.",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look"},
                {"type": "image", "url": "https://a.example/b.png"},
                {"type": "image", "data": "QUJD", "media_type": "image/png"},
                {"type": "audio", "data": "QUJD", "media_type": "audio/wav"},
                {"type": "file", "data": "QUJD", "media_type": "text/plain", "filename": "a.txt"},
                {"type": "file", "data": "QUJD", "media_type": "application/pdf"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "reasoning", "text": "Hm", "signature": "s", "redacted": False},
                {"type": "text", "text": "Let me look."},
                {"type": "tool_call", "call_id": "c1", "name": "f", "input": {"city": "Oslo"}, "signature": "s"},
                {"type": "tool_call", "call_id": "c2", "name": "f", "input": "no JSON"},
            ],
        },
        {"role": "tool", "call_id": "c1", "content": [{"type": "text", "text": "4"}], "is_error": True},
        {"role": "tool", "call_id": "c2", "content": "5"},
    ],
    "tools": [{"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}],
    "tool_choice": {"name": "f"},
    "response_format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
    "reasoning": {"effort": "minimal", "max_tokens": 1},
    "temperature": 0.5,
    "top_p": 1,
    "max_tokens": 5,
    "stop": ["x"],
    "seed": 1,
    "metadata": {"user_id": "u"},
}
"""A request that uses every field."""


def names_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from names_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names_in(inner)


NAMES = sorted(set(names_in(NATIVE)) | {"functionDeclarations", "betas", "api_version", "stream_options", "url"})


VALUES: list[Any] = [
    None, True, -1, 1.5, 10**30, "", "text", "\ud800", "a\r\nx: y", "\0large", [], {}, [None], [1], [[]], [{}],
    {"a": 1}, {"type": "text"}, {"functionDeclarations": 1},
]  # fmt: skip
"""Values that are tried in every place: one of each kind, and some with members that code may read."""

LARGE = "\0large"
"""Stands for a number beyond all floats, which `json` does not write."""

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**40), max_value=10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=20)  # halves of surrogate pairs among them
    | st.sampled_from(["", "a\r\nx: y", "data:;base64,", "data:image/png;base64,QUJD", LARGE, "é😀", "{}", '"'])
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=8,
)


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yields the path of every value inside a value, its own included."""
    yield path
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def written(value: Any) -> bytes:
    return json.dumps(value).replace(json.dumps(LARGE), "1e999").encode()


def bodies(whole: Any, wrapped: Callable[[Any], Any] = lambda value: value) -> Iterator[bytes]:
    """Yields bodies with each of `VALUES` in every place."""
    values = [written(value) for value in VALUES]
    for path in places(whole):
        before, after = written(wrapped(replaced(whole, path, "\0place"))).split(written("\0place"))
        for value in values:
            yield before + value + after


def check(build: Callable[[Target], UpstreamRequest], on_unsupported: Any) -> None:
    """The invariant."""
    target = Target("vendor/m", "k", on_unsupported)
    try:
        sent = build(target)
    except (InvalidRequest, Unsupported):
        return
    assert isinstance(json.loads(sent.body), dict)
    # A message that says nothing is left out, and named, whatever is asked for.
    dropped = [path for path in target.changes.dropped if re.fullmatch(r"messages\[\d+\]|input\[\d+\]", path) is None]
    assert on_unsupported == "drop" or not dropped
    encode_request(Origin.parse("http://a.example"), sent.method, sent.path, sent.headers, sent.body)


@cache
def own_body(name: str) -> Any:
    """Returns the API's body for the whole request: it names the members that options may be merged with."""
    return json.loads(get_provider(name).build_request(parse_request(written(NATIVE)), Target("m", "k", "drop")).body)


APIS = list(apis())
OPTIONS: dict[str, Any] = {
    "betas": ["a", "b"],
    "api_version": "v1",
    "tools": [{"functionDeclarations": [{"name": "f"}]}],
    "stream_options": {"include_usage": True},
}
"""Members that adapters read beside those of their own requests."""


def with_options(api: API, options: Any) -> dict[str, Any]:
    return {**NATIVE, "provider_options": {api.provider: options}}


modes = st.sampled_from(["error", "drop"])
some = settings(max_examples=settings().max_examples // 4)  # for each of twenty APIs


@pytest.mark.parametrize("name", APIS)
def test_one_of_each_kind_in_every_place_gives_a_request_or_a_refusal(name: str) -> None:
    api = get_provider(name)
    options = own_body(name) | OPTIONS
    for body in chain(bodies(NATIVE), bodies(options, lambda value: with_options(api, value))):
        # What is left out instead of refused is followed by more code.
        check(lambda target, body=body: api.build_request(parse_request(body), target), "drop")
    for body in bodies(options) if api.dialect else ():
        check(lambda target, body=body: api.build_passthrough(parse_object(body), target), "error")


@pytest.mark.parametrize("name", APIS)
@some
@given(data=st.data(), mode=modes)
def test_any_provider_options_give_a_request_or_a_refusal(name: str, data: st.DataObject, mode: str) -> None:
    api = get_provider(name)
    own = own_body(name) | OPTIONS
    path = data.draw(st.sampled_from(sorted(places(own), key=str)))
    options = replaced(own, path, data.draw(anything))
    if isinstance(options, dict) and options:  # what is not there is not merged
        dropped = data.draw(st.sets(st.sampled_from(sorted(options))))
        options = {key: value for key, value in options.items() if key not in dropped}
    body = written(with_options(api, options))
    check(lambda target: api.build_request(parse_request(body), target), mode)


@pytest.mark.parametrize("name", APIS)
@some
@given(data=st.data(), mode=modes)
def test_any_value_in_a_native_request_gives_a_request_or_a_refusal(name: str, data: st.DataObject, mode: str) -> None:
    path = data.draw(st.sampled_from(sorted(places(NATIVE), key=str)))
    body = written(replaced(NATIVE, path, data.draw(anything)))
    check(lambda target: get_provider(name).build_request(parse_request(body), target), mode)


@pytest.mark.parametrize("name", [name for name in APIS if get_provider(name).dialect])
@some
@given(data=st.data())
def test_any_value_in_a_body_of_its_own_dialect_gives_a_request_or_a_refusal(name: str, data: st.DataObject) -> None:
    own = own_body(name) | OPTIONS
    path = data.draw(st.sampled_from(sorted(places(own), key=str)))
    body = written(replaced(own, path, data.draw(anything)))
    check(lambda target: get_provider(name).build_passthrough(parse_object(body), target), "error")


# ---- bodies of a client's dialect ------------------------------------------------------------------------------------

TEXT_BLOCK = {"type": "text", "text": "x"}
MESSAGES: dict[str, Any] = {
    "model": "m",
    "max_tokens": 9,
    "stream": True,
    "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
                {"type": "document", "title": "t", "source": {"type": "text", "data": "x"}, "citations": {}},
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm", "signature": 'gai:{"provider":"openai","signature":"s"}'},
                {"type": "redacted_thinking", "data": 'gai:{"provider":"gemini","signature":"s","call_id":"t1"}'},
                {"type": "text", "text": "Let me look.", "citations": []},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"city": "Oslo"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "is_error": True,
                    "content": [{"type": "text", "text": "4"}],
                }
            ],
        },
    ],
    "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": True}],
    "tool_choice": {"type": "tool", "name": "f"},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "stop_sequences": ["x"],
    "metadata": {"user_id": "u"},
}
RESPONSES: dict[str, Any] = {
    "model": "m",
    "instructions": "Be kind.",
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Look"},
                {"type": "input_image", "image_url": "data:image/png;base64,QUJD", "detail": "low"},
                {"type": "input_file", "file_data": "data:application/pdf;base64,QUJD", "filename": "a.pdf"},
                {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Hm"}],
            "encrypted_content": 'gai:{"provider":"gemini","signature":"s","call_id":"t1"}',
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I see.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "t1", "name": "f", "arguments": '{"city":"Oslo"}'},
        {"type": "function_call_output", "call_id": "t1", "output": [{"type": "input_text", "text": "4"}]},
        {"type": "item_reference", "id": "msg_1"},
    ],
    "tools": [
        {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
        {"type": "web_search"},
    ],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "background": True,
    "store": True,
    "stream": True,
    "metadata": {"user_id": "u"},
}
UI_MESSAGES: dict[str, Any] = {
    "id": "c",
    "trigger": "submit-message",
    "messageId": "m",
    "tools": [{"name": "f"}],
    "messages": [
        {"role": "system", "parts": [TEXT_BLOCK]},
        {
            "role": "user",
            "parts": [
                {"type": "text", "text": "Look"},
                {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,QUJD", "filename": "a"},
            ],
        },
        {
            "role": "assistant",
            "parts": [
                {"type": "step-start"},
                {"type": "reasoning", "text": "Hm", "providerMetadata": {"gai": {"signature": "s", "redacted": True}}},
                {
                    "type": "tool-f",
                    "toolCallId": "t1",
                    "state": "output-available",
                    "input": {"city": "Oslo"},
                    "output": {"degrees": 4},
                    "callProviderMetadata": {"gai": {"signature": "s"}},
                },
                {
                    "type": "dynamic-tool",
                    "toolName": "f",
                    "toolCallId": "t2",
                    "state": "output-error",
                    "errorText": "no",
                },
                {
                    "type": "tool-f",
                    "toolCallId": "t3",
                    "state": "approval-responded",
                    "input": {},
                    "approval": {"id": "a", "approved": False, "reason": "never"},
                },
            ],
        },
    ],
}
RUN_INPUT: dict[str, Any] = {
    "threadId": "t",
    "runId": "r",
    "state": {},
    "context": [{"description": "Name", "value": "Ann"}],
    "tools": [{"name": "f", "description": "d", "parameters": {"type": "object"}}],
    "forwardedProps": {"temperature": 0.5, "stop": ["x"]},
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look"},
                {"type": "image", "source": {"type": "data", "value": "QUJD", "mimeType": "image/png"}},
            ],
        },
        {"role": "reasoning", "content": "Hm", "encryptedValue": '{"signature":"s","provider":"gemini"}'},
        {
            "role": "assistant",
            "content": "Let me look.",
            "toolCalls": [{"id": "t1", "function": {"name": "f", "arguments": "{}"}, "encryptedValue": "s"}],
        },
        {"role": "tool", "toolCallId": "t1", "content": "4", "error": "no"},
    ],
}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": ["Hi"], "stop": "x", "n": 1, "stream": True, "max_tokens": 9}
DIALECTS = {
    "agui": RUN_INPUT,
    "anthropic": MESSAGES,
    "completions": COMPLETION,
    "responses": RESPONSES,
    "vercel": UI_MESSAGES,
}
SPEAKERS = {"anthropic": "anthropic", "completions": "openai:completions", "responses": "openai:responses"}
"""The provider that speaks a dialect itself."""


def check_body(format_name: str, body: bytes) -> None:
    """The invariant for a client's body, for an upstream of another dialect and of its own."""
    dialect = get_format(format_name)

    def translated(target: Target) -> UpstreamRequest:
        request, left_out = dialect.parse_request(parse_object(body))
        assert all(isinstance(path, str) for path in left_out)
        return get_provider("gemini").build_request(request, target)

    def passed(target: Target) -> UpstreamRequest:
        asked, api = dialect.read_request(parse_object(body)), get_provider(SPEAKERS[format_name])
        return api.build_passthrough(asked.body, target)

    check(translated, "drop")
    if format_name in SPEAKERS:
        check(passed, "error")


@pytest.mark.parametrize("name", DIALECTS)
def test_one_of_each_kind_in_every_place_of_a_clients_body_gives_a_request_or_a_refusal(name: str) -> None:
    for body in bodies(DIALECTS[name]):
        check_body(name, body)


@pytest.mark.parametrize("name", DIALECTS)
@given(data=st.data())
def test_any_value_in_a_clients_body_gives_a_request_or_a_refusal(name: str, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(places(DIALECTS[name]), key=str)))
    check_body(name, written(replaced(DIALECTS[name], path, data.draw(anything))))
