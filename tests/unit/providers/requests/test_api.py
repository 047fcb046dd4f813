"""The interface of a provider: options and error bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.errors import InvalidRequest, Unsupported
from gai_fast.model.request import Request
from gai_fast.model.upstream_errors import UpstreamFailure
from gai_fast.providers import API, Target, get_provider
from gai_fast.providers.groq import Groq
from tests.limits import LIMITS


class TestDecodeError:
    def test_a_json_body_speaks(self) -> None:
        body = b'{"error":{"message":"slow down","type":"tokens","code":"rate_limit_exceeded"}}'
        error = get_provider("openai").decode_error(429, {"retry-after": "7"}, body)
        assert (error.code, error.message, error.retry_after_ms) == ("rate_limited", "slow down", 7000)
        assert error.provider == "openai"
        assert error.phase == "first_event"

    def test_a_wait_that_the_body_tells_counts_before_the_message(self) -> None:
        class Patient(Groq):
            def read_failure(self, body: Any) -> UpstreamFailure | None:
                return UpstreamFailure(body["message"], status=429, retry_after_ms=body.get("wait"))

        for wait, expected in ((3000, 3000), (None, 5000)):
            body = {"message": "try again in 5s", "wait": wait}
            assert Patient().decode_error(429, {}, json.dumps(body).encode()).retry_after_ms == expected
            result = Patient().adapter().error_event(json.dumps(body))
            assert result.retry_after_ms == expected
        body = {"message": "try again in 5s", "wait": 3000}
        assert Patient().decode_error(429, {"retry-after": "7"}, json.dumps(body).encode()).retry_after_ms == 7000

    @pytest.mark.parametrize(("status", "expected"), [(429, 60_000), (503, None)])
    def test_a_limit_that_is_reported_with_every_answer_is_no_reason_for_another_failure(
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

    @pytest.mark.parametrize("message", [b"slow down", b"slow down \\ud83d", b"slow down \xf0\x9f"])
    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
    def test_a_byte_order_mark_and_half_a_character_spoil_no_body(self, mark: bytes, message: bytes) -> None:
        body = mark + b'{"error":{"message":"%b","code":"insufficient_quota"}}' % message
        error = get_provider("openai").decode_error(429, {}, body)
        assert (error.reason, error.temporary) == ("insufficient_quota", False)
        assert error.message.startswith("slow down")

    @pytest.mark.parametrize("body", [b"<html>secret</html>", b"\xef\xbb\xbf<html>secret</html>", b""])
    def test_markup_and_silence_are_reported_by_the_status(self, body: bytes) -> None:
        error = get_provider("openai").decode_error(503, {}, body)
        assert (error.code, error.message) == ("provider_unavailable", "openai answered with status 503")

    @pytest.mark.parametrize(
        "body",
        [
            b'{"detail":"Not Found"}',  # FastAPI: vLLM, SGLang
            b"404 page not found",  # Go: Ollama, LocalAI
            b'{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}',  # llama.cpp
            b"<html>404 Not Found</html>",
            b"",
        ],
    )
    def test_a_path_that_a_server_does_not_have_is_reported_with_the_setting(self, body: bytes) -> None:
        error = get_provider("openai-compatible").decode_error(404, {}, body)
        assert (error.code, error.message) == (
            "not_found",
            "openai-compatible answered with status 404: check base_url",
        )
        wrong_method = get_provider("anthropic").decode_error(405, {}, b'{"detail":"Method Not Allowed"}')
        assert wrong_method.message == "anthropic answered with status 405: check base_url"

    @pytest.mark.parametrize("message", ["The model `x` does not exist.", 'model "x" not found, try pulling it first'])
    def test_an_unknown_model_keeps_its_words(self, message: str) -> None:
        body = json.dumps({"error": {"message": message}}).encode()
        assert get_provider("openai-compatible").decode_error(404, {}, body).message == message


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


@pytest.mark.parametrize("provider", ["openai", "openai:responses", "anthropic", "gemini", "azure", "cohere", "ollama"])
@pytest.mark.parametrize("model", ["dearer", None])
def test_no_option_asks_for_another_model(provider: str, model: str | None) -> None:
    """A caller's key may be for one model, and the price is that model's."""
    api = get_provider(provider)
    asked = Request(query="Hi", provider_options={api.provider: {"model": model}, "xai": {"model": "x"}})
    with pytest.raises(InvalidRequest) as caught:
        api.build_request(asked, Target("m1"))
    assert caught.value.message.endswith(f" - at `$.provider_options.{api.provider}.model`")
    assert (caught.value.status, caught.value.reason) == (400, "validation")


def test_of_a_body_in_its_own_dialect_an_api_checks_only_what_it_reads() -> None:
    azure = get_provider("azure")
    with pytest.raises(InvalidRequest, match=r"Expected `str \| null`, got `int` - at `\$\.api_version`"):
        azure.build_passthrough({"messages": 5, "api_version": 1}, Target("m1"))
    sent = azure.build_passthrough({"messages": 5, "api_version": None}, Target("m1"))
    assert json.loads(sent.body) == {"messages": 5, "model": "m1"}
    assert sent.path == "/openai/v1/chat/completions"


def test_what_a_provider_leaves_undone_is_an_exception() -> None:
    class Undone(API):
        provider = "undone"

    # Compiled, the class can be made all the same; who calls what is missing learns of it.
    with pytest.raises((TypeError, NotImplementedError)):
        Undone().adapter()


def test_an_api_without_a_dialect_takes_no_foreign_request() -> None:
    with pytest.raises(Unsupported, match="gemini does not take this request"):
        get_provider("gemini").build_passthrough({}, Target("m"))


VIDEO = {"role": "user", "content": [{"type": "video", "url": "https://a.example/v.mp4"}]}


@pytest.mark.parametrize(
    "provider",
    "openai openai:responses openai:completions anthropic mistral cohere xai perplexity ollama ollama:generate".split(),
)
def test_a_request_of_which_no_message_is_left_is_refused_by_the_parts_that_were_left_out(provider: str) -> None:
    asked = parse_request(json.dumps({"messages": [VIDEO]}).encode())
    with pytest.raises(Unsupported) as caught:
        get_provider(provider).build_request(asked, Target("m", None, "drop"))
    name = provider.partition(":")[0]
    assert caught.value.message == (
        f"No message is left for {name} without `messages[0].content[0]`: send a text beside it"
    )
    assert caught.value.status == 400
    beside = parse_request(json.dumps({"messages": [VIDEO], "query": "Hi"}).encode())
    assert get_provider(provider).build_request(beside, Target("m", None, "drop")).body


@pytest.mark.parametrize("provider", ["openai", "mistral", "deepseek", "cohere", "xai"])
def test_a_request_that_is_a_call_without_a_result_is_refused_by_it(provider: str) -> None:
    call = {"type": "tool_call", "call_id": "c1", "name": "f", "input": {}}
    asked = parse_request(json.dumps({"messages": [{"role": "assistant", "content": [call]}]}).encode())
    with pytest.raises(Unsupported, match=r"No message is left for \w+ without `messages\[0\]"):
        get_provider(provider).build_request(asked, Target("m", None, "drop"))


def test_a_request_whose_messages_say_nothing_is_refused() -> None:
    silent = parse_request(b'{"messages":[{"role":"user","content":[]}]}')
    with pytest.raises(
        Unsupported, match=r"No message is left for openai without `messages\[0\]`: send a text beside it"
    ):
        get_provider("openai").build_request(silent, Target("m"))


def test_a_body_in_its_own_dialect_that_loses_its_only_message_is_refused() -> None:
    asked = {"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}
    with pytest.raises(Unsupported, match=r"No message is left for mistral without `messages\[0\].content\[0\]`"):
        get_provider("mistral").build_passthrough(asked, Target("m", None, "drop"))
    assert json.loads(get_provider("mistral").build_passthrough({"messages": []}, Target("m")).body)["messages"] == []


def test_a_stored_conversation_needs_no_message() -> None:
    asked = Request(provider_options={"openai": {"previous_response_id": "resp_1"}}, messages=[])
    sent = get_provider("openai:responses").build_request(asked, Target("m"))
    assert json.loads(sent.body)["input"] == []
