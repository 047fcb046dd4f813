"""Error bodies of upstreams, in all their shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.relay import Relay
from gai_fast.formats import StreamContext, get_format
from gai_fast.library.decoding import decode
from gai_fast.providers import get_provider
from gai_fast.providers._failures import error_object, failure_of
from tests.legal import sse
from tests.limits import LIMITS


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
            ({"error": {"message": "m", "code": 1301}}, "m", ("1301",), None),
            ({"base_resp": {"status_code": 1026, "status_msg": "m"}}, "m", ("1026",), None),
            ({"base_resp": {"status_code": 1008, "status_msg": "m"}, "choices": None}, "m", (), 402),
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

    def test_what_is_nested_too_deep_is_not_told(self) -> None:
        deep: Any = "bottom"
        for _ in range(2 * LIMITS.arguments_depth):
            deep = {"message": deep}
        said = failure_of({"message": "m", "code": "c", "inner": deep})
        assert (said.message, said.words, said.details) == ("m", ("c",), {"message": "m", "code": "c"})
        assert failure_of({"message": deep, "code": "c"}).message == ""

    @pytest.mark.parametrize("levels", range(LIMITS.arguments_depth - 4, LIMITS.arguments_depth + 1))
    @pytest.mark.parametrize("name", ["openai", "completions", "anthropic", "responses"])
    def test_what_is_told_can_be_written_for_any_client(self, name: str, levels: int) -> None:
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


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error_type": "context_length_exceeded", "error_message": "Too long."}, "context_length_exceeded"),
        ({"code": "DataInspectionFailed"}, "content_filtered"),
        ({"error": {"code": "data_inspection_failed", "message": "No."}}, "content_filtered"),
    ],
    ids=str,
)
def test_an_error_with_unusual_members_under_200_is_that_error_in_every_chat_stream(body: Any, code: str) -> None:
    for provider in ("openai", "openai-compatible", "deepseek", "gemini"):
        stream = f"data: {json.dumps(body)}\n\ndata: [DONE]\n\n".encode()
        events = list(decode(provider, [stream]))
        assert [event["type"] for event in events] == ["error", "done"]
        assert events[0]["error"]["code"] == code


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
