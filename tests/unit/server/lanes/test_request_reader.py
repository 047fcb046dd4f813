"""Ordinary requests, and everything else for the general server; without sockets."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Sequence
from functools import partial
from itertools import repeat
from typing import Any, cast

import pytest
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError
from hypothesis import given, settings
from hypothesis import strategies as st

from gai_fast.server.http.replies import Reply
from gai_fast.server.http.request import HTTPRequest
from gai_fast.server.lanes.request_reader import (
    BODY,
    HAND_OVER,
    HEAD,
    NEED_DATA,
    REQUEST,
    KnownHeads,
    RequestReader,
)
from tests.limits import LIMITS
from tests.unit.server import incoming_requests

HOT = "/s"
MAX_BODY = 100
post = partial(incoming_requests.post, target=HOT)


def reader(
    *, refusals: Sequence[Reply | None] | None = None, max_body: int = MAX_BODY, recent: KnownHeads | None = None
) -> RequestReader:
    """Returns a reader that refuses nothing, or whose requests have these refusals."""
    answers = repeat(None) if refusals is None else iter(refusals)
    return RequestReader(
        incoming_requests.Remote(), frozenset((HOT,)), lambda request: next(answers), max_body, recent or KnownHeads()
    )


def described(request: HTTPRequest) -> tuple[Any, ...]:
    # A request whose head is known may lack the header of its body's length.
    headers = {"content-length": str(len(request.body)), **request.headers}
    return request.method, request.target, headers, request.body, request.is_http_1_1, request.keep_alive


def read(data: bytes, cuts: list[int], given: RequestReader | None = None) -> tuple[list[tuple[Any, ...]], Any, bytes]:
    """Returns all requests in these bytes, why there is no further one, and the bytes that are left."""
    made, requests, outcome = given or reader(), [], NEED_DATA
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        made.receive_data(data[start:stop])
        while outcome is NEED_DATA:
            found = made.next_request()
            if isinstance(found, HTTPRequest):
                requests.append(described(found))
                continue
            outcome = found
            break
        else:
            continue
    return requests, outcome, made.unread()


ORDINARY = {
    "a body": post(b"hello"),
    "no body": post(),
    "a query": post(b"x", target="/s?a=b&c=%20"),
    "more headers": post(b"x", "Accept: */*", 'X-Odd_name!: a, b;c="d"', "X-Empty:", "X-Blanks:   a b   "),
    "no blank missing the colon": post(b"x").replace(b": ", b":"),
    "upper case": post(b"x").replace(b"Host", b"HOST"),
    "keep-alive": post(b"x", "Connection: Keep-Alive"),
    "the last one": post(b"x", "Connection: close"),
    "the largest body": post(b"x" * MAX_BODY),
    "an empty line in the body": post(b"\r\n\r\nPOST /s"),
}


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_an_ordinary_request_is_the_same_however_it_is_cut_and_the_next_one_is_its_own(name: str, size: int) -> None:
    data = ORDINARY[name] + post(b"next")
    requests, outcome, left = read(data, [*range(size, len(data), size)])
    first, second = requests
    assert outcome is NEED_DATA
    assert left == b""
    assert first[0] == "POST"
    assert first[1].startswith(HOT)
    assert first[2]["host"] == "h"
    assert int(first[2]["content-length"]) == len(first[3])
    assert first[3] == ORDINARY[name].partition(b"\r\n\r\n")[2]
    assert first[5] is (name != "the last one")
    assert second[3] == b"next"
    assert read(ORDINARY[name], [])[0] == [first]


def test_headers_have_lower_case_names_and_no_blanks_around_their_values() -> None:
    ((_, target, headers, *_),), _, _ = read(ORDINARY["more headers"], [])
    assert target == HOT
    assert headers == {
        "host": "h",
        "content-length": "1",
        "accept": "*/*",
        "x-odd_name!": 'a, b;c="d"',
        "x-empty": "",
        "x-blanks": "a b",
    }


HANDED_OVER = {
    "another method": post(b"x").replace(b"POST", b"PUT"),
    "a method in lower case": post(b"x").replace(b"POST", b"post"),
    "another route": post(b"x", target="/other"),
    "a longer path": post(b"x", target="/s/"),
    "an encoded path": post(b"x", target="/%73"),
    "a fragment": post(b"x", target="/s?a#b"),
    "absolute-form": post(b"x", target="http://h/s"),
    "HTTP/1.0": post(b"x").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/2.0": post(b"x").replace(b"HTTP/1.1", b"HTTP/2.0"),
    "two blanks": post(b"x").replace(b"POST /s", b"POST  /s"),
    "a tab": post(b"x").replace(b"POST /s", b"POST\t/s"),
    "an empty line before": b"\r\n" + post(b"x"),
    "no host": post(b"x").replace(b"Host: h\r\n", b""),
    "two hosts": post(b"x", "Host: h"),
    "no length": post(b"x").replace(b"Content-Length: 1\r\n", b""),
    "an empty length": post(b"", length=""),
    "two lengths": post(b"x", "Content-Length: 1"),
    "a length with a comma": post(b"x", length="1, 1"),
    "a length with a sign": post(b"x", length="+1"),
    "a negative length": post(b"x", length="-0"),
    "a length with zeros": post(b"x", length="01"),
    "a length with a line": post(b"x", length="1_0"),
    "a hexadecimal length": post(b"x", length="0x1"),
    "a length beyond all": post(b"x", length="9" * 30),
    "a body that is too large": post(b"x" * (MAX_BODY + 1)),
    "chunks": post(b"0\r\n\r\n", "Transfer-Encoding: chunked"),
    "chunks without a length": post(b"0\r\n\r\n", "Transfer-Encoding: chunked").replace(b"Content-Length: 5\r\n", b""),
    "an expectation": post(b"x", "Expect: 100-continue"),
    "an upgrade": post(b"x", "Connection: Upgrade", "Upgrade: websocket"),
    "an upgrade without its connection": post(b"x", "Upgrade: websocket"),
    "another connection header": post(b"x", "Connection: close, x"),
    "a header twice": post(b"x", "X-A: 1", "x-a: 1"),
    "a folded header": post(b"x", "X-A: 1", " 2"),
    "a header without a colon": post(b"x", "X-A"),
    "a header without a name": post(b"x", ": x"),
    "a blank before the colon": post(b"x", "X-A : 1"),
    "a name that is none": post(b"x", "X[A]: 1"),
    "a control character": post(b"x", "X-A: \x01"),
    "a tab in a value": post(b"x", "X-A: a\tb"),
    "a line end alone": post(b"x", "X-A: 1\nX-B: 2"),
    "a carriage return alone": post(b"x", "X-A: 1\rX-B: 2"),
    "line ends alone": post(b"x").replace(b"\r\n", b"\n"),
    "a character that is not ASCII": post(b"x", "X-A: \u00e9"),
    "a name that is not ASCII": post(b"x", "X-\u00c5: 1"),
    "a head that is too large": post(b"x", "X-A: " + "x" * LIMITS.lane_head),
    "too many headers": post(b"x", *(f"X-{number}: 1" for number in range(LIMITS.request_headers))),
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", HANDED_OVER)
@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_any_other_request_is_handed_over_with_all_of_its_bytes(name: str, size: int) -> None:
    before, data = post(b"before"), HANDED_OVER[name] + post(b"missing")
    made = reader()
    fed = b""
    for start in range(0, len(before + data), size):
        piece = (before + data)[start : start + size]
        fed += piece
        made.receive_data(piece)
        found = made.next_request()
        while isinstance(found, HTTPRequest):
            assert found.body == b"before"
            found = made.next_request()
        if found is HAND_OVER:
            break
    assert found is HAND_OVER
    assert before + made.unread() == fed


@pytest.mark.parametrize("data", [b"GET /", b"P\r\n", b"POST /other HTTP/1.1\r\n", b"POST /s HTTP/1.0\r\n"])
def test_nothing_is_waited_for_that_cannot_become_ordinary(data: bytes) -> None:
    assert read(data, [])[1] is HAND_OVER


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", REQUEST),
        (b"P", HEAD),
        (post(b"x")[:-1], BODY),
        (post(b"x")[:-2], HEAD),
        (b"POST /s HTTP/1.1\r\nHost", HEAD),
        (post(b"x"), REQUEST),
    ],
)
def test_the_reader_tells_which_part_comes_next(data: bytes, part: Any) -> None:
    made = reader()
    read(data, [], made)
    assert made.part is part
    assert (made.request is not None) is (part is BODY)


def test_a_request_may_be_refused_by_its_head_alone_before_its_body_has_come() -> None:
    refusal = Reply(401)
    made = reader(refusals=[refusal])
    assert read(post(b"hello")[:-1], [], made)[1] is refusal
    assert made.request is not None
    assert len(read(post(b"hello"), [], reader(refusals=[]))[0]) == 1, "a whole request is the routes' alone"


def test_whether_a_head_is_refused_is_asked_once() -> None:
    data = post(b"hello")
    assert len(read(data, [len(data) - 3, len(data) - 1], reader(refusals=[None]))[0]) == 1


def test_a_body_that_comes_by_bytes_holds_little_more_than_its_size() -> None:
    made = reader(max_body=1 << 20)
    head = post(length=100_001)
    for byte in head + b"x" * 100_000:
        made.receive_data(bytes([byte]))
        assert made.next_request() is NEED_DATA
    assert made.body_size == 100_000
    assert made.size == len(head) + 100_000
    assert made._more.__sizeof__() < 130_000


def test_a_large_body_is_copied_once() -> None:
    size = 4 << 20
    made = reader(max_body=size)
    tracemalloc.start()
    try:
        made.receive_data(post(length=size))
        assert made.next_request() is NEED_DATA
        piece = b"x" * (1 << 16)
        for _ in range(size // len(piece) - 1):
            made.receive_data(piece)
            assert made.next_request() is NEED_DATA
        tracemalloc.reset_peak()
        made.receive_data(piece)
        found = made.next_request()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(found, HTTPRequest)
    assert found.body == b"x" * size
    assert made.size == 0
    assert peak < 2.5 * size


# ---- heads that come again -------------------------------------------------------------------------------------------

AGAIN = {
    "the same": [post(b"one"), post(b"two"), post(b"three and more"), post(b"")],
    "a length with zeros": [post(b"one"), post(b"two").replace(b": 3", b": 003"), post(b"x" * 10)],
    "another case": [post(b"one"), post(b"two").replace(b"Content-Length", b"content-LENGTH"), post(b"two")],
    "blanks": [post(b"one").replace(b": 3", b":   3 "), post(b"two").replace(b": 3", b":   3 "), post(b"two")],
    "other headers": [post(b"one", "X-A: 1"), post(b"two", "X-A: 1"), post(b"two", "X-A: 2"), post(b"two")],
    "more than one": [post(b"one"), post(b"two") + post(b"three"), post(b"two") + post(b"x"), post(b"two")],
    "a length that is none": [post(b"one"), post(b"two"), post(b"two").replace(b": 3", b": +3")],
    "a negative length": [post(b"one"), post(b"two"), post(b"two", length=-3)],
    "digits of another script": [post(b"one"), post(b"two"), post(b"two").replace(b": 3", b": \xd9\xa3")],
    "two lengths": [post(b"one"), post(b"two"), post(b"two", "Content-Length: 3")],
    "a length in a value": [post(b"one", "X: content-length: 9"), post(b"one", "X: content-length: 9"), post(b"two")],
    "a body that is too large": [post(b"one"), post(b"two"), post(b"x" * (MAX_BODY + 1))],
    "a long length": [post(b"one"), post(b"two"), post(b"two").replace(b": 3", b": " + b"0" * 10**6 + b"3")],
    "both framings": [post(b"one"), post(b"two"), post(b"two", "Transfer-Encoding: chunked")],
    "the last one": [post(b"one"), post(b"two"), post(b"two", "Connection: close"), post(b"two")],
    "a long head": [post(b"one", "X: " + "x" * LIMITS.known_head)] * 3,
}


@pytest.mark.parametrize("requests", AGAIN.values(), ids=AGAIN.keys())
def test_a_head_that_comes_again_is_taken_as_it_was_at_first(requests: list[bytes]) -> None:
    whole, cut = reader(), reader()
    for data in requests:
        # A request that comes in two reads is always parsed.
        at_once, in_two = read(data, [], whole), read(data, [1], cut)
        assert at_once == in_two
        if at_once[1] is HAND_OVER:
            break


def test_a_head_that_comes_again_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = reader()
    read(post(b"one"), [], made)
    monkeypatch.setattr("gai_fast.server.lanes.request_reader.read_head", None)
    assert read(post(b"and three"), [], made)[0][0][3] == b"and three"


def test_with_a_head_no_body_is_kept() -> None:
    made = reader()
    for _ in range(3):
        read(post(b"body"), [], made)
    assert made.size == 0
    assert not any(b"body" in getattr(made._known, name) for name in ("_before", "_after"))


@pytest.mark.parametrize("requests", AGAIN.values(), ids=AGAIN.keys())
def test_a_new_connection_takes_the_head_of_another_one_as_that_did(requests: list[bytes]) -> None:
    recent = KnownHeads()
    for data in requests:
        assert read(data, [], reader(recent=recent)) == read(data, [])


def test_a_new_connection_does_not_parse_the_head_of_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    recent = KnownHeads()
    one, other = reader(recent=recent), reader(recent=recent)
    read(post(b"one"), [], one)
    monkeypatch.setattr("gai_fast.server.lanes.request_reader.read_head", None)
    other.receive_data(post(b"and three"))
    request = other.next_request()
    assert isinstance(request, HTTPRequest)
    assert request.body == b"and three"
    assert request.transport is other._transport
    assert "content-length" not in request.headers, "it belongs to another request"


@pytest.mark.parametrize("secret", ["Authorization: Bearer s", "X-API-Key: s", "api-key: s", "Cookie: s"])
def test_a_head_with_a_secret_is_known_to_its_own_connection_alone(secret: str) -> None:
    recent = KnownHeads()
    made = reader(recent=recent)
    read(post(b"one", secret), [], made)
    assert made._known is not None
    assert recent.heads == []


def test_of_recent_heads_few_are_kept_the_newest_first_and_each_once() -> None:
    recent = KnownHeads()
    for number in (*range(LIMITS.known_heads + 3), LIMITS.known_heads + 2):
        # In two reads: a head that is known is parsed, too.
        read(post(b"body", f"X: {number}"), [30], reader(recent=recent))
    assert [head._headers["x"] for head in recent.heads] == [str(number) for number in range(6, 2, -1)]
    assert LIMITS.known_heads == 4


# ---- against the general server's parser -----------------------------------------------------------------------------


class Protocol:
    """The part of a protocol that aiohttp's parser calls."""

    _reading_paused = False

    def pause_reading(self) -> None: ...

    def resume_reading(self, resume_parser: bool = True) -> None: ...


def general(data: bytes) -> list[tuple[Any, ...]] | None:
    """Returns the requests that aiohttp reads from these bytes; `None` if it refuses any of them."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(cast(Any, Protocol()), loop, 1 << 16, max_line_size=8190, max_field_size=8190)
        messages, _, _ = parser.feed_data(data)
        requests = []
        for message, payload in messages:
            headers: dict[str, str] = {}
            for name, value in message.headers.items():
                key = name.lower()
                headers[key] = f"{headers[key]}, {value}" if key in headers else value
            body = b"".join(cast(Any, payload)._buffer) if hasattr(payload, "_buffer") else b""
            requests.append(
                (message.method, message.path, headers, body, message.version == (1, 1), not message.should_close)
            )
        return requests
    except HttpProcessingError:
        return None
    finally:
        loop.close()


ODD = [part for data in HANDED_OVER.values() if len(data) < 500 for part in data.split(b"\r\n")]
LINES = st.sampled_from(
    [b"Host: h", b"Content-Length: 3", b"Content-Length: 0", b"Accept: a/b", b"X-A:  b ", b"Connection: close", *ODD]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Requests, most of them ordinary but for a line or a byte."""
    lines = [b"POST /s HTTP/1.1", b"Host: h", b"Content-Length: 3", *draw(st.lists(LINES, max_size=3))]
    if draw(st.integers(0, 3)) == 0:
        lines[draw(st.integers(0, 2))] = draw(LINES)
    data = bytearray(b"\r\n".join(lines) + b"\r\n\r\n" + draw(st.sampled_from([b"abc", b"ab", b"abcPOST", b""])))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(0, 1))] = draw(st.binary(max_size=2))
    return bytes(data)


@settings(max_examples=5 * settings().max_examples)
@given(requests())
def test_no_request_is_read_otherwise_than_by_the_general_server(data: bytes) -> None:
    found, _, left = read(data, [])
    if found:
        assert general(data[: len(data) - len(left)]) == found


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_requests_are_the_same_to_the_general_server(name: str) -> None:
    assert general(ORDINARY[name]) == read(ORDINARY[name], [])[0]


@given(st.data())
def test_no_cut_changes_what_is_read(data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.sampled_from([*ORDINARY.values(), *HANDED_OVER.values()]), min_size=1, max_size=4))
    stream = b"".join(part for part in parts if len(part) < 500)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6).map(sorted))
    whole, cut = read(stream, []), read(stream, cuts)
    assert cut[:2] == whole[:2]
    assert cut[2] == whole[2]
