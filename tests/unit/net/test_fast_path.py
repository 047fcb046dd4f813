"""A stream's fast path: a stream on it and a stream on the full path have equal outputs."""

from __future__ import annotations

import gc
import json
import random
import re
import resource
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.core.requests.reading import parse_request
from gai_fast.formats import StreamContext, get_format
from gai_fast.kernels import IMPLEMENTATION, Borrower, LendingTransport, Piece, ReadBatch
from gai_fast.ledger import Reservation
from gai_fast.model.errors import Error
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import ModelSettings, Price, Settings, StoreSettings, StreamSettings, UpstreamSettings
from gai_fast.net.attempts.attempt import AttemptRunner
from gai_fast.net.attempts.retry import RetryPolicy
from gai_fast.net.attempts.spec import Clock, StreamSpec
from gai_fast.net.logs.follower import Follower, Followers
from gai_fast.net.logs.publication import Publication
from gai_fast.net.logs.view import Representation, view_of
from gai_fast.net.logs.writer import HTTP_CHUNKS, ResponseWriter
from gai_fast.net.logs.writer import Client as Response
from gai_fast.net.sockets.socket_transport import Transport
from gai_fast.net.stream.allowance import Allowance
from gai_fast.net.stream.session import EngineCallbacks, Session
from gai_fast.net.upstream.connection import ConnectionCallbacks, Exchange, Receiver, Timeouts, UpstreamConnection
from gai_fast.providers import get_provider
from gai_fast.server.websocket.stream import FRAMES, SocketStream
from gai_fast.stores import Ending, LogHeader, StreamLog
from gai_fast.stores.memory import LogMemory
from tests.kernels import cuts
from tests.limits import LIMITS
from tests.unit.net.fakes import FakeTime

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
CLIENT_HEAD = b"head\r\n\r\n"


class Client:
    """A client's connection, which lends its socket if it has one."""

    def __init__(self, leg: Leg) -> None:
        self.leg = leg

    def write(self, data: bytes) -> None:
        borrower, self.leg.borrower = self.leg.borrower, None
        if borrower is not None:
            borrower.end_writing()
            self.leg.drain()
        self.leg.pieces.append(data)

    def lend(self, borrower: Borrower) -> int:
        if self.leg.socket is None or self.leg.owes:
            return -1
        self.leg.borrower = borrower
        return self.leg.socket.fileno()


class Direct(Client):
    """The same for a fast path."""

    def write(self, data: bytes) -> None:
        if self.leg.is_broken:
            raise ZeroDivisionError
        self.leg.is_direct += 1
        super().write(data)


class Leg(ResponseWriter):
    """The client's leg, and what reached its connection; it may have no fast path to it."""

    def __init__(self, *, shortens: bool) -> None:
        self.pieces: list[bytes] = []
        self.socket: socket.socket | None = None
        self.other: socket.socket
        self.borrower: Borrower | None = None
        self.owes = False
        self.failure: Error | None = None
        self.is_direct = 0
        self.is_broken = False
        super().__init__(self.transport())
        self._shortens = shortens

    def transport(self) -> LendingTransport:
        return Client(self)

    @property
    def direct(self) -> LendingTransport | None:
        return Direct(self) if super().direct is not None and self._shortens else None

    def drain(self) -> None:
        """Takes what was written to the socket."""
        if self.socket is not None:
            with suppress(BlockingIOError):
                while data := self.other.recv(1 << 20):
                    self.is_direct += 1
                    self.pieces.append(data)

    def commit(self) -> None:
        self.start(CLIENT_HEAD, HTTP_CHUNKS)

    def fail(self, error: Error, pieces: Sequence[Piece]) -> None:
        self.failure = error

    def abort(self, error: Error) -> None:
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


class Socket(Client):
    """A WebSocket with one stream."""

    is_paused = is_draining = False
    remote = ""
    timers = FakeTime()

    def answer(self, messages: bytes) -> None:
        self.write(messages)

    def take_back(self) -> None:
        borrower, self.leg.borrower = self.leg.borrower, None
        if borrower is not None:
            borrower.end_writing()

    def ping(self) -> None:
        self.write(b"ping")

    def ended(self, stream: SocketStream, status: int) -> None: ...

    def has_finished(self, stream_id: str) -> bool:
        return False


class SocketLeg(Leg):
    """The leg of a stream over a WebSocket."""

    def transport(self) -> LendingTransport:
        self.stream = SocketStream(cast(Any, Socket(self)), "a", b'{"stream":"a",')
        self.stream.begin_stream(cast(Any, None), high_water=1 << 18, write_timeout=1.0)
        return self.stream

    @property
    def direct(self) -> LendingTransport | None:
        return self.stream if super().direct is not None else None

    def commit(self) -> None:
        self.start(b"", FRAMES)

    @property
    def noted(self) -> tuple[int, int]:
        """The number of the last event of which the stream knows that it was sent, and the bytes sent."""
        return self.stream._window._marks[-1]


class Wire(Transport):
    """The transport of an upstream's connection."""

    def __init__(self) -> None:
        self.aborted = False

    def take(self, connection: UpstreamConnection, data: bytes, time: FakeTime) -> None:
        """The connection's peer has sent this."""
        connection.data_received(data)

    def write(self, data: bytes) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.aborted

    def get_extra_info(self, name: str, default: Any = None) -> socket.socket | None:
        return None

    def is_reading(self) -> bool:
        return True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True


class Pool(ConnectionCallbacks):
    """The pool of an upstream's connection; notes why connections were lost."""

    def __init__(self) -> None:
        self.lost: list[Exception | None] = []

    def connection_made(self, connection: UpstreamConnection) -> None: ...

    def connection_free(self, connection: UpstreamConnection) -> None: ...

    def connection_lost(self, connection: UpstreamConnection, exchange: Exchange | None, exc: Exception | None) -> None:
        self.lost.append(exc)


class SocketWire(Wire):
    """The same with a socket, which is lent; the loop reads it unless it is borrowed."""

    def __init__(self) -> None:
        super().__init__()
        self.socket, self.other = pair()
        self.reads = True
        self.lent = 0

    def get_extra_info(self, name: str, default: Any = None) -> socket.socket | None:
        return self.socket if name == "socket" else None

    def take(self, connection: UpstreamConnection, data: bytes, time: FakeTime) -> None:
        self.other.sendall(data)
        self.lent += not self.reads
        report(time)
        while not self.reads and not self.aborted and can_be_read(self.socket):  # it rests behind a bulk read
            assert any(can_be_read(descriptor, within=5) for descriptor in time.watched)
            report(time)
        while self.reads and not self.aborted:
            try:
                connection.data_received(self.socket.recv(1 << 16))
            except BlockingIOError:
                return

    def is_reading(self) -> bool:
        return self.reads

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


def report(time: FakeTime) -> None:
    """A turn of the loop, for what is watched."""
    for callback in tuple(time.watched.values()):
        callback()


def can_be_read(watched: socket.socket | int, within: float = 0) -> bool:
    """Returns whether there is something to read, now or within some seconds."""
    return bool(select.select([watched], [], [], within)[0])


def pair() -> tuple[socket.socket, socket.socket]:
    """Returns two ends of a connection."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    return ends


def open_descriptors() -> int:
    gc.collect()  # an earlier test's may be in garbage
    return len(list(Path("/proc/self/fd").iterdir()))


class OneTarget(AttemptRunner):
    """The target of a stream, asked once."""

    def __init__(self, stream: Stream) -> None:
        self.settings = Settings()
        self.policy = RetryPolicy()
        self.stream = stream

    def breaker(self, upstream: UpstreamSettings) -> None:
        return None

    def attempt_failed(self, upstream: UpstreamSettings, error: Error, credential: Any = None) -> None: ...
    def failure_hidden(self, upstream: UpstreamSettings, error: Error, credential: Any = None) -> None: ...

    def open(
        self, spec: StreamSpec, receiver: Receiver, stream_id: str, number: int, key: object
    ) -> tuple[Any, Any, Any]:
        exchange = self.stream.connect(receiver)
        return get_provider(self.stream.provider).adapter("m"), lambda error, _: error, exchange


class Stream(EngineCallbacks):
    """An upstream's bytes in, a client's bytes out; both legs are the real ones, without sockets.

    Args:
        provider: Whose frames come.
        passes: They are passed on as they are; otherwise `format` and `framing` say what becomes of them.
        shortens: There may be a fast path.
        turns: A read waits for the others of its turn; here it is alone in it.
        lends: The connections have sockets, which may be borrowed; or only the client's may be borrowed.
        leg: The client's leg.
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
        lends: bool | Literal["client"] = False,
        timestamps: bool = False,
        leg: type[Leg] = Leg,
        **stream: Any,
    ) -> None:
        self.time = FakeTime()
        self.timers = self.time
        self.provider = provider
        self.faults: list[Exception] = []
        self.figures: StreamMetrics | None = None
        self.leg = leg(shortens=shortens)
        self.shortens = shortens
        self.lends = lends
        if lends:
            self.leg.socket, self.leg.other = pair()
        self.batch = ReadBatch(self.time, self.time.clock) if turns else None
        upstream = UpstreamSettings("up", provider, "http://x", retries=0)
        clock = Clock(lambda: 1_000 + int(self.time.now * 1000))
        context = StreamContext("strm_1", "req_1", None, "m", clock, timestamps=timestamps, ids=self.is_durable)
        spoken = get_format(format)
        encoder: Any = spoken.passthrough(framing, context, whole=False) if passes else spoken.encoder(framing, context)
        spec = StreamSpec(
            ModelSettings("m", upstream, "m", StreamSettings(**stream)),
            parse_request(b'{"query":"hi"}'),
            encoder,
            encoder,
            encoder if passes else None,
            prompt_characters=8,
            log_header=LogHeader("strm_1", "", "m", format, framing) if self.is_durable else None,
        )
        self.wire: Wire
        self.exchange: Exchange
        self.connection: UpstreamConnection
        self.session = Session(
            self,
            OneTarget(self),
            spec,
            self.client_of(spec),
            stream_id="strm_1",
            clock=clock,
            loop=self.time,
        )

    is_durable = False

    def client_of(self, spec: StreamSpec) -> Any:
        """Returns the client of the session."""
        return self.leg

    def connect(self, receiver: Receiver) -> Exchange:
        """Begins the exchange with the upstream."""
        self.exchange = Exchange("up:1", "POST", b"", receiver, Timeouts(1, 300, 6_000), self.time, self.time.clock())
        self.wire = wire = SocketWire() if self.lends is True else Wire()
        self.pool = Pool()
        self.connection = UpstreamConnection(self.pool, self.batch)
        self.connection.connection_made(wire)
        self.exchange.begin(self.connection, reused=False)
        return self.exchange

    # What a session asks of the engine.

    def broke(self, session: Session, fault: Exception) -> None:
        self.faults.append(fault)

    def record_ids(self, session: Session) -> None: ...

    def ended(self, session: Session, outcome: Any) -> None:
        self.figures = session.measured(outcome)

    # What happens.

    def receive(self, *reads: bytes) -> Stream:
        for data in reads:
            self.time.now += 0.01
            if not self.wire.aborted:
                self.wire.take(self.connection, data, self.time)
            self.time.advance(0)
            self.leg.drain()
        return self

    @property
    def is_lent(self) -> bool:
        """Whether somebody else reads the upstream's socket."""
        return isinstance(self.wire, SocketWire) and not self.wire.reads

    def close(self) -> None:
        """Closes the sockets; the stream may have ended or not."""
        if self.batch is not None:
            self.batch.close()
            self.batch = None
        for each in (self.leg, self.wire):
            if isinstance(each, SocketWire) or (isinstance(each, Leg) and each.socket is not None):
                each.socket.close()
                each.other.close()

    @property
    def observed(self) -> tuple[Any, ...]:
        """All that a client sees, and of the figures all but the times."""
        return self.leg.pieces, str(self.leg.failure), None if self.figures is None else observed_of(self.figures)


def observed_of(figures: StreamMetrics) -> tuple[Any, ...]:
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
BEGINNING = [ROLE, *map(text, "abcdefghij")]
"""Of an answer that is under way for so long that sockets are borrowed for it."""
END = [STOP, USAGE, DONE]


def chunked(frames: Iterable[bytes]) -> list[bytes]:
    """Returns each frame as an HTTP chunk."""
    return [b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames]


def answer(*frames: bytes, media_type: bytes = b"text/event-stream") -> list[bytes]:
    """Returns the reads of an answer of which each frame comes alone."""
    return [HEAD % media_type, *chunked(frames), LAST]


def both(
    reads: Sequence[bytes],
    act: Callable[[Any], object] = lambda stream: None,
    kind: type[Stream] = Stream,
    **options: Any,
) -> Stream:
    """Returns the stream that may take the fast path, after comparing it with a stream that may not."""
    ways: dict[str, dict[str, Any]] = {
        "long": {"shortens": False},
        "short": {},
        "in turns": {"turns": True},
        "borrowed": {"turns": True, "lends": True},
        "encrypted": {"turns": True, "lends": "client"},
    }
    streams = {name: kind(**way, **options).receive(*reads) for name, way in ways.items()}
    for stream in streams.values():
        act(stream)
        stream.leg.drain()
        stream.close()
    for stream in streams.values():
        assert stream.observed == streams["long"].observed
    return streams["short"]


# ---- the rules -------------------------------------------------------------------------------------------------------


def test_reads_that_bring_more_of_the_same_take_the_fast_path() -> None:
    stream = both(answer(*BEGINNING, *[text(str(n)) for n in range(40)], *END))
    assert stream.leg.body.count(b"text.delta") == 2 * 50
    assert stream.leg.is_direct >= (40 if IMPLEMENTATION == "native" else 0)


class Limited(Stream):
    """One whose spend is reserved: 200 tokens of output, and 100 more when it asks first."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.more = [0, 100]
        self.session.intake.allowance = allowance = Allowance(2 + 200)
        attempt = self.session.attempts.attempt
        assert attempt is not None
        attempt.account.price = Price(10**6, 10**6, 0, 0, 0)
        allowance.begin(attempt.account, 8)

    def grow(self, session: Session, wanted: Reservation, then: Callable[[int], None]) -> None:
        then(self.more.pop())


@pytest.mark.parametrize("options", [{}, {"format": "openai", "passes": True}], ids=str)
@pytest.mark.parametrize("at_once", [1, 7, 600])
def test_a_stream_ends_within_its_reservation_and_takes_the_fast_path_until_then(
    at_once: int, options: dict[str, Any]
) -> None:
    frames = [text("word")] * 600
    reads = [b"".join(frames[at : at + at_once]) for at in range(0, 600, at_once)]
    stream = both(answer(ROLE, *reads, *END), kind=Limited, **options)
    assert stream.wire.aborted
    assert not stream.more
    assert stream.figures is not None
    assert stream.figures.finish_reason == "length"
    assert 300 - 4 <= stream.figures.deltas <= 300
    assert stream.figures.usage is not None
    assert stream.figures.usage["output_tokens"] == stream.figures.deltas
    assert stream.leg.is_direct >= (150 if IMPLEMENTATION == "native" and at_once == 1 else 0)


class Priced(Stream):
    """One whose model has a price."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        attempt = self.session.attempts.attempt
        assert attempt is not None
        attempt.account.price = Price(10**6, 10**6, 0, 0, 0)


def test_what_a_running_stream_has_cost_includes_the_deltas_of_the_fast_path() -> None:
    costs = []
    for options in ({"shortens": False}, {}, {"turns": True}, {"turns": True, "lends": True}):
        stream = Priced(**options).receive(*answer(*BEGINNING)[:-1])
        amounts = []
        for _ in range(4):
            stream.receive(*chunked([text("word")] * 40))
            [charge] = stream.session.charges
            amounts.append(charge.amount)
        stream.session.cancel()
        stream.close()
        costs.append(amounts)
    assert all(amounts == costs[0] for amounts in costs), costs
    assert [after - before for before, after in pairwise(costs[0])] == [40] * 3


class Asking(Limited):
    """One whose ledger answers later."""

    def grow(self, session: Session, wanted: Reservation, then: Callable[[int], None]) -> None:
        self.answer = then


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("at_once", [1, 600])
@pytest.mark.parametrize(("more", "reason", "deltas"), [(1000, "stop", 600), (0, "length", 200)])
def test_what_comes_while_more_is_asked_for_waits_for_the_answer(
    turns: bool, at_once: int, more: int, reason: str, deltas: int
) -> None:
    frames = [text("word")] * 600
    reads = [b"".join(frames[at : at + at_once]) for at in range(0, 600, at_once)]
    stream = Asking(turns=turns).receive(*answer(ROLE, *reads, *END))
    assert stream.figures is None
    assert 200 - 4 <= stream.leg.body.count(b"event: text.delta") <= 200
    stream.answer(more)
    stream.leg.drain()
    stream.close()
    assert stream.figures is not None
    assert stream.figures.finish_reason == reason
    assert deltas - 4 <= stream.figures.deltas <= deltas
    assert not stream.faults


@pytest.mark.parametrize("options", [{}, {"format": "openai", "passes": True}], ids=str)
def test_reads_that_end_amid_a_frame_take_the_fast_path(options: dict[str, Any]) -> None:
    whole = b"".join(answer(*BEGINNING, b"".join(text(str(n)) for n in range(200)), *END))
    reads = [whole[at : at + 997] for at in range(0, len(whole), 997)]
    stream = both(reads, **options)
    assert stream.leg.is_direct >= (len(reads) - 6 if IMPLEMENTATION == "native" else 0)


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


@pytest.mark.parametrize("size", [1, 100, 3_000])
def test_whoever_makes_the_messages_of_a_websocket(size: int) -> None:
    noted, direct = set(), []

    def note(stream: Stream) -> None:
        leg = stream.leg
        assert isinstance(leg, SocketLeg)
        noted.add(leg.noted)
        direct.append(leg.is_direct)

    reads = answer(*BEGINNING, *[text("x" * size) for n in range(40)], TOOL, *[text(str(n)) for n in range(9)], *END)
    both(reads, note, leg=SocketLeg)
    assert len(noted) == 1
    assert direct[:3] == [0, 0, 0]
    assert direct[3] >= (30 if IMPLEMENTATION == "native" else 0)


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


def test_what_a_tool_is_called_with_is_reported_whole() -> None:
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
def test_anything_else_takes_the_long_way_and_the_fast_path_goes_on_behind_it(odd: bytes) -> None:
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
    options = data.draw(st.sampled_from([{}, {"format": "openai", "passes": True}, {"leg": SocketLeg}]))

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

    both([], live, **options)


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


def test_nothing_takes_the_fast_path_once_the_stream_has_ended() -> None:
    reads = answer(*BEGINNING, text("d"), text("e"))[:-1]

    def end(stream: Stream) -> None:
        stream.session.cancel()
        length = len(stream.leg.pieces)
        stream.receive(*chunked([text("f")]))
        assert len(stream.leg.pieces) == length

    both(reads, end)


# ---- reads that share a turn of the loop -----------------------------------------------------------------------------

only_with_a_fast_path = pytest.mark.native  # the pure one has none, and no read waits


def under_way(batch: ReadBatch | None = None) -> Stream:
    stream = Stream(turns=True)
    if batch is not None:
        stream.connection._batch = batch
    return stream.receive(*answer(*BEGINNING)[:-1])


@only_with_a_fast_path
def test_the_reads_of_a_turn_are_handled_together_in_the_order_they_came() -> None:
    first = under_way()
    other = under_way(first.batch)
    first.time.advance(0)
    first.leg.pieces = other.leg.pieces = pieces = []
    for stream, said in [(first, "1"), (other, "2"), (first, "3")]:
        stream.connection.data_received(chunked([text(said)])[0])
    assert not pieces
    first.time.advance(0)
    assert [piece.partition(b'"text":"')[2][:1] for piece in pieces] == [b"1", b"2", b"3"]


@only_with_a_fast_path
def test_what_waits_for_a_stream_that_is_left_goes_nowhere() -> None:
    stream = under_way()
    stream.connection.data_received(chunked([text("late")])[0])
    stream.session.client_lost()
    stream.time.advance(0)
    assert b"late" not in stream.leg.body
    assert stream.wire.aborted


@only_with_a_fast_path
def test_what_comes_behind_the_end_in_the_same_turn_is_nobodys() -> None:
    stream = under_way()
    for read in [*chunked(END), LAST, b"HTTP/1.1 200 OK\r\n"]:
        stream.connection.data_received(read)
    assert not stream.wire.aborted
    stream.time.advance(0)
    assert stream.figures is not None
    assert stream.figures.outcome == "finished"
    assert stream.wire.aborted


@only_with_a_fast_path
def test_a_read_whose_stream_fails_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = under_way()
    other = under_way(stream.batch)

    def fail(data: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(stream.leg._transport, "write", fail)
    stream.connection.data_received(chunked([STOP])[0])
    other.connection.data_received(chunked([text("well")])[0])
    stream.receive(*chunked([DONE]))
    assert stream.leg.failure is not None
    assert stream.wire.aborted
    stream.time.advance(0)
    assert b"well" in other.leg.body


@only_with_a_fast_path
def test_a_fast_path_that_fails_ends_its_stream_with_one_internal_error_and_no_other_stream() -> None:
    stream = under_way()
    other = under_way(stream.batch)
    stream.leg.is_broken = True
    for each in (stream, other):
        each.connection.data_received(chunked([text("well")])[0])
    with pytest.raises(ZeroDivisionError):  # the loop logs it, too
        stream.time.advance(0)
    other.time.advance(0)
    stream.time.advance(0)
    assert stream.wire.aborted
    assert [type(fault) for fault in stream.faults] == [ZeroDivisionError]
    error = stream.session.relay.error
    assert error is not None
    assert (error.code, error.phase) == ("internal", None)
    assert stream.leg.body.count(b"event: error\n") == stream.leg.body.count(b"event: done\n") == 1
    assert stream.figures is not None
    assert (stream.figures.outcome, stream.figures.code) == ("failed", "internal")
    assert b"well" in other.leg.body
    assert not other.wire.aborted
    assert other.figures is None


# ---- sockets that are borrowed ---------------------------------------------------------------------------------------


@pytest.fixture
def start() -> Iterator[Callable[..., Stream]]:
    """Makes streams whose sockets are both borrowed, in one turn with another stream if one is given."""
    streams: list[Stream] = []

    def borrowed(beside: Stream | None = None, kind: type[Stream] = Stream) -> Any:
        stream = kind(turns=True, lends=True)
        streams.append(stream)
        if beside is not None:
            stream.batch, stream.time, stream.connection._batch = beside.batch, beside.time, beside.batch
        stream.receive(*answer(*BEGINNING)[:-1])
        assert stream.is_lent
        assert stream.leg.borrower is not None
        return stream

    yield borrowed
    for stream in streams:
        stream.close()


Start = Callable[..., Stream]


@only_with_a_fast_path
def test_the_sockets_of_an_answer_under_way_are_borrowed_and_given_back_at_its_end(start: Start) -> None:
    stream = start()
    stream.receive(*chunked(END), LAST)
    assert isinstance(stream.wire, SocketWire)
    assert stream.wire.lent >= 3
    assert stream.wire.reads
    assert not stream.wire.aborted
    assert stream.figures is not None
    assert stream.figures.outcome == "finished"


@only_with_a_fast_path
def test_a_connection_whose_request_is_not_sent_yet_lends_no_socket() -> None:
    """Sending may close it, and the next connection gets its descriptor before the end is reported."""
    stream = Stream(turns=True, lends=True)
    unsent = [1]
    stream.wire.get_write_buffer_size = lambda: unsent[0]  # a request of megabytes
    stream.receive(*answer(*BEGINNING)[:-1])
    assert not stream.is_lent
    unsent[0] = 0
    stream.receive(*chunked([text("x")] * 100), *chunked(END), LAST)
    assert isinstance(stream.wire, SocketWire)
    assert stream.wire.lent
    stream.close()


@only_with_a_fast_path
def test_a_clients_socket_is_borrowed_alone_where_the_upstreams_is_encrypted() -> None:
    stream = Stream(turns=True, lends="client").receive(*answer(*BEGINNING)[:-1])
    assert stream.leg.borrower is not None
    stream.leg.is_broken = True  # its transport
    stream.receive(*chunked([text("more")]))
    assert stream.faults == []
    assert stream.leg.pieces[-1].endswith(b'"text":"more"}\n\n\r\n')
    stream.close()


@contextmanager
def stalled(leg: Leg) -> Iterator[None]:
    """Yields a client that takes nothing for a while: its socket is full."""
    assert leg.socket is not None
    with suppress(BlockingIOError):
        while leg.socket.send(b"x" * 65_536):
            pass
    leg.owes = True
    written = len(leg.pieces)
    yield
    leg.drain()
    leg.owes = False
    leg.pieces[written:] = [piece for piece in leg.pieces[written:] if set(piece) != {ord("x")}]


@only_with_a_fast_path
def test_what_a_client_does_not_take_goes_through_its_connection_as_whatever_follows(start: Start) -> None:
    stream = start()
    with stalled(stream.leg):
        for said in ("late", "later"):
            stream.wire.take(stream.connection, chunked([text(said)])[0], stream.time)
            assert stream.leg.borrower is None
    stream.receive(*chunked([text("last")]))
    assert [word for word in (b"late", b"later", b"last") if b'"text":"%b"' % word in stream.leg.body] == [
        b"late", b"later", b"last",
    ]  # fmt: skip
    assert stream.leg.borrower is not None


@only_with_a_fast_path
@pytest.mark.parametrize("leaves", ["pause", "cancel", "client_lost"])
def test_who_stops_a_stream_has_its_socket_back(start: Start, leaves: str) -> None:
    stream = start()
    getattr(stream.session, leaves)()
    assert isinstance(stream.wire, SocketWire)
    stream.wire.other.sendall(chunked([text("late")])[0])
    for callback in stream.time.watched.values():
        callback()
    stream.leg.drain()
    assert b"late" not in stream.leg.body
    assert stream.wire.aborted == (leaves != "pause")
    assert stream.wire.reads == (leaves != "pause")


@only_with_a_fast_path
@pytest.mark.parametrize("is_reset", [False, True])
def test_an_end_is_for_the_connection_to_see(start: Start, *, is_reset: bool) -> None:
    """Reads before it in the same turn are handled too, in their order."""
    stream = start()
    assert isinstance(stream.wire, SocketWire)
    stream.wire.other.sendall(chunked([text("last")])[0])
    if not is_reset:
        stream.wire.other.shutdown(socket.SHUT_WR)
    else:
        stream.wire.other.close()
    for callback in tuple(stream.time.watched.values()):
        callback()
    assert stream.wire.reads
    assert b"last" in stream.wire.socket.recv(4_096)
    assert stream.wire.socket.recv(1) == b""


@only_with_a_fast_path
def test_what_breaks_while_it_is_read_is_reported() -> None:
    """A socket that listens says that there is something, and cannot be read."""
    stream = Stream(turns=True, lends=True)
    wire = stream.wire
    assert isinstance(wire, SocketWire)
    connected, wire.socket = wire.socket, socket.create_server(("127.0.0.1", 0))
    for read in answer(*BEGINNING)[:-1]:  # as if the loop had read them
        stream.connection.data_received(read)
        stream.time.advance(0)
    assert stream.is_lent
    (callback,) = stream.time.watched.values()
    with connected, socket.create_connection(wire.socket.getsockname()):
        callback()
    assert wire.aborted
    stream.connection.connection_lost(None)
    assert [type(exc) for exc in stream.pool.lost] == [OSError]
    stream.close()


@only_with_a_fast_path
def test_a_long_read_is_taken_whole(start: Start) -> None:
    stream = start()
    many = b"".join(chunked([text("x" * 300)] * 200))
    assert len(many) > 65_536
    stream.receive(many, many, *chunked(END), LAST)
    assert stream.leg.body.count(b"text.delta") == 2 * (10 + 400)
    assert stream.figures is not None
    assert stream.figures.outcome == "finished"


BULK = chunked([text("x" * 40)] * 40)
"""Deltas that make a read of which more is to be expected."""
assert sum(map(len, BULK)) >= LIMITS.bulk_read


def send(stream: Stream, *pieces: bytes) -> None:
    """Sends bytes that are not read yet."""
    assert isinstance(stream.wire, SocketWire)
    stream.wire.other.sendall(b"".join(pieces))


def report_within(stream: Stream, seconds: float = 5) -> None:
    """Waits until the loop would report the set of the borrowed sockets, and lets it."""
    (descriptor,) = stream.time.watched
    assert can_be_read(descriptor, seconds)
    report(stream.time)
    stream.leg.drain()


@only_with_a_fast_path
def test_what_comes_behind_a_bulk_read_is_read_together(start: Start) -> None:
    """One of a hundred tries, at least, is not interrupted for as long as the socket rests."""
    stream = start()
    rested = 0
    for _ in range(100):
        send(stream, *BULK)
        report_within(stream)
        send(stream, *BULK[:20])
        (descriptor,) = stream.time.watched
        rested += not can_be_read(descriptor)
        send(stream, *BULK[20:])
        report_within(stream)
        report_within(stream)  # it is calm, and wakes
    assert rested
    assert stream.is_lent
    stream.receive(*chunked(END), LAST)
    assert stream.leg.body.count(b"text.delta") == 2 * (10 + 100 * 80)


@only_with_a_fast_path
def test_a_token_behind_a_rest_is_read_as_soon_as_it_comes(start: Start) -> None:
    stream = start()
    send(stream, *BULK)
    report_within(stream)
    report_within(stream)  # the rest is over, and nothing has come
    (descriptor,) = stream.time.watched
    for said in ("lone", "token"):
        assert not can_be_read(descriptor, 10 * LIMITS.bulk_rest)
        send(stream, *chunked([text(said)]))
        assert can_be_read(descriptor)
        report_within(stream)
        assert b'"text":"%b"' % said.encode() in stream.leg.body


@only_with_a_fast_path
def test_however_many_rest_each_is_read(start: Start) -> None:
    """More than one turn reads."""
    first = start()
    streams = [first, *(start(first) for _ in range(150))]
    for sent in (40, 80, 120):
        for stream in streams:
            send(stream, *BULK)
        while {stream.leg.body.count(b"text.delta") for stream in streams} != {2 * (10 + sent)}:
            report_within(first)
            for stream in streams:
                stream.leg.drain()
    assert all(stream.is_lent for stream in streams)


@only_with_a_fast_path
def test_a_socket_that_comes_to_rest_is_not_read_again_in_the_same_turn(start: Start) -> None:
    """A slow client must stop its upstream before a second read."""
    first = start()
    second = start(first)
    send(first, *BULK)
    report_within(first)
    time.sleep(10 * LIMITS.bulk_rest)  # the timer is due
    long = chunked([text("x" * 300)])[0]
    send(second, long * 250)
    report_within(first)
    second.leg.drain()
    read = second.leg.body.count(b"text.delta") // 2 - 10
    assert 0 < read * len(long) <= 65_536 < 250 * len(long)
    for stream in (first, second):
        stream.receive(*chunked(END), LAST)
    assert second.leg.body.count(b"text.delta") == 2 * (10 + 250)


@only_with_a_fast_path
def test_a_batch_that_was_closed_while_sockets_rested_lets_others_rest(start: Start) -> None:
    stream = start()
    assert stream.batch is not None
    for _ in range(2):
        send(stream, *BULK)
        report_within(stream)
        stream.batch.close()
        assert not stream.is_lent
        stream.receive(*chunked([text("x")] * 4))
        assert stream.is_lent
    send(stream, *BULK)
    report_within(stream)
    send(stream, *chunked([text("last")]))
    report_within(stream)
    assert b'"text":"last"' in stream.leg.body


@only_with_a_fast_path
@pytest.mark.parametrize("how", ["end", "pause", "client_lost", "close"])
def test_one_that_is_given_back_while_it_rests_is_read_by_its_connection(start: Start, how: str) -> None:
    stream = start()
    other = start(stream)
    send(stream, *BULK)
    send(other, *BULK)
    report_within(stream)
    send(stream, *chunked([text("last")]))
    assert isinstance(stream.wire, SocketWire)
    if how == "end":
        stream.wire.other.shutdown(socket.SHUT_WR)
        report_within(stream)
    elif how == "close":
        assert stream.batch is not None
        stream.batch.close()
        assert not stream.time.watched
    else:
        getattr(stream.session, how)()
    assert not stream.is_lent or how == "pause"
    assert stream.wire.aborted == (how == "client_lost")
    if how in ("end", "close"):
        assert b"last" in stream.wire.socket.recv(65_536)
    if how != "close":  # the timer that was set for both
        report_within(other)
        other.receive(*chunked(END), LAST)
        assert other.leg.body.count(b"text.delta") == 2 * (10 + 40)
    if how == "pause":
        stream.leg.drain()
        assert b"last" not in stream.leg.body
        stream.session.resume()
        assert not stream.is_lent
        assert b"last" in stream.wire.socket.recv(65_536)


@only_with_a_fast_path
def test_where_no_descriptor_is_left_for_the_timer_no_socket_rests() -> None:
    stream = Stream(turns=True, lends=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as free:  # the lowest descriptor, which the set will have
        lowest = free.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))
    try:
        stream.receive(*answer(*BEGINNING)[:-1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert stream.is_lent
    (descriptor,) = stream.time.watched
    for _ in range(2):
        send(stream, *BULK)
        assert can_be_read(descriptor)
        report_within(stream)
        assert not can_be_read(descriptor, 10 * LIMITS.bulk_rest)
    stream.receive(*chunked(END), LAST)
    assert stream.leg.body.count(b"text.delta") == 2 * (10 + 80)
    stream.close()


@only_with_a_fast_path
def test_one_that_fails_takes_its_connection_with_it_and_no_other_of_the_turn(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = start()
    others = [start(stream), start(stream)]

    def fail(data: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(stream.leg._transport, "write", fail)
    wires = [each.wire for each in (stream, *others) if isinstance(each.wire, SocketWire)]
    for wire in wires:
        wire.other.sendall(chunked([text("d") + STOP])[0])
    (callback,) = stream.time.watched.values()
    callback()
    assert stream.leg.failure is not None
    assert stream.wire.aborted
    for other in others:
        other.receive(*chunked([DONE]), LAST)
        assert other.leg.body.count(b'"text":"d"') == 2
        assert not other.wire.aborted


@only_with_a_fast_path
@pytest.mark.parametrize("raising", [1, 2])
def test_those_whose_sockets_cannot_be_given_back_keep_no_other_from_being_read(
    start: Start, monkeypatch: pytest.MonkeyPatch, raising: int
) -> None:
    """After exceptions in two reads of one turn no other read was handled, and their clients waited for ever."""
    first = start()
    broken, *others = [first, *(start(first) for _ in range(3))][raising - 1 :]
    for stream in {first, broken}:
        assert isinstance(stream.wire, SocketWire)
        stream.wire.other.shutdown(socket.SHUT_WR)
        monkeypatch.setattr(stream.wire, "resume_reading", lambda: 1 // 0)
    for other in others:
        assert isinstance(other.wire, SocketWire)
        other.wire.other.sendall(chunked([text("d")])[0])
    (callback,) = first.time.watched.values()
    with pytest.raises(ZeroDivisionError):
        callback()
    for other in others:
        assert other.leg.body.count(b'"text":"d"') == 1
        other.receive(*chunked(END), LAST)
        assert other.leg.body.count(b'"text":"d"') == 2
        assert other.figures is not None
        assert other.figures.outcome == "finished"


@only_with_a_fast_path
def test_one_that_another_gives_back_in_the_same_turn_is_left_to_its_connection(start: Start) -> None:
    """A descriptor that epoll returned may be closed before it is handled, and its connection gone."""
    first = start()
    last = start(first)
    for stream, said in ((first, "x"), (last, "late")):
        assert isinstance(stream.wire, SocketWire)
        stream.wire.other.sendall(chunked([text(said)])[0])
    assert isinstance(first.wire, SocketWire)
    first.wire.other.shutdown(socket.SHUT_WR)
    first.wire.resume_reading = last.connection.take_back
    (callback,) = first.time.watched.values()
    callback()
    assert isinstance(last.wire, SocketWire)
    assert not last.wire.aborted
    assert last.wire.reads
    assert b"late" not in last.leg.body
    last.receive(*chunked([text("and")]))
    assert last.leg.body.index(b"late") < last.leg.body.index(b'"and"')


@only_with_a_fast_path
def test_a_loop_that_watches_no_set_reads_all_sockets_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(turns=True, lends=True)
    before = open_descriptors()
    refused: list[int] = []

    def refuse(fd: int, callback: object) -> None:
        refused.append(fd)
        raise NotImplementedError

    monkeypatch.setattr(stream.time, "add_reader", refuse)
    reads = answer(*BEGINNING, *[text(str(n)) for n in range(200)], *END)
    raised = 0
    for read in reads:
        try:
            stream.receive(read)
        except NotImplementedError:
            raised += 1
            stream.receive()
    assert raised == len(refused) >= 2
    assert open_descriptors() == before
    assert not stream.is_lent
    assert stream.figures is not None
    assert stream.figures.deltas == 10 + 200
    stream.close()


@only_with_a_fast_path
def test_nothing_is_watched_once_a_batch_is_closed(start: Start) -> None:
    stream = start()
    assert stream.batch is not None
    assert len(stream.time.watched) == 1
    stream.batch.close()
    assert not stream.time.watched
    assert isinstance(stream.wire, SocketWire)
    assert stream.wire.reads


@only_with_a_fast_path
@pytest.mark.parametrize("raising", [(0,), (1,), (0, 1, 2), (0, 2, 3)])
def test_a_batch_that_is_closed_gives_back_every_socket_whichever_connections_raise(
    start: Start, monkeypatch: pytest.MonkeyPatch, raising: tuple[int, ...]
) -> None:
    first = start()
    streams = [first, *(start(first) for _ in range(3))]
    for at in raising:
        monkeypatch.setattr(streams[at].connection._transport, "resume_reading", lambda: 1 // 0)
    assert first.batch is not None
    with pytest.raises(ZeroDivisionError):
        first.batch.close()
    assert not first.time.watched
    for at, stream in enumerate(streams):
        assert isinstance(stream.wire, SocketWire)
        assert stream.wire.reads == (at not in raising)


# ---- into a log ------------------------------------------------------------------------------------------------------


class Heard:
    """A watcher of a log: each piece ends with the event whose number comes with it, and none is missing.

    Args:
        log: The log.
        fails_at: The number of the call that fails.
    """

    def __init__(self, log: StreamLog, fails_at: int | None) -> None:
        self.pieces: list[bytes] = []
        self.has_ended = False
        self._fails_at = fails_at
        self._has_all = log.header.format == "gai"  # others have no frame for some events
        self._numbers = re.compile(rb"^id: strm_1\.(\d+)$" if log.header.framing == "sse" else rb'"seq":(\d+)', re.M)
        self._last = 0
        log.watch(self)

    def advanced(self, piece: bytes, last_seq: int) -> None:
        numbers = [int(number) for number in self._numbers.findall(piece)]
        span = range(self._last + 1, last_seq + 1)
        assert numbers == [number for number in span if self._has_all or number in numbers]
        self._last = last_seq
        self.pieces.append(piece)
        if len(self.pieces) == self._fails_at:
            raise ZeroDivisionError

    def ended(self) -> None:
        assert not self.has_ended
        self.has_ended = True


class LongWay(Response):
    """A publication without a way for fast paths."""

    direct = None

    def __init__(self, publication: Publication) -> None:
        for name in ("commit", "flush", "write", "end", "fail", "abort"):
            setattr(self, name, getattr(publication, name))


class DurableStream(Stream):
    """A stream that goes into a log."""

    is_durable = True
    fails_at: int | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.publication.begin(self.session)

    def client_of(self, spec: StreamSpec) -> Any:
        assert spec.log_header is not None
        self.log = LogMemory(StoreSettings(), self.time).create(spec.log_header)
        self.heard = Heard(self.log, self.fails_at)
        encoder: Any = spec.output
        self.publication = Publication(self, self.log, encoder, spec.model.stream)
        return self.publication if self.shortens else LongWay(self.publication)

    def receive(self, *reads: bytes) -> Any:
        for data in reads:
            try:
                super().receive(data)
            except ZeroDivisionError:  # of the watcher that fails, in a batch: the loop logs it
                super().receive()
        return self

    @property
    def observed(self) -> tuple[Any, ...]:
        backlog = self.log.read(0, 1 << 30)
        assert b"".join(backlog.pieces) == b"".join(self.heard.pieces)
        assert self.heard.has_ended == self.log.is_over
        figures = None if self.figures is None else observed_of(self.figures)
        if figures is not None and self.faults:
            figures = figures[:4]  # whether the read that failed counts is open
        return backlog, self.log.last_seq, self.log.ending, str(self.log.broken), len(self.faults), figures


class FailingStream(DurableStream):
    """The same, if the first watcher of the log fails."""

    def client_of(self, spec: StreamSpec) -> Any:
        self.fails_at = 7
        return super().client_of(spec)


@pytest.mark.parametrize("options", [{}, {"framing": "ndjson"}, {"timestamps": True}, {"format": "openai"}], ids=str)
def test_into_a_log_nothing_tells_the_fast_path_from_the_long_way(options: dict[str, Any]) -> None:
    texts = [text(f"\U0001f600 {n}\n\n") for n in range(9)]
    reads = answer(*BEGINNING, *texts, TOOL + arguments("{}"), *texts, *END)
    stream = both(reads, kind=DurableStream, **options)
    assert isinstance(stream, DurableStream)
    assert stream.log.ending is not None
    assert stream.log.ending.state == "finished"
    assert len(stream.heard.pieces) > 20


def test_into_a_log_however_the_bytes_are_cut() -> None:
    frames = [*BEGINNING, *[text(c) for c in 'd\u00e9\U0001f600"\n'], b": x\n\n", text("z"), text("z"), *END]
    whole = b"".join(answer(*frames))
    for reads in cuts(whole):
        both([read for read in reads if read], kind=DurableStream)


@given(st.data())
def test_into_a_log_whatever_happens_in_between(data: st.DataObject) -> None:
    frames = st.sampled_from(
        [text("x"), text("y\\"), text("\u20ac\n\n"), text(""), TOOL, arguments("1"), b": c\n\n", b"\n", USAGE]
    )
    said = data.draw(st.lists(frames, max_size=12))
    whole = b"".join(chunked([*BEGINNING, *said, *data.draw(st.sampled_from([END, [STOP, DONE], []]))]))
    places = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    reads = [whole[at:to] for at, to in zip([0, *places], [*places, len(whole)], strict=True) if at < to]
    seed = data.draw(st.integers(0, 99))
    kind = data.draw(st.sampled_from([DurableStream, FailingStream]))
    options = data.draw(st.sampled_from([{}, {"framing": "ndjson"}, {"format": "openai"}]))

    def live(stream: DurableStream) -> None:
        chance = random.Random(seed)
        stream.receive(HEAD % b"text/event-stream")
        for read in reads:
            stream.receive(read)
            match chance.randrange(12):
                case 0:
                    stream.time.advance(LIMITS.timer_tick + 15.0)
                case 1:
                    stream.session.pause()
                    stream.session.resume()
                case 2 if chance.random() < 0.2:
                    stream.session.cancel()
                case 3 if chance.random() < 0.2:
                    stream.session.fail(Error("internal", "no"))
                case 4 if chance.random() < 0.2:
                    stream.exchange.connection_lost(ConnectionResetError())
        stream.receive(*([LAST] if stream.figures is None else []))
        assert stream.log.is_over

    both([], live, kind, **options)


@pytest.mark.parametrize("reads_of", [lambda frames: answer(*frames), lambda frames: [b"".join(answer(*frames))]])
def test_a_log_that_fails_at_any_piece_ends_its_stream_once(
    reads_of: Callable[[list[bytes]], list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watcher's bug; by its interface it raises nothing."""
    reads = reads_of([*BEGINNING, *[text(str(n)) for n in range(9)], *END])
    whole = both(reads, kind=DurableStream)
    assert isinstance(whole, DurableStream)
    for place in range(1, len(whole.heard.pieces) + 1):
        monkeypatch.setattr(DurableStream, "fails_at", place)
        stream = both(reads, kind=DurableStream)
        assert isinstance(stream, DurableStream)
        assert stream.log.is_over
        assert len(stream.faults) == 1
        assert stream.figures is not None


# ---- durable streams, whose log is written by a fast path and sent to borrowed sockets -------------------------------


class FollowedStream(DurableStream):
    """The same, and the client follows the log."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.follower = self.follow(self.leg, is_first=True)

    def follow(self, client: Response, after: int = 0, *, is_first: bool = False) -> Follower:
        """Begins to send the log to one more client."""
        header = self.log.header
        follower = Follower(
            self.log,
            client,
            view_of(header, Representation(get_format(header.format), cast(Any, header.framing)), after, lambda: 0),
            after,
            self.session.spec.model.stream,
            self.publication,
            is_first=is_first,
            is_answer=is_first,
            home=Followers(),
            timers=cast(Any, self.time),
            loop=cast(Any, self.time),
        )
        follower.begin()
        return follower

    @property
    def logged(self) -> bytes:
        """All that the log has."""
        return b"".join(self.log.read(0, 1 << 30).pieces)

    @property
    def observed(self) -> tuple[Any, ...]:
        # What a follower is sent in one turn may reach its socket in several writes.
        return b"".join(self.leg.pieces), str(self.leg.failure), *super().observed


@pytest.mark.parametrize(
    "options",
    [{}, {"framing": "ndjson"}, {"timestamps": True}, {"format": "openai"}, {"format": "openai", "passes": True}],
    ids=str,
)
def test_a_follower_is_sent_the_same_whichever_way_the_log_is_written(options: dict[str, Any]) -> None:
    texts = [text(f"\U0001f600 {n}\n\n") for n in range(9)]
    stream = both(answer(*BEGINNING, *texts, TOOL + arguments("{}"), *texts, *END), kind=FollowedStream, **options)
    assert isinstance(stream, FollowedStream)
    assert stream.leg.body == stream.logged


def test_a_follower_is_sent_the_same_however_the_bytes_are_cut() -> None:
    frames = [*BEGINNING, *[text(c) for c in 'd\u00e9\U0001f600"\n'], b": x\n\n", text("z"), text("z"), *END]
    whole = b"".join(answer(*frames))
    for reads in cuts(whole):
        both([read for read in reads if read], kind=FollowedStream)


@given(st.data())
def test_whatever_happens_to_a_durable_stream_its_followers_get_all_of_it(data: st.DataObject) -> None:
    """Others join, and the first one is slow or leaves. A follower that comes back gets exactly the rest."""
    frames = st.sampled_from(
        [text("x"), text("y\\"), text("\u20ac"), text(""), TOOL, arguments("1"), b": c\n\n", USAGE]
    )
    said = data.draw(st.lists(frames, max_size=12))
    whole = b"".join(chunked([*BEGINNING, *said, *END]))
    places = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    reads = [whole[at:to] for at, to in zip([0, *places], [*places, len(whole)], strict=True) if at < to]
    seed = data.draw(st.integers(0, 99))

    def live(stream: FollowedStream) -> None:
        chance = random.Random(seed)
        others: list[Leg] = []
        stream.receive(HEAD % b"text/event-stream")
        for read in reads:
            stream.receive(read)
            match chance.randrange(9):
                case 0:
                    stream.time.advance(LIMITS.timer_tick + 15.0)  # keep-alives are due
                case 1:
                    others.append(Leg(shortens=True))
                    stream.follow(others[-1])
                case 2:
                    stream.follower.pause()
                case 3:
                    stream.follower.resume()
                case 4 if chance.random() < 0.2:
                    stream.follower.client_lost()
                case 5 if chance.random() < 0.2:
                    stream.publication.cancel()
                case 6 if chance.random() < 0.2:
                    stream.exchange.connection_lost(ConnectionResetError())
        stream.receive(*([LAST] if stream.figures is None else []))
        stream.follower.resume()
        stream.time.advance(0)
        logged = stream.logged
        for leg in others:
            assert leg.body.replace(b": ping\n", b"") == logged
        frames = logged.split(b"\n\n")
        for after in range(stream.log.last_seq):
            leg = Leg(shortens=False)
            stream.follow(leg, after)
            assert leg.body == b"\n\n".join(frames[after:])

    both([], live, FollowedStream)


class BrokenGate:
    """Raises for the next piece, and logs those after it."""

    def __init__(self, log: StreamLog) -> None:
        self.log = log
        self.has_failed = False

    def append(self, piece: bytes, last_seq: int) -> None:
        if not self.has_failed:
            self.has_failed = True
            raise ZeroDivisionError
        self.log.publish(piece, last_seq)

    def end(self, ending: Ending) -> None:
        self.log.finish(ending)


@only_with_a_fast_path
def test_the_socket_of_a_follower_is_borrowed_and_given_back_at_the_end(start: Start) -> None:
    stream = start(kind=FollowedStream)
    stream.receive(*chunked(map(text, "klm")))
    assert stream.leg.borrower is not None
    assert stream.leg.body == stream.logged
    stream.receive(*chunked(END), LAST)
    assert stream.leg.borrower is None
    assert stream.leg.pieces[-1].endswith(LAST)
    assert stream.leg.body == stream.logged


@only_with_a_fast_path
def test_what_a_follower_does_not_take_goes_through_its_connection_as_whatever_follows(start: Start) -> None:
    stream = start(kind=FollowedStream)
    with stalled(stream.leg):
        for said in ("late", "later"):
            stream.wire.take(stream.connection, chunked([text(said)])[0], stream.time)
            assert stream.leg.borrower is None
    stream.receive(*chunked(map(text, [f"more{n}" for n in range(5)])))
    assert stream.leg.borrower is not None
    assert stream.leg.body == stream.logged


@only_with_a_fast_path
def test_a_follower_that_is_paused_while_its_socket_is_borrowed_gets_the_rest_from_the_log(start: Start) -> None:
    stream = start(kind=FollowedStream)
    sent = len(stream.leg.body)
    stream.follower.pause()
    stream.receive(*chunked(map(text, "klm")))
    assert len(stream.leg.body) == sent
    stream.follower.resume()
    assert b'"text":"klm","from_seq":' in stream.leg.body
    stream.receive(*chunked(map(text, "nopqrs")))
    assert stream.leg.borrower is not None
    assert stream.leg.body.endswith(stream.logged[-200:])


@only_with_a_fast_path
def test_a_follower_whose_connection_raises_is_cut_off_and_no_other(start: Start) -> None:
    stream = FollowedStream(turns=True)
    other = Leg(shortens=True)
    stream.follow(other)
    stream.receive(*answer(*BEGINNING)[:-1])
    stream.leg.is_broken = True
    stream.receive(*chunked(map(text, "kl")))
    assert stream.leg.failure is not None
    assert stream.leg.failure.code == "internal"
    stream.receive(*chunked(END), LAST)
    assert other.body == stream.logged
    assert stream.figures is not None
    assert stream.figures.outcome == "finished"


@only_with_a_fast_path
def test_a_log_that_raises_ends_the_stream_with_one_internal_error_and_no_other_stream(start: Start) -> None:
    stream = start(kind=FollowedStream)
    other = start(stream, FollowedStream)
    stream.log.unwatch(stream.heard)  # a piece will be missing
    stream.log.gate = BrokenGate(stream.log)
    for each in (stream, other):
        assert isinstance(each.wire, SocketWire)
        each.wire.other.sendall(chunked([text("well")])[0])
    with pytest.raises(ZeroDivisionError):  # the loop logs it, too
        for callback in tuple(stream.time.watched.values()):
            callback()
    for _ in range(2):
        stream.time.advance(0)
    for each in (stream, other):
        each.leg.drain()
    assert stream.wire.aborted
    assert [type(fault) for fault in stream.faults] == [ZeroDivisionError]
    assert stream.leg.body == stream.logged
    assert stream.logged.count(b"event: error\n") == stream.logged.count(b"event: done\n") == 1
    assert stream.log.ending is not None
    assert stream.log.ending.state == "failed"
    assert b"well" in other.leg.body
    assert other.leg.body == other.logged
    assert other.figures is None
