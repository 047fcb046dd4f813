"""The kind of a response's body, cut anywhere."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from gai_fast.core.body import Body, BodyKind
from gai_fast.model.errors import Error
from tests.conftest import ChangeLimits
from tests.unit.core.test_relay import FakeAPI


class ArrayAPI(FakeAPI):
    answers_in_arrays = True


def body(framing: Literal["sse", "ndjson"] = "sse", *, arrays: bool = False) -> Body:
    return Body(ArrayAPI(framing) if arrays else FakeAPI(framing))


SAID = b"\xef\xbb\xbf \r\n"


@pytest.mark.parametrize("before", [b"", b"\n", b" \t\r\n", b"\xef\xbb\xbf", SAID])
@pytest.mark.parametrize(
    ("made", "data", "kind", "is_array"),
    [
        (body, b"data: {}\n\n", BodyKind.STREAM, False),
        (body, b": comment\n\n", BodyKind.STREAM, False),
        (body, b'{"a":1}', BodyKind.WHOLE, False),
        (body, b"[1]", BodyKind.WHOLE, False),
        (lambda: body("ndjson"), b'{"a":1}\n', BodyKind.STREAM, False),
        (lambda: body(arrays=True), b"[{}]", BodyKind.STREAM, True),
        (lambda: body(arrays=True), b"{}", BodyKind.WHOLE, False),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_the_first_byte_that_is_not_blank_decides(
    before: bytes, made: Any, data: bytes, kind: BodyKind, is_array: bool, size: int
) -> None:
    one, sent = made(), before + data
    frames = b"".join(one.feed(sent[at : at + size]) for at in range(0, len(sent), size))
    assert (one.kind, one.is_array) == (kind, is_array)
    # What is a stream is given out as it came, everything else is collected.
    assert (frames or one.collected) == sent


@pytest.mark.parametrize("before", [b"", SAID])
def test_markup_is_refused(before: bytes) -> None:
    with pytest.raises(Error, match="HTML or XML") as caught:
        body().feed(before + b"<html>")
    assert (caught.value.code, caught.value.reason) == ("provider_unavailable", "content_type")


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/event-stream; charset=utf-8",
        "application/json",
        "a/problem+json",
        "application/json, text/event-stream",
        "text/event-stream,text/event-stream",
        "text/event-stream; charset=utf-8, application/json; charset=utf-8",
        'text/plain; note="a, b", TEXT/EVENT-STREAM',
    ],
)
def test_these_may_be_streams_or_json(content_type: str) -> None:
    one = body()
    one.receive_head(200, {"content-type": content_type})
    assert one.kind is BodyKind.UNKNOWN


@pytest.mark.parametrize(
    ("status", "content_type", "reason"),
    [
        (302, "", "redirect"),
        (200, "text/plain", "content_type"),
        (200, "text/plain, image/png", "content_type"),
        (200, ", text/html", "content_type"),
    ],
)
def test_a_redirect_and_a_foreign_content_type_are_refused(status: int, content_type: str, reason: str) -> None:
    with pytest.raises(Error) as caught:
        body().receive_head(status, {"content-type": content_type})
    assert caught.value.reason == reason


def test_an_error_body_is_read_up_to_its_limit_whatever_it_holds(change_limits: ChangeLimits) -> None:
    change_limits(error_body=5)
    one = body()
    one.receive_head(500, {"content-type": "text/html"})
    assert one.feed(b"<htm") == b""
    assert not one.is_full
    assert one.feed(b"l>and more") == b""
    assert (one.is_full, one.collected) == (True, b"<html")


def test_a_document_and_blanks_without_end_are_refused(change_limits: ChangeLimits) -> None:
    change_limits(whole_answer=5, event=5)
    whole, blank = body(), body()
    whole.feed(b"{    ")
    blank.feed(b"     ")
    with pytest.raises(Error) as caught:
        whole.feed(b" ")
    assert caught.value.reason == "answer_too_large"
    with pytest.raises(Error) as caught:
        blank.feed(b" ")
    assert caught.value.reason == "event_too_large"


def test_nothing_of_an_ignored_body_is_kept_or_given_out() -> None:
    one = body()
    one.kind = BodyKind.IGNORED
    assert (one.feed(b"data: x\n\n"), one.collected) == (b"", b"")


def test_the_error_of_a_body_has_its_status_and_headers() -> None:
    one = body()
    one.receive_head(429, {"retry-after": "7"})
    one.feed(b'{"error": {"message": "Slow down"}}')
    error = one.error(None)
    assert (error.code, error.message, error.retry_after_ms) == ("rate_limited", "Slow down", 7000)


def test_the_text_of_a_body_has_no_mark_and_no_blanks_around_it() -> None:
    one = body()
    one.feed(SAID + b'{"a": "\xff"}\n')
    assert one.text() == '{"a": "\ufffd"}'
