"""The interface of a wire format, between a stream's events and a client's bytes.

A format is one `Format` object: its name, its framings and the shape of its errors. `encoder()` makes one encoder per
stream. An encoder is a sink for the relay's events and holds the bytes until they are taken. Nothing here awaits, opens
anything or reads a clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

from mypy_extensions import mypyc_attr

from gai_fast.core.result import Collector, Result
from gai_fast.core.sinks import DeltaSink, FrameSink
from gai_fast.kernels import Part, Piece, encode_json
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.request import Request

Framing = Literal["sse", "ndjson"]

MEDIA_TYPES: dict[str, str] = {"sse": "text/event-stream; charset=utf-8", "ndjson": "application/x-ndjson"}


class StreamContext:
    """The facts about a stream that an encoder needs.

    Args:
        stream_id: The stream's id (`x-gai-stream-id`).
        request_id: Written in the envelope and in errors.
        trace_id: The 32 hex digits of `traceparent`, where there is one.
        model: The model as the client asked for it.
        clock: Milliseconds since the epoch.
        envelope: The choice of the client or the configuration; `None`: the framing's default.
        timestamps: `ts` on every event.
        ids: Write `id:` lines: the stream is durable.
        retry_ms: Written inside the first frame of a durable stream.
        usage: Whether usage is written in formats where clients must ask for it.
        hides_usage: The gateway asks upstreams for usage all the same, and the client is not sent it.
        metrics: Returns the measurements of the stream, as in `Result.metrics`.
        echo: Members of the client's request that answers in its dialect repeat.
        follows: The events come from a log, with the numbers that `id:` lines must have.
    """

    __slots__ = (
        "clock",
        "echo",
        "envelope",
        "follows",
        "hides_usage",
        "ids",
        "metrics",
        "model",
        "request_id",
        "retry_ms",
        "stream_id",
        "timestamps",
        "trace_id",
        "usage",
    )

    def __init__(
        self,
        stream_id: str,
        request_id: str,
        trace_id: str | None,
        model: str,
        clock: Callable[[], int],
        envelope: Literal["compact", "full"] | None = None,
        timestamps: bool = False,
        ids: bool = False,
        retry_ms: int | None = None,
        usage: bool = True,
        hides_usage: bool = False,
        metrics: Callable[[], dict[str, Any]] | None = None,
        echo: Mapping[str, Any] | None = None,
        follows: bool = False,
    ) -> None:
        self.stream_id = stream_id
        self.request_id = request_id
        self.trace_id = trace_id
        self.model = model
        self.clock = clock
        self.envelope = envelope
        self.timestamps = timestamps
        self.ids = ids
        self.retry_ms = retry_ms
        self.usage = usage
        self.hides_usage = hides_usage
        self.metrics = metrics
        self.echo = echo or {}
        self.follows = follows


class Encoder(Protocol):
    """Encodes one stream into one buffer."""

    def event(self, event: Event) -> None:
        """Writes the format's objects for this event, perhaps none."""

    def heartbeat(self) -> None:
        """Writes a keep-alive; only called between two events."""

    def take(self) -> bytes:
        """The bytes written since the last call."""

    def take_pieces(self) -> Sequence[Piece]:
        """The bytes written since the last call, in pieces, so that a writer that frames them copies them only once."""


class StreamEncoder(Encoder, DeltaSink, Protocol):
    """An encoder that writes a stream while it comes."""


class PassthroughEncoder(Encoder, FrameSink, Protocol):
    """An encoder that also takes the upstream's own frames; for a stream it is a `StreamEncoder` too."""


class ClientRequest:
    """A request in a client's dialect: the facts that a route needs, whichever model answers.

    Args:
        body: The client's JSON object.
        model: The model's name; `None`: the default.
        stream: The answer is a stream, otherwise one JSON object.
        wants_usage: The client asks for the usage of a stream.
        wants_json: The client asks for an answer in JSON.
        prompt_characters: Characters of the prompt, for an estimate where no tokens are counted.
        background: The answer is generated whether or not the client waits for it.
        echo: As for `StreamContext`.
    """

    __slots__ = ("background", "body", "echo", "model", "prompt_characters", "stream", "wants_json", "wants_usage")

    def __init__(
        self,
        body: dict[str, Any],
        model: str | None,
        stream: bool,
        wants_usage: bool = False,
        wants_json: bool = False,
        prompt_characters: int = 0,
        background: bool = False,
        echo: Mapping[str, Any] | None = None,
    ) -> None:
        self.body = body
        self.model = model
        self.stream = stream
        self.wants_usage = wants_usage
        self.wants_json = wants_json
        self.prompt_characters = prompt_characters
        self.background = background
        self.echo = echo

    @property
    def whole(self) -> bool:
        """Whether the answer is one JSON object; in the background it is a stream, whoever reads it."""
        return not self.stream and not self.background


@mypyc_attr(allow_interpreted_subclasses=True)
class Format(ABC):
    """One wire format: stateless, shared by all streams."""

    name: ClassVar[str]
    framings: ClassVar[tuple[Framing, ...]] = ("sse", "ndjson")
    passed_headers: ClassVar[tuple[str, ...]] = ()
    """Names of a request's headers that go with its body to an upstream of the dialect."""
    announces: ClassVar[bool] = False
    """Whether the format can void everything that was sent (`stream.reset`)."""
    shares_native_routes: ClassVar[bool] = False
    """Whether the native routes take this dialect's requests, where the client asks for this format."""
    copies_upstream: ClassVar[bool] = False
    """Whether the encoders are `FrameSink`s of every upstream's frames: then nothing can be made from events."""
    headers: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Headers of a stream's response besides those that every stream has."""
    repeats: ClassVar[bool] = False
    """Whether the end of a stream repeats its answer, so that it cannot be written without the beginning."""
    passes_again: ClassVar[bool] = True
    """Whether, after an attempt whose first frames were passed on, those of another may follow."""

    @abstractmethod
    def encoder(self, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Creates the encoder of one stream."""
        raise NotImplementedError

    @abstractmethod
    def whole(self, context: StreamContext) -> Encoder:
        """Creates an encoder whose bytes, at the end, are one JSON object (`"stream": false`)."""
        raise NotImplementedError

    def passthrough(self, framing: Framing, context: StreamContext, *, whole: bool) -> PassthroughEncoder | None:
        """Creates an encoder for an upstream of the same dialect; `None` where its bytes must be translated.

        Args:
            framing: What the client asked for.
            context: The stream.
            whole: The answer is one JSON object.
        """
        return None

    def version(self, name: str) -> Format:
        """Returns the format as clients of a certain version read it.

        Args:
            name: The version, from a client.

        Raises:
            ValueError: There is no such version; the text has those that there are.
        """
        raise ValueError(f"format {self.name!r} has no versions")

    def owns_request(self, body: Mapping[str, Any]) -> bool:
        """Whether a body that came to a native route is a request in this dialect (`shares_native_routes`).

        Args:
            body: The client's JSON object.
        """
        return False

    def answering(self, body: Mapping[str, Any]) -> Format:
        """Returns the format of the answer to a request that `owns_request`.

        Args:
            body: The client's JSON object.

        Raises:
            InvalidRequest: What the answer repeats of it is not valid.
        """
        return self

    def successor(self, before: PassthroughEncoder, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Creates an encoder that goes on with an answer whose beginning was an upstream's own frames.

        Args:
            before: The encoder that passed them on; they had no content.
            framing: What the client asked for.
            context: The stream.
        """
        output = self.encoder(framing, context)
        # The copied frames hold the role already. SDKs would join a second one to it.
        output.event({"type": "start"})
        output.take()
        return output

    def native_request(self, body: dict[str, Any], provider: str) -> tuple[dict[str, Any], list[str]] | None:
        """Returns a request for an upstream of this dialect whose answer is translated.

        Args:
            body: The client's JSON object.
            provider: The upstream's.

        Returns:
            The request, and the paths of the members that a translated answer does not serve; `None`: it is translated,
            too.
        """
        return None

    def check_translatable(self, body: dict[str, Any]) -> None:  # noqa: B027  # most dialects have no such member
        """Refuses a request that only an upstream of this dialect can answer, whatever `on_unsupported` says.

        Args:
            body: The client's JSON object.

        Raises:
            Unsupported: The text names the member.
        """

    def begun(self, context: StreamContext) -> dict[str, Any]:
        """Returns the object that answers a request for an answer in the background.

        Args:
            context: The stream, which has just begun.
        """
        raise self._no_requests()

    def read_request(self, body: dict[str, Any]) -> ClientRequest:
        """Reads those members of a request in this dialect that matter to every route and upstream.

        Args:
            body: The client's JSON object.

        Raises:
            InvalidRequest: The text names the member.
        """
        raise self._no_requests()

    def with_usage(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns the same request with usage asked for.

        Args:
            body: The client's JSON object.
        """
        raise self._no_requests()

    def for_upstream(self, body: dict[str, Any], provider: str) -> dict[str, Any]:
        """Returns a request as an upstream of the dialect accepts it: without what only this gateway can read.

        Args:
            body: The client's JSON object.
            provider: The upstream's.
        """
        return body

    def _no_requests(self) -> Error:
        return Error("unsupported", f"format {self.name!r} has no request of its own")

    def parse_request(self, body: dict[str, Any]) -> tuple[Request, list[str]]:
        """Translates a client's request in this dialect into a native one.

        Args:
            body: The client's JSON object.

        Returns:
            The request, and the paths of the fields that a native request cannot express.

        Raises:
            InvalidRequest: The text names the field.
        """
        raise self._no_requests()

    def error_body(self, error: Error, request_id: str) -> bytes:
        """Returns the body of an error response, before a stream has begun."""
        payload = {**error.payload(), "request_id": request_id}
        return encode_json({"error": payload})

    def error_status(self, error: Error) -> int:
        """Returns the status of an error response."""
        return error.status

    def media_type(self, framing: Framing) -> str:
        """The `content-type` of a stream."""
        return MEDIA_TYPES[framing]

    def whole_media_type(self, pieces: Sequence[Piece]) -> str:
        """The `content-type` of a whole answer.

        Args:
            pieces: Its body.
        """
        return "application/json"


@mypyc_attr(allow_interpreted_subclasses=True)
class DataEncoder(ABC):
    """An encoder of a format whose SSE frames are one `data:` line each; NDJSON has the same objects, one a line.

    Owns the framing, the keep-alive, the `id:` lines and the buffer. A format's `_encode` turns an event into objects.

    Args:
        framing: What the client asked for.
        context: The stream.
    """

    __slots__ = (
        "_frame_at",
        "_ids",
        "_lead",
        "_out",
        "_retry_ms",
        "_seq",
        "_sse",
        "_trail",
        "collects_text",
        "has_blocks",
    )

    def __init__(self, framing: Framing, context: StreamContext) -> None:
        self._sse = framing == "sse"
        self._lead, self._trail = (b"data: ", b"\n\n") if self._sse else (b"", b"\n")
        self._ids = context.stream_id.encode() if self._sse and context.ids else b""
        self._retry_ms = context.retry_ms
        self._out: list[Piece] = []
        self._frame_at = -1
        self._seq = 0
        self.has_blocks = False
        """As `DeltaSink.has_blocks`; a format whose deltas stand in blocks sets it."""
        self.collects_text = False
        """As `DeltaSink.collects_text`; a format whose end repeats the answer sets it."""

    def event(self, event: Event) -> None:
        """Writes the format's objects for this event, perhaps none."""
        self._frame_at = -1
        self._encode(event)
        if event["type"] != "done":
            self._seq = event.get("seq", self._seq + 1)
            if self._ids:
                self._stamp()

    @property
    def seq(self) -> int:
        """The number of the last event, which a log keeps; frames carry it in `id:` lines only."""
        return self._seq

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """Returns the parts of a delta like this one: two one-letter texts differ at the place of the text."""
        first, second = (self._written({**event, key: letter}) for letter in "ab")  # type: ignore[misc]  # the key depends on the type
        places = [at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other]
        if len(first) != len(second) or len(places) != 1:
            return None
        return self._parts(first[: places[0]], first[places[0] + 1 :])

    def _written(self, event: Event) -> bytes:
        """The frames of an event, which are not kept."""
        kept, self._out = self._out, []
        try:
            self._encode(event)
            return b"".join(self._out)
        finally:
            self._out = kept

    def _parts(self, head: bytes, tail: bytes) -> Sequence[Part] | None:
        """Returns a frame around a text; with ids, its number stands before it. The very first frame has more lines."""
        if not self._ids:
            return head, "text", tail
        return None if self._retry_ms is not None else (b"id: %b." % self._ids, "seq", b"\n" + head, "text", tail)

    def append_frames(self, frames: Piece, count: int, characters: int = 0) -> None:
        """Takes deltas that are written already."""
        self._out.append(frames)
        self._seq += count

    def copied(self, event: Event, text: str) -> None:  # noqa: B027  # most formats do not collect
        """Takes the text of deltas that are written already, if `collects_text`."""

    def keep(self, event: Event) -> None:  # noqa: B027  # the ends of most formats repeat nothing
        """Takes an event whose frames are an upstream's own, if `collects_text`."""

    def keep_text(self, event: Event, text: str) -> None:  # noqa: B027  # the ends of most formats repeat nothing
        """Takes the text of deltas whose frames are an upstream's own, if `collects_text`."""

    def note_copied(self, count: int) -> None:  # noqa: B027  # frames of most formats have no numbers
        """Takes the number of frames of an upstream's that were passed on unread."""

    def heartbeat(self) -> None:
        """Writes a keep-alive."""
        self._out.append(b": ping\n" if self._sse else b"\n")

    def take(self) -> bytes:
        """The bytes written since the last call."""
        return b"".join(self.take_pieces())

    def take_pieces(self) -> list[Piece]:
        """The bytes written since the last call, in pieces."""
        taken, self._out = self._out, []
        return taken

    @abstractmethod
    def _encode(self, event: Event) -> None:
        """Writes the event's objects with `_frame`."""
        raise NotImplementedError

    def _frame(self, data: bytes) -> None:
        self._frame_at = len(self._out)
        self._out.append(self._lead + data + self._trail)

    def _stamp(self) -> None:
        # On the event's last frame only: a client that was cut off between two frames has not seen the event. Never a
        # block of its own: OpenAI's Python SDK reads that as an event.
        if self._frame_at < 0:
            return
        lines = b"id: %b.%d\n" % (self._ids, self._seq)
        if self._retry_ms is not None:
            lines += b"retry: %d\n" % self._retry_ms
            self._retry_ms = None
        self._out.insert(self._frame_at, lines)


OTHERS: tuple[str, ...] = ("audio.delta", "image", "safety", "server_tool", "tool.result")
"""`WholeEncoder.others` of an answer that has all of them; JSON so far and parts of images are in what comes later."""


@mypyc_attr(allow_interpreted_subclasses=True)
class WholeEncoder(ABC):
    """An encoder of one JSON object, written once the stream has finished.

    After an error it has no bytes: the error response has its own body (`Format.error_body`).

    Args:
        context: The stream.
    """

    others: ClassVar[tuple[str, ...]] = ()
    """Types of events that no member of a `Result` holds, and that the answer has."""

    def __init__(self, context: StreamContext) -> None:
        self._context = context
        self._collector = Collector(plain=False, others=self.others)
        self._out = b""

    @property
    def seq(self) -> int:
        """The number of the one piece, which a log keeps."""
        return 1

    def event(self, event: Event) -> None:
        """Takes one event; `done` makes the answer."""
        self._collector.event(event)
        if event["type"] == "done" and event["finished"]:
            result = self._collector.result()
            if self._context.metrics is not None:
                result.metrics = self._context.metrics()
            self._out = self._answer(result)

    def heartbeat(self) -> None:  # noqa: B027  # no format has one
        """Writes nothing: the response has not begun, since its status is still open."""

    def take(self) -> bytes:
        """The answer, once."""
        taken, self._out = self._out, b""
        return taken

    def take_pieces(self) -> list[Piece]:
        """The answer as one piece, where there is one."""
        taken = self.take()
        return [taken] if taken else []

    @abstractmethod
    def _answer(self, result: Result) -> bytes:
        """The answer's JSON."""
        raise NotImplementedError
