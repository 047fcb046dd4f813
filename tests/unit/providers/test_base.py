"""The interface of a provider: options, what is left out, error bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.reading import parse_request
from gai_fast.model.errors import Error, InvalidRequest, Malformed, Unsupported
from gai_fast.model.request import Request
from gai_fast.model.upstream_errors import UpstreamFailure
from gai_fast.providers import API, Target, get_provider
from gai_fast.providers._base import ProviderAdapter
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
            told = Patient().adapter().error_event(json.dumps(body))
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

    @pytest.mark.parametrize("message", [b"slow down", b"slow down \\ud83d", b"slow down \xf0\x9f"])
    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
    def test_a_byte_order_mark_and_half_a_character_spoil_no_body(self, mark: bytes, message: bytes) -> None:
        body = mark + b'{"error":{"message":"%b","code":"insufficient_quota"}}' % message
        error = get_provider("openai").decode_error(429, {}, body)
        assert (error.reason, error.temporary) == ("insufficient_quota", False)
        assert error.message.startswith("slow down")

    @pytest.mark.parametrize("body", [b"<html>secret</html>", b"\xef\xbb\xbf<html>secret</html>", b""])
    def test_markup_and_silence_are_told_by_the_status(self, body: bytes) -> None:
        error = get_provider("openai").decode_error(503, {}, body)
        assert (error.code, error.message) == ("provider_unavailable", "openai answered with status 503")


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
    """A caller's key may be for one model, and its price is that of the one that it asked for."""
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


class TestUnsupported:
    def test_a_field_is_refused_by_its_path(self) -> None:
        with pytest.raises(Unsupported) as refused:
            get_provider("anthropic").leave_out("messages[0]", Target("m"), "odd")
        assert refused.value.message == "anthropic does not support `messages[0]`: odd"
        assert refused.value.reason == "field"

    def test_or_left_out_and_noted(self) -> None:
        target = Target("m", on_unsupported="drop")
        get_provider("anthropic").leave_out("messages[0]", target, "odd")
        assert target.changes.dropped == ["messages[0]"]

    def test_a_callers_own_word_is_cut(self) -> None:
        assert len(get_provider("anthropic").unsupported("metadata." + "x" * 9000).message) < 300

    def test_what_an_api_lacks_is_gone_from_the_request(self) -> None:
        api, asked = get_provider("anthropic"), Request(query="Hi", seed=0, stop=["x"])
        with pytest.raises(Unsupported, match="`seed`"):
            api.supported(asked, Target("m"))
        target = Target("m", on_unsupported="drop")
        assert api.supported(asked, target) == Request(query="Hi", stop=["x"])
        assert target.changes.dropped == ["seed"]
        given = Request(query="Hi")
        assert api.supported(given, target) is given


def test_what_a_provider_leaves_undone_is_an_exception() -> None:
    class Undone(API):
        provider = "undone"

    # Compiled, the class can be made all the same; who calls what is missing learns of it.
    with pytest.raises((TypeError, NotImplementedError)):
        Undone().adapter()


def test_an_api_without_a_dialect_takes_no_foreign_request() -> None:
    with pytest.raises(Unsupported, match="gemini does not take this request"):
        get_provider("gemini").build_passthrough({}, Target("m"))


def test_an_adapter_has_nothing_to_tell_before_an_error_unless_it_says_so() -> None:
    assert ProviderAdapter.abort(get_provider("openai").adapter()) == []


def test_a_chunk_must_be_an_object_that_tells_of_no_failure() -> None:
    for provider in ("openai", "anthropic", "gemini", "cohere", "ollama", "openai:responses"):
        adapter = get_provider(provider).adapter()
        assert adapter.checked({"odd": 1}) == {"odd": 1}
        with pytest.raises(Malformed, match="a JSON list, not an object"):
            adapter.checked([])
        with pytest.raises(Error, match="broke") as caught:
            adapter.checked({"error": {"message": "broke", "code": "rate_limit_exceeded"}})
        assert (caught.value.code, caught.value.provider) == ("rate_limited", provider.partition(":")[0])


def test_an_answer_amid_another_is_an_error_of_the_upstream() -> None:
    error = get_provider("anthropic").adapter().spliced()
    assert (error.code, error.reason) == ("provider_unavailable", "spliced_answer")


def test_an_error_event_is_told_in_whatever_shape_it_is() -> None:
    adapter = get_provider("openai").adapter()
    assert adapter.error_event('{"error":{"message":"m","code":"rate_limit_exceeded"}}').code == "rate_limited"
    assert adapter.error_event('{"odd":1}').message == '{"odd":1}'
    assert adapter.error_event("it broke").message == "it broke"


CHOICES = ("openai", "openai:responses", "openai:completions", "anthropic", "gemini", "cohere", "ollama:generate")


@pytest.mark.parametrize("provider", CHOICES)
@pytest.mark.parametrize("choice", ["auto", "none"])
def test_a_choice_among_no_tools_means_nothing_and_is_not_sent(provider: str, choice: str) -> None:
    target = Target("m")
    sent = get_provider(provider).build_request(native(query="Hi", tool_choice=choice), target)
    assert {"tool_choice", "toolConfig"}.isdisjoint(json.loads(sent.body))
    assert not target.changes


@pytest.mark.parametrize("provider", CHOICES)
def test_a_call_of_no_tool_is_refused_by_name(provider: str) -> None:
    with pytest.raises(Unsupported, match="`tool_choice`"):
        get_provider(provider).build_request(native(query="Hi", tool_choice="required"), Target("m"))


@pytest.mark.parametrize("provider", ["gemini", "cohere"])
def test_instructions_alone_are_the_users_where_a_user_must_speak(provider: str) -> None:
    """Google refuses empty `contents`, Cohere a last message that is not the user's."""
    instructions = [{"role": "system", "content": "Be brief."}, {"role": "system", "content": "Write a haiku."}]
    target = Target("m")
    sent = json.loads(get_provider(provider).build_request(native(messages=instructions), target).body)
    last = sent["contents"][-1] if provider == "gemini" else sent["messages"][-1]
    assert last["role"] == "user"
    assert "haiku" in json.dumps(last)
    assert "brief" not in json.dumps(last)
    assert target.changes.adjusted == {"messages[1].role": "user"}


def test_a_conversation_with_a_user_is_not_changed() -> None:
    target = Target("m")
    sent = get_provider("cohere").build_request(native(system="Be brief.", query="Hi"), target)
    assert [message["role"] for message in json.loads(sent.body)["messages"]] == ["system", "user"]
    assert not target.changes


def native(**fields: Any) -> Request:
    return parse_request(json.dumps(fields).encode())
