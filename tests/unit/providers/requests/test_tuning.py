"""What a configuration changes of a model's requests, and the merge of raw members."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.changes import Changes
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.settings import ModelSettings, Tuning, UpstreamSettings
from gai_fast.providers import RESERVED, Target, get_provider, is_tuned
from gai_fast.providers.requests.tuning import without


def model_with(
    provider: str = "openai",
    *,
    defaults: dict[str, Any] | None = None,
    overrides: dict[str, Any] | None = None,
    upstream_extra: dict[str, Any] | None = None,
    quirks: dict[str, Any] | None = None,
    **more: Any,
) -> ModelSettings:
    tuning = Tuning(
        parse_request(json.dumps({"query": "-", **(defaults or {})}).encode()),
        tuple(defaults or ()),
        parse_request(json.dumps({"query": "-", **(overrides or {})}).encode()),
        tuple(overrides or ()),
        **more,
    )
    upstream = UpstreamSettings("u", provider, "", extra=upstream_extra or {}, quirks=quirks or {})
    return ModelSettings("m", upstream, "m1", tuning=tuning)


def native(model: ModelSettings, **fields: Any) -> tuple[Any, Changes]:
    target = Target("m1", "k", "error", {}, model)
    asked = parse_request(json.dumps({"query": "Hi", **fields}).encode())
    sent = get_provider(model.upstream.provider).build_request(asked, target)
    return json.loads(sent.body), target.changes


def passed(model: ModelSettings, **members: Any) -> tuple[Any, Changes]:
    target = Target("m1", "k", "error", {}, model)
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **members}
    sent = get_provider(model.upstream.provider).build_passthrough(body, target)
    return json.loads(sent.body), target.changes


class TestFields:
    def test_defaults_count_where_a_request_is_silent_and_overrides_always(self) -> None:
        model = model_with(defaults={"temperature": 0.5, "top_p": 0.5}, overrides={"seed": 1})
        for build in (native, passed):
            sent, _ = build(model, temperature=0, seed=7)
            assert (sent["temperature"], sent["top_p"], sent["seed"]) == (0, 0.5, 1)

    def test_objects_are_merged_member_by_member(self) -> None:
        model = model_with("openrouter", defaults={"reasoning": {"effort": "low"}}, overrides={"metadata": {"a": 1}})
        sent, _ = native(model, reasoning={"max_tokens": 2000}, metadata={"a": 0, "b": 2})
        assert sent["reasoning"] == {"effort": "low", "max_tokens": 2000}
        assert sent["metadata"] == {"a": 1, "b": 2}
        sent, _ = passed(model, reasoning={"max_tokens": 2000}, metadata={"a": 0, "b": 2})
        assert sent["reasoning"] == {"effort": "low", "max_tokens": 2000}
        assert sent["metadata"] == {"a": 1, "b": 2}

    def test_a_passed_body_gets_them_in_its_dialects_words(self) -> None:
        model = model_with("anthropic", defaults={"max_tokens": 9}, overrides={"stop": ["x"]})
        sent, _ = passed(model)
        assert (sent["max_tokens"], sent["stop_sequences"]) == (9, ["x"])
        assert passed(model, max_tokens=5)[0]["max_tokens"] == 5

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
    def test_another_name_of_a_member_counts_as_that_member(self, name: str) -> None:
        sent, _ = passed(model_with(defaults={"max_tokens": 9}), **{name: 5})
        assert [sent.get(each) for each in ("max_tokens", "max_completion_tokens")].count(5) == 1
        assert 9 not in sent.values()
        sent, _ = passed(model_with(overrides={"max_tokens": 9}), **{name: 5})
        assert [sent.get(each) for each in ("max_tokens", "max_completion_tokens")].count(9) == 1
        assert 5 not in sent.values()

    def test_a_null_of_the_client_stays_and_a_default_takes_its_place(self) -> None:
        sent, _ = passed(model_with(defaults={"seed": 1}), seed=None, user=None)
        assert (sent["seed"], sent["user"]) == (1, None)

    def test_no_default_comes_back_as_a_change_of_the_clients(self) -> None:
        assert not passed(model_with(defaults={"max_tokens": 9}))[1]


class TestRaw:
    def test_what_is_merged_later_wins(self) -> None:
        model = model_with(upstream_extra={"a": 1, "b": 1, "c": 1, "d": 1}, extra={"b": 2, "c": 2, "d": 2})
        sent, _ = native(model, provider_options={"openai": {"c": 3, "d": 3}}, extra={"d": 4})
        assert [sent[name] for name in "abcd"] == [1, 2, 3, 4]
        sent, _ = passed(model, b=9)
        assert [sent[name] for name in "abc"] == [1, 2, 2]

    def test_null_removes_and_tools_are_added(self) -> None:
        model = model_with(defaults={"seed": 1}, extra={"tools": [{"type": "x"}]})
        sent, _ = native(model, tools=[{"name": "f"}], extra={"seed": None, "tools": [{"type": "y"}]})
        assert "seed" not in sent
        assert [tool["type"] for tool in sent["tools"]] == ["function", "x", "y"]

    @pytest.mark.parametrize("name", RESERVED)
    def test_members_that_limits_depend_on_are_refused_in_every_raw_place(self, name: str) -> None:
        plain = ModelSettings("m", UpstreamSettings("u", "openai", ""), "m1")
        for fields, path in (
            ({"extra": {name: 2}}, "$.extra"),
            ({"provider_options": {"openai": {name: 2}}}, "$.provider_options.openai"),
        ):
            with pytest.raises(InvalidRequest) as refused:
                native(plain, **fields)
            assert refused.value.message.endswith(f"at `{path}.{name}`")
        assert not is_tuned(plain)


class TestDrop:
    def test_members_are_never_sent_and_reported(self) -> None:
        model = model_with(drop=("temperature", "tools[].function.strict", "reasoning.effort", "absent.more"))
        tool = {"type": "function", "function": {"name": "f", "strict": True}}
        body = {"temperature": 1, "tools": [tool, {"type": "x"}], "reasoning": {"effort": "low", "a": 1}}
        sent, changes = passed(model, **body)
        assert "temperature" not in sent
        assert sent["tools"] == [{"type": "function", "function": {"name": "f"}}, {"type": "x"}]
        assert sent["reasoning"] == {"a": 1}
        assert changes.dropped == ["temperature", "tools[0].function.strict", "reasoning.effort"]
        assert tool["function"] == {"name": "f", "strict": True}  # the client's own is sent to a fallback
        assert "temperature" not in native(model, temperature=1)[0]

    def test_a_path_through_other_types_changes_nothing(self) -> None:
        body = {"a": 1, "b": [1]}
        assert without(body, ["a.b", "b[].c", "c"], Changes()) == body


class TestQuirks:
    def test_a_server_that_is_nearly_compatible_gets_what_it_knows(self) -> None:
        quirks = {"max_tokens": "max_tokens", "developer_role": False, "stream_options": False, "strict": False}
        model = model_with("openai-compatible", quirks=quirks)
        tool = {"type": "function", "function": {"name": "f", "strict": True}}
        sent, changes = passed(
            model,
            messages=[{"role": "developer", "content": "a"}, {"role": "user", "content": "b"}],
            max_completion_tokens=5,
            stream_options={"include_usage": True},
            tools=[tool],
        )
        assert [message["role"] for message in sent["messages"]] == ["system", "user"]
        assert (sent["max_tokens"], "max_completion_tokens" in sent, "stream_options" in sent) == (5, False, False)
        assert sent["tools"][0]["function"] == {"name": "f"}
        assert changes.dropped == ["tools[0].function.strict"]

    def test_the_newer_name_of_the_bound(self) -> None:
        model = model_with("openai-compatible", quirks={"max_tokens": "max_completion_tokens"})
        assert native(model, max_tokens=5)[0]["max_completion_tokens"] == 5


def test_raw_members_of_an_upstream_select_the_dated_api_of_azure() -> None:
    model = model_with("azure", upstream_extra={"api_version": "2024-10-21"})
    request = get_provider("azure").build_request(
        parse_request(b'{"query":"Hi"}'), Target("m1", "k", "error", {}, model)
    )
    assert request.path == "/openai/deployments/m1/chat/completions?api-version=2024-10-21"
