"""A stream's shortcut: nothing tells a stream that takes it from one that takes the long way."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast._impl import IMPLEMENTATION, Turn
from gai_fast.errors import Error
from gai_fast.formats import StreamContext, get_format
from gai_fast.limits import LIMITS
from gai_fast.metrics import StreamMetrics
from gai_fast.net.retry import RetryPolicy
from gai_fast.net.session import Call, Clock, Session
from gai_fast.net.upstream import Exchange, Timeouts, UpstreamConnection
from gai_fast.net.writer import ResponseWriter
from gai_fast.providers import get_provider
from gai_fast.reading import parse_request
from gai_fast.settings import ModelSettings, Settings, StreamSettings, UpstreamSettings
from tests.kernels import cuts
from tests.unit.net.fakes import FakeTime

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
CLIENT_HEAD = b"head\r\n\r\n"


class Leg(ResponseWriter):
    """The client's leg, and what reached its connection; it may have no shortcut to it."""

    def __init__(self, *, shortens: bool) -> None:
        self.pieces: list[bytes] = []
        self.failure: Error | None = None
        self.is_direct = 0
        self.is_broken = False
        super().__init__(self.pieces.append, chunked=True)
        self._shortens = shortens

    @property
    def direct(self) -> Callable[[bytes], None] | None:
        send = super().direct
        return self._send_directly if send is not None and self._shortens else None

    def _send_directly(self, data: bytes) -> None:
        if self.is_broken:
            raise ZeroDivisionError
        self.is_direct += 1
        self.pieces.append(data)

    def commit(self) -> None:
        self.start(CLIENT_HEAD)

    def fail(self, error: Error) -> None:
        self.failure = error

    @property
    def body(self) -> bytes:
        """Without the chunks' framing."""
        rest = b"".join(self.pieces).removeprefix(CLIENT_HEAD)
        body = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            body += rest[: int(size, 16)]
            assert rest[int(size, 16) :].startswith(b"\r\n")
            rest = rest[int(size, 16) + 2 :]
        return body


class Wire:
    """The transport of an upstream's connection, and its pool."""

    aborted = False

    def write(self, data: bytes) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True

    def connection_made(self, connection: UpstreamConnection) -> None: ...

    def connection_free(self, connection: UpstreamConnection) -> None: ...

    def connection_lost(
        self, connection: UpstreamConnection, exchange: Exchange | None, exc: Exception | None
    ) -> None: ...


class Stream:
    """An upstream's bytes in, a client's bytes out; both legs are the real ones, without sockets.

    Args:
        provider: Whose frames come.
        passes: They are passed on as they are; otherwise `format` and `framing` say what becomes of them.
        shortens: There may be a shortcut.
        turns: A read waits for the others of its turn; here it is alone in it.
        stream: Settings of the stream.
    """

    def __init__(
        self,
        provider: str = "openai-compatible",
        *,
        format: str = "gai",
        framing: Any = "sse",
        passes: bool = False,
        shortens: bool = True,
        turns: bool = False,
        timestamps: bool = False,
        **stream: Any,
    ) -> None:
        self.time = FakeTime()
        self.timers = self.time
        self.settings = Settings()
        self.policy = RetryPolicy()
        self.provider = provider
        self.figures: StreamMetrics | None = None
        self.leg = Leg(shortens=shortens)
        self.turn = Turn(self.time.call_soon, self.time.clock) if turns else None
        upstream = UpstreamSettings("up", provider, "http://x", retries=0)
        clock = Clock(lambda: 1_000 + int(self.time.now * 1000))
        context = StreamContext("strm_1", "req_1", None, "m", clock, timestamps=timestamps)
        spoken = get_format(format)
        encoder: Any = spoken.passthrough(framing, context, whole=False) if passes else spoken.encoder(framing, context)
        call = Call(
            ModelSettings("m", upstream, "m", StreamSettings(**stream)),
            parse_request(b'{"query":"hi"}'),
            encoder,
            encoder,
            encoder if passes else None,
            prompt_characters=8,
        )
        self.wire: Wire
        self.exchange: Exchange
        self.connection: UpstreamConnection
        self.session = Session(
            self,  # type: ignore[arg-type]  # what is used of the engine
            call,
            encoder,
            self.leg,
            stream_id="strm_1",
            clock=clock,
            loop=self.time,  # type: ignore[arg-type]  # what is used of it
        )

    # What a session asks of the engine.

    def breaker(self, upstream: UpstreamSettings) -> None:
        return None

    def attempt_failed(self, upstream: UpstreamSettings, error: Error) -> None: ...

    def open(self, call: Call, session: Session) -> tuple[Any, Any, Any]:
        self.exchange = Exchange("up:1", "POST", b"", session, Timeouts(1, 300, 6_000), self.time)
        self.wire = wire = Wire()
        self.connection = UpstreamConnection(wire, self.turn)
        self.connection.connection_made(wire)  # type: ignore[arg-type]  # what is used of a transport
        self.exchange.begin(self.connection, reused=False)
        return get_provider(self.provider).adapter("m"), lambda error: error, self.exchange

    def ended(self, session: Session, outcome: Any) -> None:
        self.figures = session.measured(outcome)

    # What happens.

    def receive(self, *reads: bytes) -> Stream:
        for data in reads:
            self.time.now += 0.01
            self.connection.data_received(data)
            self.time.advance(0)
        return self

    @property
    def told(self) -> tuple[Any, ...]:
        """All that a client sees, and of the figures all but the times."""
        return self.leg.pieces, str(self.leg.failure), None if self.figures is None else told_of(self.figures)


def told_of(figures: StreamMetrics) -> tuple[Any, ...]:
    return (
        figures.outcome, figures.code, figures.finish_reason, figures.usage, figures.deltas, figures.events,
        sum(figures.gaps), figures.bytes_in, figures.bytes_out,
    )  # fmt: skip


# ---- what upstreams send ---------------------------------------------------------------------------------------------


def chat(**choice: Any) -> bytes:
    chunk = {"id": "c", "created": 1, "model": "m", "choices": [{"index": 0, "finish_reason": None, **choice}]}
    return b"data: %b\n\n" % json.dumps(chunk, ensure_ascii=False).encode()


def text(content: str) -> bytes:
    return chat(delta={"content": content})


def arguments(piece: str) -> bytes:
    return chat(delta={"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})


ROLE = chat(delta={"role": "assistant", "content": ""})
TOOL = chat(delta={"tool_calls": [{"index": 0, "id": "t1", "function": {"name": "f", "arguments": ""}}]})
STOP = chat(delta={}, finish_reason="stop")
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}\n\n'
DONE = b"data: [DONE]\n\n"
BEGINNING = [ROLE, text("a"), text("b"), text("c")]
END = [STOP, USAGE, DONE]


def chunked(frames: Iterable[bytes]) -> list[bytes]:
    """Each frame as an HTTP chunk."""
    return [b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames]


def answer(*frames: bytes, media_type: bytes = b"text/event-stream") -> list[bytes]:
    """The reads of an answer of which each frame comes alone."""
    return [HEAD % media_type, *chunked(frames), LAST]


def both(reads: Sequence[bytes], act: Callable[[Stream], object] = lambda stream: None, **options: Any) -> Stream:
    """The stream that may take the shortcut, after the same has become of one that may not."""
    ways = {"long": {"shortens": False}, "short": {}, "in turns": {"turns": True}}
    streams = {name: Stream(**way, **options).receive(*reads) for name, way in ways.items()}
    for stream in streams.values():
        act(stream)
    assert streams["short"].told == streams["long"].told
    assert streams["in turns"].told == streams["long"].told
    return streams["short"]


# ---- the rules -------------------------------------------------------------------------------------------------------


def test_reads_that_bring_more_of_the_same_take_the_shortcut() -> None:
    stream = both(answer(*BEGINNING, *[text(str(n)) for n in range(40)], *END))
    assert stream.leg.body.count(b"text.delta") == 2 * 43
    assert stream.leg.is_direct >= (40 if IMPLEMENTATION == "native" else 0)


@pytest.mark.parametrize(
    "options",
    [
        {"timestamps": True},
        {"framing": "ndjson"},
        {"format": "openai"},
        {"format": "openai", "passes": True},
        {"format": "simple"},
        {"flush_interval": 5.0},
    ],
    ids=str,
)
def test_whatever_the_client_speaks(options: dict[str, Any]) -> None:
    both(answer(*BEGINNING, *[text(f"\U0001f600 {n}\n") for n in range(9)], *END), **options)


def test_whatever_the_provider_speaks() -> None:
    lines = [b'{"model":"m","message":{"role":"assistant","content":" %d"},"done":false}\n' % n for n in range(9)]
    end = b'{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","eval_count":9}\n'
    stream = both(answer(*lines, end, media_type=b"application/x-ndjson"), provider="ollama")
    assert stream.leg.body.count(b"text.delta") == 2 * 9
    said = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}
    frames = [
        {"type": "message_start", "message": {"id": "i", "model": "m", "usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[said] * 9,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]
    reads = [b"event: %b\ndata: %b\n\n" % (str(each["type"]).encode(), json.dumps(each).encode()) for each in frames]
    assert both(answer(*reads), provider="anthropic").leg.body.count(b"text.delta") == 2 * 9


def test_what_a_tool_is_called_with_is_told_whole() -> None:
    pieces = ['{"a', '": "', *"xyzxyzxyz", '"}']
    stream = both(answer(ROLE, TOOL, *map(arguments, pieces), chat(delta={}, finish_reason="tool_calls"), DONE))
    assert json.dumps({"a": "xyzxyzxyz"}, separators=(",", ":")).encode() in stream.leg.body.replace(b" ", b"")


@pytest.mark.parametrize(
    "odd",
    [
        text(""),
        text("\ud83d".encode("utf-16", "surrogatepass").decode("utf-16", "replace")),
        ROLE,
        TOOL + arguments("{}"),
        b": comment\n\n",
        b"data: {broken\n\n",
        b'data: {"error":{"message":"Overloaded","type":"overloaded_error"}}\n\n',
        STOP,
        text("x")[:-1] + b"\r\n\r\n",
        text("x").replace(b"\n", b"\r\n"),
        chat(delta={"content": "\\ud83d"}).replace(b"\\\\", b"\\"),
        chat(delta={"reasoning_content": "hm"}),
    ],
)
def test_anything_else_takes_the_long_way_and_the_shortcut_goes_on_behind_it(odd: bytes) -> None:
    for together in (odd, text("d") + odd, odd + text("e"), text("d") + odd + text("e")):
        both(answer(*BEGINNING, together, text("f"), text("g"), text("h"), *END))


@pytest.mark.parametrize("options", [{}, {"format": "openai", "passes": True}], ids=str)
def test_however_much_one_read_brings(options: dict[str, Any]) -> None:
    many = b"".join(text(str(n)) for n in range(200))
    pair = text("x" * 3_000) + text("y" * 3_000)
    for large in (text("x" * 3_900), text("x" * 5_000), many, many + ROLE, pair + ROLE):
        both(answer(*BEGINNING, large, text("f"), large, text("g"), *END), **options)


@pytest.mark.parametrize("stray", [b"\n", b"\r\n", b"\r"])
def test_an_error_of_ours_begins_a_line_behind_frames_that_were_passed_on(stray: bytes) -> None:
    reads = answer(*BEGINNING, text("d"), text("e"), stray)[:-1]
    both(reads, lambda stream: stream.exchange.connection_lost(None), format="openai", passes=True)


def test_however_the_bytes_are_cut() -> None:
    frames = [*BEGINNING, *[text(c) for c in 'd\u00e9\U0001f600"\n'], b": x\n\n", text("z"), text("z"), *END]
    whole = b"".join(answer(*frames))
    for reads in cuts(whole):
        both([read for read in reads if read])


@given(st.data())
def test_whatever_happens_in_between(data: st.DataObject) -> None:
    frames = st.sampled_from(
        [text("x"), text("y\\"), text("\u20ac"), text(""), TOOL, arguments("1"), b": c\n\n", b"\n", USAGE]
    )
    said = data.draw(st.lists(frames, max_size=12))
    whole = b"".join(chunked([*BEGINNING, *said, *data.draw(st.sampled_from([END, [STOP, DONE], []]))]))
    places = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    reads = [whole[at:to] for at, to in zip([0, *places], [*places, len(whole)], strict=True) if at < to]
    seed = data.draw(st.integers(0, 99))
    passed_on = data.draw(st.sampled_from([{}, {"format": "openai", "passes": True}]))

    def live(stream: Stream) -> None:
        chance = random.Random(seed)
        stream.receive(HEAD % b"text/event-stream")
        for read in reads:
            stream.receive(read)
            match chance.randrange(12):
                case 0:
                    stream.time.advance(LIMITS.timer_tick + 15.0)  # a heartbeat is due
                case 1:
                    stream.session.pause()
                    stream.session.resume()
                case 2 if chance.random() < 0.2:
                    stream.session.cancel()
                case 3 if chance.random() < 0.2:
                    stream.session.client_lost()
                case 4 if chance.random() < 0.2:
                    stream.session.fail(Error("internal", "no"))
                case 5 if chance.random() < 0.2:
                    stream.exchange.connection_lost(ConnectionResetError())
        stream.receive(*([LAST] if stream.figures is None else []))

    both([], live, **passed_on)


def test_a_ping_between_two_reads_is_due_by_the_last_of_them() -> None:
    reads = answer(*BEGINNING, *[text(str(n)) for n in range(5)])[:-1]

    def wait(stream: Stream) -> None:
        for _ in range(3):
            stream.time.advance(10)
            stream.receive(*chunked([text("late")]))
        stream.time.advance(40)

    stream = both(reads, wait, heartbeat=15.0)
    assert stream.leg.body.count(b": ping") == 2


def test_a_ping_is_due_though_pieces_of_a_frame_come() -> None:
    """They are reads, but nothing is written for them."""
    reads = answer(*BEGINNING, *[text(str(n)) for n in range(5)])[:-1]

    def wait(stream: Stream) -> None:
        for at, piece in enumerate(text("late").partition(b"la")):
            stream.time.advance(10)
            stream.receive(*chunked([piece]))
            assert stream.leg.body.count(b": ping") == (at + 1) * 10 // 15
        stream.time.advance(10)

    stream = both(reads, wait, heartbeat=15.0)
    assert stream.leg.body.count(b": ping") == 2


def test_an_upstream_is_idle_from_the_last_read_on() -> None:
    reads = answer(*BEGINNING, *[text(str(n)) for n in range(5)])[:-1]

    def wait(stream: Stream) -> None:
        for _ in range(3):
            stream.time.advance(200)
            stream.receive(*chunked([text("late")]))
            assert stream.figures is None
        stream.time.advance(301)

    stream = both(reads, wait)
    assert stream.figures is not None
    assert stream.figures.code == "timeout"


def test_nothing_goes_the_shortcut_once_the_stream_has_ended() -> None:
    reads = answer(*BEGINNING, text("d"), text("e"))[:-1]

    def end(stream: Stream) -> None:
        stream.session.cancel()
        length = len(stream.leg.pieces)
        stream.receive(*chunked([text("f")]))
        assert len(stream.leg.pieces) == length

    both(reads, end)


# ---- reads that share a turn of the loop -----------------------------------------------------------------------------

only_with_a_shortcut = pytest.mark.skipif(IMPLEMENTATION == "pure", reason="native: without a shortcut no read waits")


def under_way(turn: Turn | None = None) -> Stream:
    stream = Stream(turns=True)
    if turn is not None:
        stream.connection._turn = turn
    return stream.receive(*answer(*BEGINNING)[:-1])


@only_with_a_shortcut
def test_the_reads_of_a_turn_are_handled_together_in_the_order_they_came() -> None:
    first = under_way()
    other = under_way(first.turn)
    first.time.advance(0)
    first.leg.pieces = other.leg.pieces = pieces = []  # type: ignore[var-annotated]  # of bytes
    for stream, said in [(first, "1"), (other, "2"), (first, "3")]:
        stream.connection.data_received(chunked([text(said)])[0])
    assert not pieces
    first.time.advance(0)
    assert [piece.partition(b'"text":"')[2][:1] for piece in pieces] == [b"1", b"2", b"3"]


@only_with_a_shortcut
def test_what_waits_for_a_stream_that_is_left_goes_nowhere() -> None:
    stream = under_way()
    stream.connection.data_received(chunked([text("late")])[0])
    stream.session.client_lost()
    stream.time.advance(0)
    assert b"late" not in stream.leg.body
    assert stream.wire.aborted


@only_with_a_shortcut
def test_what_comes_behind_the_end_in_the_same_turn_is_nobodys() -> None:
    stream = under_way()
    for read in [*chunked(END), LAST, b"HTTP/1.1 200 OK\r\n"]:
        stream.connection.data_received(read)
    assert not stream.wire.aborted
    stream.time.advance(0)
    assert stream.figures is not None
    assert stream.figures.outcome == "finished"
    assert stream.wire.aborted


@only_with_a_shortcut
def test_a_read_that_fails_is_told_to_the_loop_and_harms_no_other() -> None:
    stream = under_way()
    other = under_way(stream.turn)

    def fail(data: bytes) -> None:
        raise ZeroDivisionError

    stream.leg._send = fail
    stream.connection.data_received(chunked([STOP])[0])
    other.connection.data_received(chunked([text("well")])[0])
    with pytest.raises(ZeroDivisionError):
        stream.receive(*chunked([DONE]))
    assert stream.wire.aborted
    stream.time.advance(0)
    assert b"well" in other.leg.body


@only_with_a_shortcut
def test_a_shortcut_that_fails_takes_its_connection_with_it_and_no_other() -> None:
    stream = under_way()
    other = under_way(stream.turn)
    stream.leg.is_broken = True
    for each in (stream, other):
        each.connection.data_received(chunked([text("well")])[0])
    with pytest.raises(ZeroDivisionError):
        stream.time.advance(0)
    assert stream.wire.aborted
    other.time.advance(0)
    stream.time.advance(0)
    assert b"well" in other.leg.body
    assert not other.wire.aborted
