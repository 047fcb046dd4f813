"""Files by address, files that a provider stores, and video: each provider's own form, or a refusal by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.errors import InvalidRequest, Unsupported
from gai_fast.providers import Target, get_provider
from tests.requests.targets import TARGETS

URL = "https://a.example/a.pdf"
AT = {"type": "file", "url": URL, "media_type": "application/pdf"}
VIDEO = {"type": "video", "url": "https://a.example/v.mp4", "media_type": "video/mp4"}
CLIP = {"type": "video", "data": "AAAA", "media_type": "video/mp4"}


def stored(provider: str) -> dict[str, Any]:
    return {"type": "file", "file_id": "file_1", "provider": provider}


def sent(provider: str, part: dict[str, Any], *, is_judged: bool = True, **fields: Any) -> dict[str, Any]:
    """Returns the body for a user's message with this part, which the types of the provider's SDK accept."""
    request = {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "Read."}]}], **fields}
    built = get_provider(provider).build_request(parse_request(json.dumps(request).encode()), Target("model-1"))
    body: dict[str, Any] = json.loads(built.body)
    types = next(each for each in TARGETS if each.provider == provider).types()
    assert not is_judged or types.problems(body) == []
    return body


FORMS = [
    ("anthropic", AT, {"type": "document", "source": {"type": "url", "url": URL}}),
    ("anthropic", stored("anthropic"), {"type": "document", "source": {"type": "file", "file_id": "file_1"}}),
    ("openai:responses", AT, {"type": "input_file", "file_url": URL}),
    ("openai:responses", stored("openai"), {"type": "input_file", "file_id": "file_1"}),
    ("openai", stored("openai"), {"type": "file", "file": {"file_id": "file_1"}}),
    ("gemini", AT, {"fileData": {"mimeType": "application/pdf", "fileUri": URL}}),
    ("gemini", stored("gemini"), {"fileData": {"fileUri": "file_1"}}),
    ("gemini", VIDEO, {"fileData": {"mimeType": "video/mp4", "fileUri": "https://a.example/v.mp4"}}),
    ("gemini", CLIP, {"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}}),
    ("mistral", AT, {"type": "document_url", "document_url": URL}),
]


@pytest.mark.parametrize(("provider", "part", "form"), FORMS)
def test_a_file_has_the_providers_form(provider: str, part: dict[str, Any], form: dict[str, Any]) -> None:
    body = sent(provider, part)
    turn = body.get("messages") or body.get("contents") or body["input"]
    assert (turn[0].get("content") or turn[0]["parts"])[0] == form


@pytest.mark.parametrize("provider", ["openrouter", "openai-compatible"])
@pytest.mark.parametrize(("part", "url"), [(VIDEO, VIDEO["url"]), (CLIP, "data:video/mp4;base64,AAAA")])
def test_video_in_the_chat_dialect(provider: str, part: dict[str, Any], url: str) -> None:
    body = sent(provider, part, is_judged=False)
    assert body["messages"][0]["content"][0] == {"type": "video_url", "video_url": {"url": url}}


@pytest.mark.parametrize(
    ("provider", "part", "what"),
    [
        ("openai", AT, "a file by its address"),
        ("anthropic", {**AT, "media_type": "text/csv"}, "a file by its address"),
        ("cohere", AT, "a file by its address"),
        ("ollama", AT, "file"),
        ("anthropic", stored("openai"), "a file of openai"),
        ("openai:responses", stored("anthropic"), "a file of anthropic"),
        ("openai", stored("gemini"), "a file of gemini"),
        ("gemini", stored("openai"), "a file of openai"),
        ("mistral", stored("openai"), "a file of openai"),
        ("anthropic", VIDEO, "video parts in user messages"),
        ("openai", CLIP, "video parts in user messages"),
        ("openai:responses", CLIP, "video parts in user messages"),
    ],
)
def test_what_a_provider_cannot_take_is_refused_by_name(provider: str, part: dict[str, Any], what: str) -> None:
    with pytest.raises(Unsupported, match=rf"`messages\[0\].content\[0\]`: {what}"):
        sent(provider, part)


RESULT = {"role": "tool", "call_id": "c", "content": [{"type": "text", "text": "Here."}, AT]}


@pytest.mark.parametrize("provider", ["anthropic", "openai:responses", "gemini"])
def test_a_result_may_hold_files(provider: str) -> None:
    call = {"type": "tool_call", "call_id": "c", "name": "f", "input": {}}
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": [call]}, RESULT]
    request = parse_request(json.dumps({"messages": messages, "tools": [{"name": "f"}]}).encode())
    body = json.loads(get_provider(provider).build_request(request, Target("model-1")).body)
    assert next(each for each in TARGETS if each.provider == provider).types().problems(body) == []
    assert URL in json.dumps(body)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ({"type": "file"}, "a file needs one of `data`, `url` or `file_id` - at `$.messages[0].content[0]`"),
        ({**AT, "data": "AAAA"}, "a file needs one of"),
        ({**AT, "file_id": "f", "provider": "openai"}, "a file needs one of"),
        ({"type": "file", "data": "AAAA"}, "missing required field `media_type`"),
        ({"type": "file", "file_id": "f"}, "`file_id` and `provider` need each other"),
        ({**AT, "provider": "openai"}, "`file_id` and `provider` need each other"),
        ({"type": "video"}, "a video needs one of `data` or `url`"),
        ({"type": "video", "data": "AAAA"}, "missing required field `media_type`"),
        ({**CLIP, "url": URL}, "a video needs one of `data` or `url`"),
        ({"type": "video", "url": 5}, "Expected `str`, got `int`"),
    ],
)
def test_a_file_has_one_source(part: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request(json.dumps({"messages": [{"role": "user", "content": [part]}]}).encode())
    assert text in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://generativelanguage.googleapis.com/v1beta/files/another-callers",
        " HTTPS://GenerativeLanguage.googleapis.com/v1beta/files/another-callers",
        "gs://bucket/secret.pdf",
        "files/another-callers",
    ],
)
@pytest.mark.parametrize("kind", ["file", "video", "image"])
def test_an_address_of_a_stored_file_is_refused_because_only_ids_are_checked(kind: str, url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"messages\[0\].content\[0\].url.*file_id"):
        sent("gemini", {"type": kind, "url": url})


def test_a_file_at_an_address_has_a_name_without_a_dot() -> None:
    part = sent("openrouter", {"type": "file", "url": URL}, is_judged=False)["messages"][0]["content"][0]
    assert part["file"]["filename"] == "file"
