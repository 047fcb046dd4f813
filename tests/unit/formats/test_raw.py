"""`gai_fast/formats/raw.py`: the upstream's bytes, and an end that only those tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gai_fast.core.legal_stream import State
from gai_fast.core.relay import Relay
from gai_fast.core.sinks import Inexpressible
from gai_fast.formats import get_format
from gai_fast.model.events import Event
from gai_fast.model.upstream_errors import for_client
from gai_fast.providers import get_provider
from tests.kernels import cuts
from tests.unit.formats.relays import received, relay_to
from tests.unit.formats.streams import DONE, ERROR, NOT_DONE, START, context, finish, text

RAW = get_format("raw")
FIXTURES = Path(__file__).parents[2] / "corpus/fixtures"
CHAT = (
    b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n: ping\n\n'
    b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hi"}}]}\r\n\r\n'
    b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
TOLD = b'data: {"error":{"message":"broke","code":"server_error"}}\n\n'


def relayed(provider: str, chunks: list[bytes]) -> tuple[bytes, Relay]:
    """Returns the bytes for a client."""
    sink: Any = RAW.encoder("sse", context())
    relay = relay_to(sink, provider)
    return received(relay, sink, chunks), relay


def test_its_form() -> None:
    assert (RAW.framings, RAW.media_type("sse"), RAW.copies_upstream) == (("sse",), "text/plain; charset=utf-8", True)


@pytest.mark.parametrize(
    ("pieces", "media_type"),
    [
        ([b'{"a": 1}'], "application/json"),
        ([b" \r\n[1]"], "application/json"),
        ([b'{"a": 1}\n', b'{"a": 2}\n'], "text/plain; charset=utf-8"),
        ([b"data: {}\n\n"], "text/plain; charset=utf-8"),
        ([], "text/plain; charset=utf-8"),
    ],
)
def test_a_whole_body_is_labelled_as_what_it_is(pieces: list[bytes], media_type: str) -> None:
    assert RAW.whole_media_type(pieces) == media_type


def test_every_byte_is_passed_on_however_they_were_cut() -> None:
    for chunks in cuts(CHAT):
        body, relay = relayed("openai", chunks)
        assert body == CHAT
        assert (relay.state, relay.is_cut, relay.error) == (State.CLOSED, False, None)


def fixtures() -> Iterator[tuple[str, bytes]]:
    for provider in ("anthropic", "openai", "gemini", "ollama", "cohere"):
        for body in sorted((FIXTURES / provider).glob("*.*")):
            if body.suffix in (".sse", ".ndjson"):
                yield provider, body.read_bytes()


@pytest.mark.parametrize(("provider", "body"), [*fixtures()], ids=lambda value: value if isinstance(value, str) else "")
def test_answers_of_every_dialect(provider: str, body: bytes) -> None:
    said, relay = relayed(provider, [body])
    assert (relay.fault, relay.awaits_tail) == (None, False)
    assert body == said or (relay.is_cut and body.startswith(said))


BEHIND = b'data: {"late":"\xc3\xa9"}\r\n\r\n: bye\n\ndata: [DONE]\n\nunfinished'


def test_what_follows_the_end_of_the_upstream_belongs_to_its_body() -> None:
    for end in (b"", TOLD):
        body = (CHAT[: CHAT.index(b": ping")] + end if end else CHAT) + BEHIND
        for chunks in cuts(body):
            said, relay = relayed("openai", chunks)
            assert said == body
            assert (relay.fault, relay.is_cut, relay.error is not None) == (None, False, bool(end))


def test_an_end_without_its_last_blank_line_is_as_it_came() -> None:
    assert relayed("openai", [CHAT.rstrip()])[0] == CHAT.rstrip()


def test_an_error_behind_the_end_that_clients_may_not_see_is_left_out() -> None:
    secret = b'data: {"error":{"message":"Incorrect API key sk-canary","code":"invalid_api_key"}}\n\n'
    sink: Any = RAW.encoder("sse", context())
    adapter = get_provider("openai").adapter("m")
    relay = Relay(adapter, sink, deltas=sink, frames=sink, redact=lambda error, _: for_client(error, "up"))
    relay.receive_data(CHAT + secret + TOLD, 1)
    relay.receive_data(secret + b"data: {\n\n", 1)
    relay.receive_eof(None, 1)
    assert sink.take() == CHAT + TOLD + b"data: {\n\n"


def test_an_event_behind_the_end_that_is_too_large_ends_the_body() -> None:
    sink: Any = RAW.encoder("sse", context())
    relay = Relay(get_provider("openai").adapter("m"), sink, deltas=sink, frames=sink)
    relay.receive_data(CHAT + b"data: 1\n\n", 1)
    assert relay.awaits_tail
    for _ in range(9):
        relay.receive_data(b"x" * 1024 * 1024, 1)
    assert (sink.take(), relay.awaits_tail, relay.fault) == (CHAT + b"data: 1\n\n", False, None)


def test_a_fault_behind_the_end_is_kept() -> None:
    sink: Any = RAW.encoder("sse", context())
    relay = Relay(get_provider("openai").adapter("m"), sink, deltas=sink, frames=sink)
    relay.receive_data(CHAT, 1)
    relay.break_off(fault := RuntimeError("a bug"))
    assert (relay.fault, relay.awaits_tail, relay.error) == (fault, False, None)


def test_a_whole_answer_is_one_frame() -> None:
    body = b'{"id":"c","choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}]}'
    said, relay = relayed("openai", [body[:20], body[20:]])
    assert (said, relay.is_cut) == (body, False)


def test_an_answer_that_breaks_is_cut() -> None:
    said, relay = relayed("openai", [CHAT[:200]])
    assert said == CHAT[: CHAT.index(b"\r\n\r\n") + 4]
    assert relay.is_cut
    assert relay.fault is None
    assert relay.error is not None
    assert relay.error.reason == "truncated"


def test_an_error_that_the_upstream_tells_itself_is_an_end() -> None:
    body = CHAT[: CHAT.index(b": ping")] + TOLD
    said, relay = relayed("openai", [body])
    assert said == body
    assert relay.error is not None
    assert not relay.is_cut


def test_a_cancelled_answer_is_cut_where_it_has_begun() -> None:
    sink: Any = RAW.encoder("sse", context())
    relay = Relay(get_provider("openai").adapter("m"), sink, deltas=sink, frames=sink)
    relay.receive_data(CHAT[:200], 1)
    relay.stop("cancelled")
    assert (relay.is_cut, relay.fault, relay.error) == (True, None, None)
    unbegun = Relay(get_provider("openai").adapter("m"), RAW.encoder("sse", context()))
    unbegun.stop("cancelled")
    assert not unbegun.is_cut


def test_an_upstream_that_cancelled_has_said_so() -> None:
    sink = RAW.encoder("sse", context())
    sink.event(finish("cancelled", finish_reason_raw="cancelled"))
    assert sink.take() == b""


@pytest.mark.parametrize("event", [START, text("Hi"), finish(), DONE, NOT_DONE], ids=lambda event: event["type"])
def test_events_write_nothing(event: Event) -> None:
    sink = RAW.whole(context())
    sink.event(event)
    sink.heartbeat()
    assert sink.take() == b""


def test_an_error_without_a_frame_has_no_word() -> None:
    with pytest.raises(Inexpressible):
        RAW.encoder("sse", context()).event(ERROR)


def test_what_is_void_is_dropped_of_a_whole_answer() -> None:
    sink: Any = RAW.whole(context())
    sink.frame(b"void", last=False)
    sink.event({"type": "stream.reset", "reason": "network"})
    sink.append_frames(b"{}", 1)
    assert (sink.take(), sink.seq, list(sink.delta_parts(text("a"), "text"))) == (b"{}", 0, [])
