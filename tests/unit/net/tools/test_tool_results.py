"""`gai_fast/net/tools/tool_results.py`: texts, structured content, images, and bounds."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from gai_fast.kernels import encode_json
from gai_fast.net.tools.result_redaction import redacted
from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.net.tools.tool_results import ResultPart, ToolResult, read_result
from tests.limits import LIMITS

PIXEL = "iVBORw0KGgo="
IMAGE = {"type": "image", "data": PIXEL, "mimeType": "image/png"}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("result", "read"),
    [
        ({"content": [text("a"), text("b")]}, ToolResult("a\nb")),
        ({"content": []}, ToolResult("")),
        ({}, ToolResult("")),
        ({"content": [text("{}")], "structuredContent": {"a": [1]}}, ToolResult({"a": [1]})),
        ({"content": [], "structuredContent": None}, ToolResult(None)),
        ({"content": [], "structuredContent": nested(64)}, ToolResult(nested(64))),
        ({"content": [text("no")], "structuredContent": {"a": 1}, "isError": True}, ToolResult("no", is_error=True)),
        ({"content": [text("a")], "isError": 1}, ToolResult("a")),
        ({"content": [{"type": "resource_link", "uri": "file:///a"}]}, ToolResult("file:///a")),
        ({"content": [{"type": "resource", "resource": {"uri": "u", "text": "t"}}]}, ToolResult("t")),
        (
            {"content": [{"type": "resource", "resource": {"uri": "u", "blob": "AA==", "mimeType": "a/b"}}]},
            ToolResult("u a/b"),
        ),
        (
            {"content": [text("a"), IMAGE]},
            ToolResult("a", (ResultPart("text", "a"), ResultPart("image", PIXEL, "image/png"))),
        ),
        (
            {"content": [{**IMAGE, "type": "audio", "mimeType": "audio/wav"}], "structuredContent": 1},
            ToolResult(1, (ResultPart("audio", PIXEL, "audio/wav"),)),
        ),
        (
            {"content": [text("a\ud800"), IMAGE]},
            ToolResult("a?", (ResultPart("text", "a?"), ResultPart("image", PIXEL, "image/png"))),
        ),
        ({"content": [], "structuredContent": {"\ud800": ["\udfff"]}}, ToolResult({"\ufffd": ["\ufffd"]})),
    ],
    ids=range(15),
)
def test_a_result_is_read(result: dict[str, Any], read: ToolResult) -> None:
    assert read_result(result) == read


def test_a_result_is_cut() -> None:
    assert read_result({"content": [text("aé")]}, 2) == ToolResult("a", is_truncated=True)
    assert read_result({"content": [], "structuredContent": {"a": 1}}, 3) == ToolResult('{"a', is_truncated=True)
    assert read_result({"content": [text("abc"), IMAGE]}, 10) == ToolResult("abc", is_truncated=True)
    both = {"content": [IMAGE, text("abc"), text("d")], "structuredContent": "s"}
    parts = (ResultPart("image", PIXEL, "image/png"), ResultPart("text", "ab"))
    assert read_result(both, len(PIXEL) + 5) == ToolResult("s", parts, is_truncated=True)
    cut = read_result({"content": [text("a"), IMAGE, IMAGE]}, len(PIXEL) + 1)
    assert cut == ToolResult("a", (ResultPart("text", "a"), ResultPart("image", PIXEL, "image/png")), False, True)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"content": {}}, "its result has no list of content"),
        ({"content": ["a"]}, "its result has no list of content"),
        ({"content": [{"type": "text"}]}, "a part of its result is of no known form"),
        ({"content": [{"type": "video"}]}, "a part of its result is of no known form"),
        ({"content": [{"type": []}]}, "a part of its result is of no known form"),
        ({"content": [{**IMAGE, "mimeType": "image/png\r\nx: y"}]}, "a part of its result is of no known form"),
        ({"content": [{**IMAGE, "data": "no base64!"}]}, "an image of its result is not in Base64"),
        ({"resultType": "input_required", "inputRequests": {}}, "it asks for input before it answers"),
        ({"resultType": "task"}, "its result is of a type that this client does not know"),
        ({"content": [], "structuredContent": nested(65)}, "its result is JSON that is nested too deep"),
    ],
)
def test_what_is_no_result_is_refused(result: dict[str, Any], reason: str) -> None:
    with pytest.raises(ToolServerError, match=reason):
        read_result(result)


def test_secrets_are_cut_out_before_a_result_is_cut() -> None:
    secrets = {b"sk-canary-0123", b"sk-canary"}
    both = {"content": [text("a sk-canary-0123")], "structuredContent": {"sk-canary": ["sk-canary-0123", 1]}}
    assert read_result(both, secrets=secrets) == ToolResult({"***": ["***", 1]})
    assert read_result({"content": [text("a sk-canary-0123 b"), IMAGE]}, secrets=secrets).parts == (
        ResultPart("text", "a *** b"),
        ResultPart("image", PIXEL, "image/png"),
    )
    assert read_result({"content": [text("a sk-canary-0123 b")]}, 6, secrets) == ToolResult("a *** ", is_truncated=True)
    structured = {"content": [], "structuredContent": ["sk-canary-0123"]}
    assert read_result(structured, 5, secrets) == ToolResult('["***', is_truncated=True)


@pytest.mark.parametrize("is_structured", [False, True])
def test_of_a_large_result_no_more_is_searched_than_can_be_kept(
    monkeypatch: pytest.MonkeyPatch, is_structured: bool
) -> None:
    searched: list[int] = []

    def noted(value: Any, secrets: Collection[bytes]) -> Any:
        searched.append(len(encode_json(value)))
        return redacted(value, secrets)

    monkeypatch.setattr("gai_fast.net.tools.tool_results.redacted", noted)
    texts = [text("x" * 1000 + "sk-canary-0123"), text("y" * 5_000_000), *[text("z" * 100)] * 1000]
    result = {"content": texts, **({"structuredContent": [each["text"] for each in texts]} if is_structured else {})}
    found = read_result(result, 2000, {b"sk-canary-0123"})
    assert (found.is_truncated, "***" in found.value, "sk-" in found.value) == (True, True, False)
    assert 1900 < len(found.value) <= 2000
    assert sum(searched) < 8000, "the texts are read once, to what is kept"


@pytest.mark.parametrize("most", range(1, 60))
def test_no_cut_leaves_a_part_of_a_secret(most: int) -> None:
    secret = "sk-canary-0123"
    for content in ([text(secret * 5)], [text(secret), text("a" + secret * 3)], [text("ab" * most + secret)]):
        value = read_result({"content": content}, most, {secret.encode()}).value
        assert "sk" not in value.replace("***", "")
        of_json = read_result({"content": [], "structuredContent": content}, most, {secret.encode()}).value
        assert "sk" not in str(of_json)


def test_a_result_with_images_has_a_bounded_number_of_parts() -> None:
    many = [text("a"), IMAGE, *[text("b")] * 100_000]
    read = read_result({"content": many}, 1 << 20)
    assert [part.kind for part in read.parts] == ["text", "image"]
    assert read.is_truncated
    images = read_result({"content": [IMAGE] * 2000}, 1 << 20)
    assert len(images.parts) == LIMITS.result_parts
    assert images.is_truncated
    assert not read_result({"content": [text("b")] * 100_000}, 1 << 20).is_truncated
