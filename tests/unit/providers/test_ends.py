"""How an answer ends, for every adapter alike: its end mark comes, is missing, comes late or twice; several choices."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.library.decoding import decode
from gai_fast.providers import Target, get_provider
from tests.unit.providers.upstreams import PROVIDERS, dialect, end_mark, ending, frames, opening

_FOREIGN: dict[str, list[Any]] = {
    "chat": ["[DONE]"],
    "completions": ["[DONE]"],
    "responses": ["[DONE]"],
    "anthropic": [{"type": "message_stop"}],
    "cohere": ["[DONE]"],
    "gemini": ["[DONE]"],
}
"""End marks that servers of a dialect send, or proxies in front of them."""
MARKED = [name for name in PROVIDERS if dialect(name) in _FOREIGN]


def events_of(provider: str, *chunks: Any) -> list[Any]:
    return [
        {key: value for key, value in event.items() if key not in ("ts", "request_id")}
        for event in decode(provider, frames(provider, list(chunks)))
    ]


def kinds(events: list[Any]) -> list[str]:
    return [event["type"] for event in events]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_answer_whose_end_mark_is_missing_is_whole_after_its_finish_reason(provider: str) -> None:
    events = events_of(provider, *opening(provider), *ending(provider, "stop"))
    assert kinds(events) == ["start", "text.delta", "finish", "done"]
    assert events[2]["finish_reason"] == "stop"


@pytest.mark.parametrize("comment", ["", ": OPENROUTER PROCESSING", ": keepalive", "ping"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_data_that_is_a_comment_changes_nothing(provider: str, comment: str) -> None:
    begin, end = opening(provider), [*ending(provider, "stop"), *end_mark(provider)]
    beside = [comment] * 3
    expected = events_of(provider, *begin, *end)
    assert events_of(provider, *beside, *begin, *beside, *end, *beside) == expected


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_answer_without_a_finish_reason_and_an_end_mark_is_cut_off(provider: str) -> None:
    events = events_of(provider, *opening(provider))
    assert kinds(events) == ["start", "text.delta", "error", "done"]
    assert (events[2]["error"]["code"], events[2]["error"]["reason"]) == ("network", "truncated")


@pytest.mark.parametrize("provider", MARKED)
def test_an_end_mark_that_comes_once_twice_or_late_changes_nothing(provider: str) -> None:
    whole = [*opening(provider), *ending(provider, "stop")]
    expected = events_of(provider, *whole, *end_mark(provider))
    for mark in _FOREIGN[dialect(provider)]:
        for after in ([mark], [mark, mark], [mark, *whole], [mark, {"type": "ping"}, mark], [mark, "[DONE]"]):
            assert events_of(provider, *whole, *after) == expected, after


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_finish_reason_that_comes_twice_ends_the_answer_once(provider: str) -> None:
    events = events_of(
        provider, *opening(provider), *ending(provider, "stop"), *ending(provider, "stop"), *end_mark(provider)
    )
    assert kinds(events) == ["start", "text.delta", "finish", "done"]


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if dialect(name) in ("chat", "completions", "gemini")])
def test_an_answer_is_complete_once_all_choices_that_were_asked_for_have_their_reason(provider: str) -> None:
    """A choice that has not begun yet may be the slower one."""
    adapter = get_provider(provider).adapter()
    adapter.wanted_choices = 2
    (end,) = ending(provider, "stop")
    for chunk in (*opening(provider), end):
        adapter.receive("", json.dumps(chunk))
    assert not adapter.is_complete
    adapter.receive("", json.dumps(end).replace('"index": 0', '"index": 1'))
    assert adapter.is_complete


@pytest.mark.parametrize(
    ("provider", "body", "wanted"),
    [
        ("openai", {}, 1),
        ("openai", {"n": 2}, 2),
        ("openai", {"n": "many"}, 1),
        ("openai:completions", {"prompt": "a", "n": 2}, 2),
        ("openai:completions", {"prompt": ["a", "b"], "n": 2}, 4),
        ("openai:completions", {"prompt": [1, 2, 3]}, 1),
        ("openai:completions", {"prompt": [[1, 2], [3]]}, 2),
        ("gemini", {"generationConfig": {"candidateCount": 3}}, 3),
        ("gemini", {"generationConfig": None}, 1),
        ("anthropic", {"max_tokens": 5}, 1),
    ],
)
def test_a_body_tells_how_many_choices_it_wants(provider: str, body: Any, wanted: int) -> None:
    assert get_provider(provider).wanted_choices(body) == wanted


@pytest.mark.parametrize(
    ("options", "extra", "wanted"),
    [
        ({"topK": 1}, {"candidateCount": 3}, 3),
        ({"candidateCount": 3}, {"topK": 1}, 3),
        ({"candidateCount": 3}, {"candidateCount": None}, 1),
    ],
)
def test_raw_members_of_a_native_request_tell_it_too(
    options: dict[str, Any], extra: dict[str, Any], wanted: int
) -> None:
    """If one choice was requested, the end of the first choice ends the answer."""
    given, raw = ({"generationConfig": each} for each in (options, extra))
    asked = parse_request(json.dumps({"query": "Hi", "provider_options": {"gemini": given}, "extra": raw}).encode())
    api = get_provider("gemini")
    sent = json.loads(api.build_request(asked, Target("m")).body)
    assert (api.wanted_choices(asked), sent["generationConfig"].get("candidateCount", 1)) == (wanted, wanted)
