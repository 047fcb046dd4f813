"""Error bodies of upstreams, in all their shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.relay import Relay
from gai_fast.formats import StreamContext, get_format
from gai_fast.library.decoding import decode
from gai_fast.providers import get_provider
from gai_fast.providers.answers.failures import error_object, failure_of
from tests.legal import sse
from tests.limits import LIMITS
from tests.unit.providers.upstreams import PROVIDERS, dialect, end_mark, ending, frame, frames, opening


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
            ({"detail": [{"loc": ["body", "n"], "msg": "too big", "type": "v"}]}, "body.n: too big", (), 422),
            ({"detail": "Not Found"}, "Not Found", (), None),
            ({"error": {"message": {"detail": "inner"}}}, "inner", (), None),
            ({"error": {"message": "m", "code": "400", "type": None}}, "m", (), 400),
            ({"error": {"message": "m", "http_status_code": 422}}, "m", (), 422),
            ({"error": {"message": "m", "code": 1301}}, "m", ("1301",), None),
            ({"base_resp": {"status_code": 1026, "status_msg": "m"}}, "m", ("1026",), None),
            ({"base_resp": {"status_code": 1008, "status_msg": "m"}, "choices": None}, "m", (), 402),
            ({"error": ["text"]}, "text", (), None),
            ({"type": "error", "error": '{"code":"c","message":"m"}'}, "m", ("c",), None),
            ({"error": '{"error":{"code":"c","message":"m"}}'}, "m", ("c",), None),
            ({"error": "insufficient_quota"}, "insufficient_quota", ("insufficient_quota",), None),
            ({"error": "too_many_requests", "code": "c"}, "too_many_requests", ("c",), None),
            ({"error": "{no JSON}"}, "{no JSON}", (), None),
            ({"error": "{}"}, "{}", (), None),
            ({"error": '{"odd":{"at":1}}'}, '{"odd":{"at":1}}', (), None),
            ({"code": 429, "error": '{"message":"m"}'}, "m", (), 429),
            ({"Message": "Internal failure"}, "Internal failure", (), None),
            ({"error": True, "message": "m"}, "m", (), None),
            ({"success": False, "errors": [{"code": 7003, "message": "m"}], "result": {}}, "m", (), None),
        ],
    )
    def test_every_shape_is_understood(
        self, body: Any, message: str, words: tuple[str, ...], status: int | None
    ) -> None:
        error = error_object(body)
        assert error is not None
        said = failure_of(error)
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
        said = failure_of({"message": "m", "code": "outer"}, {"error_type": "inner"})
        assert said.words == ("inner", "outer")

    def test_the_object_is_kept_as_it_came(self) -> None:
        error = {"message": "m", "type": "t", "param": "p", "code": None, "extra": [1]}
        assert failure_of(error).details == error

    def test_what_is_nested_too_deep_is_not_reported(self) -> None:
        deep: Any = "bottom"
        for _ in range(2 * LIMITS.arguments_depth):
            deep = {"message": deep}
        said = failure_of({"message": "m", "code": "c", "inner": deep})
        assert (said.message, said.words, said.details) == ("m", ("c",), {"message": "m", "code": "c"})
        assert failure_of({"message": deep, "code": "c"}).message == ""

    @pytest.mark.parametrize("levels", range(LIMITS.arguments_depth - 4, LIMITS.arguments_depth + 1))
    @pytest.mark.parametrize("name", ["openai", "completions", "anthropic", "responses"])
    def test_what_is_reported_can_be_written_for_any_client(self, name: str, levels: int) -> None:
        deep: Any = 1
        for _ in range(levels):
            deep = [deep]
        encoder = get_format(name).encoder("sse", StreamContext("s" * 22, "r", None, "m", lambda: 1))
        relay = Relay(get_provider("openai").adapter(), encoder)
        error = {"message": "no such place", "type": "not_found_error", "param": deep, "code": "model_not_found"}
        relay.receive_data(sse({"error": error}))
        assert relay.fault is None
        assert relay.error is not None
        assert relay.error.code == "not_found"
        assert b"no such place" in encoder.take()


_CHUNK = {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": []}
ERRORS: list[tuple[Any, str]] = [
    ({"error_type": "context_length_exceeded", "error_message": "Too long."}, "context_length_exceeded"),
    ({"code": "DataInspectionFailed"}, "content_filtered"),
    (
        {"code": "DataInspectionFailed", "message": "It may contain inappropriate content.", "id": "r"},
        "content_filtered",
    ),
    ({"error": {"code": "data_inspection_failed", "message": "No."}}, "content_filtered"),
    ({"message": "No such model.", "code": "model_not_found"}, "not_found"),
    ({"message": "Too many", "code": 429}, "rate_limited"),
    ({"detail": "maximum context length is 8192 tokens"}, "context_length_exceeded"),
    ({"detail": [{"loc": ["body", "n"], "msg": "too big", "type": "v"}]}, "invalid_request"),
    ({"errors": [{"message": "No.", "code": "rate_limit_exceeded"}]}, "rate_limited"),
    ({"errors": ["rate limit exceeded"]}, "rate_limited"),
    ({"errors": {"message": "No.", "code": "rate_limit_exceeded"}}, "rate_limited"),
    ({"error": "prompt is too long"}, "context_length_exceeded"),
    ({"Error": {"Code": "Throttling.RateQuota", "Message": "No."}}, "rate_limited"),
    ({"type": "error", "message": "No.", "code": "rate_limit_exceeded"}, "rate_limited"),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "No."}}, "overloaded"),
    ({"type": "invalid_request_error", "message": "prompt is too long"}, "context_length_exceeded"),
    ({"object": "error", "message": "No.", "type": "BadRequestError", "code": 400}, "invalid_request"),
    ({**_CHUNK, "error": {"message": "No.", "code": 429}}, "rate_limited"),
    ({**_CHUNK, "error_message": "No.", "error_code": 429}, "rate_limited"),
    ({**_CHUNK, "message": "No.", "code": "context_length_exceeded"}, "context_length_exceeded"),
    ({"choices": None, "code": "1301", "msg": "sensitive"}, "content_filtered"),
    ({"code": 429, "msg": "No.", "success": False, "data": None}, "rate_limited"),
    ({"code": 1113, "msg": "Insufficient balance", "success": False}, "forbidden"),
    ({"status": "439", "msg": "Your API Token has expired.", "body": None}, "invalid_request"),
    ({"statusCode": 429, "message": "Try again in 3 seconds."}, "rate_limited"),
    ({"error_code": 336003, "error_msg": "No."}, "internal"),
    ({"__type": "com.amazon.coral.service#ExpiredTokenException", "Message": "No."}, "unauthorized"),
    ({"__type": "ThrottlingException", "message": "No."}, "rate_limited"),
    ({"fault": {"faultstring": "Rate limit quota violation.", "detail": {"errorcode": "p"}}}, "rate_limited"),
    ({"Response": {"Error": {"Code": "RequestLimitExceeded", "Message": "No."}, "RequestId": "r"}}, "rate_limited"),
    ({"base_resp": {"status_code": 1039, "status_msg": "No."}}, "rate_limited"),
    ({"error": {"code": "InputTextSensitiveContentDetected.PolicyViolation", "message": "No."}}, "content_filtered"),
    ({"type": "about:blank", "title": "No.", "status": 429, "detail": "slow down"}, "rate_limited"),
    ({"err": "No.", "ok": False}, "internal"),
    ({"status": "failed", "reason": "No."}, "internal"),
    ({"message": "Too many requests"}, "rate_limited"),
    ({"message": "Unauthorized"}, "unauthorized"),
]
"""Forms of public bug reports, and of providers' documents: errors in answers with status 200."""


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("body", "code"), ERRORS, ids=[json.dumps(body)[:60] for body, _ in ERRORS])
def test_an_error_under_200_is_that_error_in_every_adapter(provider: str, body: Any, code: str) -> None:
    """As the first chunk, behind content, and as the whole body; never an end mark behind it."""
    said = json.dumps(body)
    first = list(decode(provider, frames(provider, [said, "[DONE]"])))
    assert [event["type"] for event in first] == ["error", "done"]
    behind = list(decode(provider, frames(provider, [*opening(provider), said, *end_mark(provider)])))
    assert [event["type"] for event in behind] == ["start", "text.delta", "error", "done"]
    whole = list(decode(provider, [said.encode()]))
    assert [event["type"] for event in whole] == ["error", "done"]
    assert {events[-2]["error"]["code"] for events in (first, behind, whole)} == {code}
    assert not any(events[-1]["finished"] for events in (first, behind, whole))


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("body", ["<html><body>502</body></html>", "\n <!DOCTYPE html>\n<p>No.</p>"])
def test_a_page_of_html_under_200_is_no_answer(provider: str, body: str) -> None:
    events = list(decode(provider, [body.encode()]))
    assert [event["type"] for event in events] == ["error", "done"]
    assert events[0]["error"]["code"] == "provider_unavailable"


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if dialect(name) in ("chat", "completions")])
def test_an_error_within_a_choice_is_that_error(provider: str) -> None:
    """As OpenRouter tells it in whole answers."""
    choice = {"index": 0, "finish_reason": "error", "error": {"code": 429, "message": "No."}}
    events = list(decode(provider, frames(provider, [*opening(provider), {**_CHUNK, "choices": [choice]}, "[DONE]"])))
    assert events[-2]["error"]["code"] == "rate_limited"
    assert events[-2]["error"]["message"] == "No."


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if dialect(name) == "responses"])
def test_an_error_within_a_response_that_is_called_completed_is_that_error(provider: str) -> None:
    response = {
        "id": "r",
        "status": "completed",
        "output": [],
        "error": {"code": "rate_limit_exceeded", "message": "No."},
    }
    events = list(decode(provider, [frame(provider, {"type": "response.completed", "response": response})]))
    assert [event["type"] for event in events] == ["error", "done"]
    assert events[0]["error"]["code"] == "rate_limited"


@pytest.mark.parametrize(
    "beside",
    [
        {"code": 0, "message": "Success", "sid": "s"},
        {"code": 200, "msg": "ok", "success": True},
        {"code": "200", "message": "success"},
        {"status": "ok", "msg": "fine"},
        {"errors": [], "error": None, "success": True},
        {"message": ""},
    ],
    ids=str,
)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_says_success_is_no_error(provider: str, beside: Any) -> None:
    """Beside the content, and in a chunk of its own."""
    if provider.startswith("ollama"):  # where `message` holds the content
        beside = {name: value for name, value in beside.items() if name != "message"}
    chunks = [*opening(provider), *ending(provider, "stop")]
    with_it = [{**beside, **chunk} for chunk in chunks]
    for given in (with_it, [chunks[0], beside, *chunks[1:]]):
        events = list(decode(provider, frames(provider, [*given, *end_mark(provider)])))
        kinds = [event["type"] for event in events if event["type"] != "warning"]
        assert kinds == ["start", "text.delta", "finish", "done"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_answer_without_content_reason_or_usage_is_no_success(provider: str) -> None:
    ends: dict[str, list[list[Any]]] = {
        "anthropic": [[{"type": "message_stop"}]],
        "cohere": [
            [{"type": "message-end", "delta": {}}],
            [{"type": "message-start", "id": "c"}, {"type": "message-end"}],
        ],
        "responses": [["[DONE]"], [{"type": "response.created", "response": {"id": "r"}}, "[DONE]"]],
        "ollama": [[{"model": "m", "message": {"content": ""}, "done": True}]],
        "generate": [[{"model": "m", "response": "", "done": True}]],
    }
    empty = {**_CHUNK, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
    for chunks in ends.get(dialect(provider), [["[DONE]"], [_CHUNK, "[DONE]"], [empty, "[DONE]"]]):
        events = list(decode(provider, frames(provider, chunks)))
        assert [event["type"] for event in events if event["type"] != "start"] == ["error", "done"]
        assert events[-2]["error"]["code"] == "provider_unavailable"
        assert events[-2]["error"]["reason"] == "empty_answer"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"error": {"code": "1301", "message": "sensitive"}}, "content_filtered"),
        ({"id": "c", "choices": [], "base_resp": {"status_code": 1027, "status_msg": "sensitive"}}, "content_filtered"),
        ({"id": "c", "choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, "rate_limited"),
        ({"id": "c", "base_resp": {"status_code": 1000, "status_msg": "unknown error"}}, "internal"),
    ],
)
def test_a_number_for_a_failure_has_the_meaning_that_its_provider_documents(error: dict[str, Any], code: str) -> None:
    events = list(decode("openai-compatible", [sse(error), b"data: [DONE]\n\n"]))
    assert [event["type"] for event in events] == ["error", "done"]
    assert events[0]["error"]["code"] == code


def test_a_base_resp_of_success_is_no_error() -> None:
    choice = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}
    chunk = {"id": "c", "model": "m", "choices": [choice], "base_resp": {"status_code": 0, "status_msg": ""}}
    events = list(decode("openai-compatible", [sse(chunk), b"data: [DONE]\n\n"]))
    assert [event["type"] for event in events] == ["start", "text.delta", "finish", "done"]


RAW = '{"type":"error","error":{"type":"invalid_request_error","message":"messages.1: text must be non-empty"}}'
INNER: dict[str, tuple[str, dict[str, Any], str]] = {
    "OpenRouter": (
        "openrouter",
        {"message": "Provider returned error", "code": 400, "metadata": {"raw": RAW, "provider_name": "Anthropic"}},
        "Provider returned error (Anthropic): messages.1: text must be non-empty",
    ),
    "OpenRouter, a text": (
        "openrouter",
        {"message": "Provider returned error", "code": 429, "metadata": {"raw": "x is rate-limited upstream"}},
        "Provider returned error: x is rate-limited upstream",
    ),
    "OpenRouter, a page": (
        "openrouter",
        {"message": "Provider returned error", "code": 502, "metadata": {"raw": "<html>", "provider_name": "Chutes"}},
        "Provider returned error (Chutes)",
    ),
    "OpenRouter's Responses": (
        "openrouter:responses",
        {"message": "Provider returned error", "code": 400, "metadata": {"raw": RAW, "provider_name": "Anthropic"}},
        "Provider returned error (Anthropic): messages.1: text must be non-empty",
    ),
    "Azure": (
        "azure",
        {"message": "Failed", "code": "x", "innererror": {"code": "y", "message": "because", "innererror": {"z": 1}}},
        "Failed: because",
    ),
    "Azure's details": (
        "azure",
        {"message": "Failed", "code": "x", "details": [{"code": "y", "message": "this deployment is gone"}]},
        "Failed: this deployment is gone",
    ),
    "Bedrock": (
        "anthropic:bedrock",
        {"message": "The model failed", "originalStatusCode": 400, "originalMessage": '{"message": "too long"}'},
        "The model failed: too long",
    ),
    "a cause": (
        "openai-compatible",
        {"message": "AI_APICallError", "cause": {"message": "Bad Request", "cause": {"message": "no such tool"}}},
        "AI_APICallError: Bad Request: no such tool",
    ),
    "the same again": (
        "openai-compatible",
        {"message": "Bad: no such tool", "cause": {"message": "no such tool"}},
        "Bad: no such tool",
    ),
    "Google": (
        "gemini",
        {"code": 400, "message": "Wrong.", "details": [{"@type": "type.googleapis.com/x", "reason": "API_KEY"}]},
        "Wrong.",
    ),
}


@pytest.mark.parametrize(("provider", "error", "message"), INNER.values(), ids=INNER)
def test_the_reason_of_the_provider_behind_a_gateway_is_told(
    provider: str, error: dict[str, Any], message: str
) -> None:
    failure = get_provider(provider.replace("anthropic:bedrock", "anthropic")).read_failure({"error": error})
    assert failure is not None
    assert failure.message == message


def test_the_reason_of_an_error_within_an_error_has_a_bound() -> None:
    raw = json.dumps({"error": {"message": "y" * 10_000}})
    deep: dict[str, Any] = {"message": "deepest"}
    for _ in range(50):
        deep = {"cause": deep}
    failure = failure_of({"message": "x", "metadata": {"raw": raw, "provider_name": "z" * 10_000}})
    assert len(failure.message) < LIMITS.inner_reason + 200
    assert failure_of({"message": "x", **deep}).message == "x"
    assert failure_of({"message": "x", "metadata": {"raw": raw[:500]}}).message == "x"
