"""The interface of a wire format: it turns a stream's events into a client's bytes.

A format is one `Format` object: its name, its framings and the shape of its errors. `encoder()` creates one encoder per
stream. An encoder is a sink for the relay's events and buffers the bytes until `take`. This module awaits nothing,
opens nothing and reads no clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, NamedTuple, Protocol

from mypy_extensions import mypyc_attr

from gai_fast.core.collector import Collector
from gai_fast.core.requests.gateway_calls import GivenDecision
from gai_fast.core.requests.shapes import RequestShape
from gai_fast.core.requests.texts import Text, has_tokens, texts_in
from gai_fast.core.result import Result
from gai_fast.core.sinks import DeltaSink, FrameSink
from gai_fast.kernels import Part, Piece, encode_json
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.request import Request
from gai_fast.runtime.breathing import breathe

Framing = Literal["sse", "ndjson"]

MEDIA_TYPES: Final[dict[str, str]] = {"sse": "text/event-stream; charset=utf-8", "ndjson": "application/x-ndjson"}


class KeptAnswer:
    """Whether one answer is kept, as its objects state it, and the last of these objects, which its encoder sets.

    Only Responses has such objects: `store` and `previous_response_id` of its `response`.

    Args:
        is_kept: The answer is kept: `store`.
        parent: The id of the answer that this one continues: `previous_response_id`. None if there is none.

    Attributes:
        identifier: The id of the answer, as the client has it. Empty before the last object.
        status: Its status.
        response: The last object.
        items: The ids of its items.
        piece: The last bytes of the response with this object, as the encoder has written them.
    """

    def __init__(self, *, is_kept: bool, parent: str | None = None) -> None:
        self.is_kept = is_kept
        self.parent = parent
        self.identifier = ""
        self.status = ""
        self.response = b""
        self.items: Sequence[str] = ()
        self.piece: Piece = b""
        self._without: Callable[[KeptAnswer], bytes] | None = None

    def leave(
        self,
        identifier: str,
        status: str,
        response: bytes,
        items: Sequence[str],
        piece: Piece = b"",
        without: Callable[[KeptAnswer], bytes] | None = None,
    ) -> None:
        """Receives the last object.

        Args:
            identifier: The id of the answer.
            status: Its status.
            response: The object, as JSON.
            items: The ids of its items.
            piece: The frame with the object, if the client gets it.
            without: Returns the frame for an answer that could not be kept, which it is given. It refers to neither the
                answer nor its encoder: both would keep the object until the next collection.
        """
        self.identifier = identifier
        self.status = status
        self.response = response
        self.items = items
        self.piece = piece
        self._without = without

    def without(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """Returns the last bytes of a response whose answer could not be kept.

        Args:
            pieces: The last bytes of the encoder.
        """
        write = self._without
        return pieces if write is None else [write(self) if each is self.piece else each for each in pieces]


class StreamContext:
    """The facts about a stream that an encoder needs.

    Args:
        stream_id: The stream's id (`x-gai-stream-id`).
        request_id: Written in the envelope and in errors.
        trace_id: The 32 hex digits of `traceparent`, or None without that header.
        model: The model's name as the client wrote it.
        clock: Returns milliseconds since the epoch.
        envelope: The choice of the client or the configuration, or None for the framing's default.
        timestamps: Write `ts` on every event.
        ids: Write `id:` lines: the stream is durable.
        retry_ms: Written as `retry:` in the first frame of a durable stream, or None for no such line.
        usage: Write usage in formats whose clients must ask for it.
        hides_usage: The gateway asks the upstream for usage, but the client did not ask for it and is not sent it.
        metrics: Returns the measurements of the stream, as in `Result.metrics`.
        echo: Members of the client's request that answers in its dialect repeat.
        follows: The events come from a log and carry the numbers for the `id:` lines.
        kept: What the answer's objects say of its being kept. None if they repeat what the request or the upstream
            says.
    """

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
        kept: KeptAnswer | None = None,
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
        self.kept = kept

    @property
    def echoed(self) -> dict[str, Any] | None:
        """The members of a log's first event for encoders of the client's dialect: `echo`, and those of `kept`."""
        kept = self.kept
        if kept is None:
            return {**self.echo, "store": False} if self.echo else None
        return {**self.echo, "store": kept.is_kept, "previous_response_id": kept.parent}

    def repeat(self, echoed: Mapping[str, Any]) -> None:
        """Repeats what the first event of a log has.

        Args:
            echoed: Its `echo`; from a store.
        """
        parent = echoed.get("previous_response_id")
        self.echo = {name: value for name, value in echoed.items() if name != "store"}
        if self.kept is None:
            self.kept = KeptAnswer(is_kept=echoed.get("store") is True, parent=parent)


class Encoder(Protocol):
    """Encodes one stream into one buffer."""

    @property
    def seq(self) -> int:
        """The number of the last event; 0 if the encoder does not number events."""

    def event(self, event: Event) -> None:
        """Writes the format's objects for this event, if it has any."""

    def heartbeat(self) -> None:
        """Writes a keep-alive; only called between two events."""

    def take(self) -> bytes:
        """Returns the bytes written since the last call."""

    def take_pieces(self) -> Sequence[Piece]:
        """Returns the bytes written since the last call, unjoined: a writer that frames them copies them only once."""


class StreamEncoder(Encoder, DeltaSink, Protocol):
    """An encoder that writes a stream as its events arrive."""


class RestingEncoder(StreamEncoder, Protocol):
    """An encoder of a format whose clients answer approvals in their next request."""

    def rest(self) -> None:
        """Ends a response whose run waits for its client."""

    def go_on(self) -> None:
        """Begins the response that goes on behind such an end: the client has all that was written before."""


class PassthroughEncoder(Encoder, FrameSink, Protocol):
    """An encoder that also accepts the upstream's own frames; for a stream it is a `StreamEncoder` too."""


class ItemMark(NamedTuple):
    """The place of an item of an earlier answer that other providers do not understand.

    Attributes:
        place: Its index in the conversation.
        provider: The provider that answered; empty if it is unknown.
        is_reasoning: It is reasoning, of which a translation keeps the text.
    """

    place: int
    provider: str
    is_reasoning: bool


class ClientRequest:
    """A request in a client's dialect: the facts that a route needs for any model.

    Args:
        body: The client's JSON object.
        model: The model's name, or None for the default.
        stream: The answer is a stream, otherwise one JSON object.
        wants_usage: The client asks for the usage of a stream.
        form: The object with the form of the answer, such as `response_format`; None if there is none.
        shape: The contents besides texts, for the rules of the upstream's provider; None if they were not read.
        wants_json: The client asks for an answer in JSON.
        prompt_characters: Characters of the prompt, for an estimate if the upstream counts no tokens.
        background: The answer is generated even if the client does not wait for it.
        echo: Members of the request that the answer repeats, as in `StreamContext`.

    Attributes:
        whole: Whether the answer is one JSON object; an answer in the background is always a stream.
        is_linked: Whether the request may name an earlier response, or items of one.
        marks: The items of earlier answers that other providers do not understand, in order.
        native: The result of `Format.parse_request`, or its error, if the body is translated already.
        attributed: The same of `Format.parse_attributed`, if that differs and an upstream may need it.
    """

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
        form: Any = None,
        shape: RequestShape | None = None,
    ) -> None:
        self.attributed: tuple[Request, list[str]] | Error | None = None
        self.native: tuple[Request, list[str]] | Error | None = None
        self.is_linked = False
        self.marks: Sequence[ItemMark] = ()
        self.body = body
        self.shape = shape
        self.form = form
        self.model = model
        self.stream = stream
        self.whole = not stream and not background
        self.wants_usage = wants_usage
        self.wants_json = wants_json
        self.prompt_characters = prompt_characters
        self.background = background
        self.echo = echo

    def body_for(self, provider: str | None) -> dict[str, Any]:
        """Returns the body without the items that others than their provider do not understand.

        Args:
            provider: The provider of the dialect that is asked. None for a translation, which keeps reasoning.
        """
        return without_marked(self.body, self.marks, provider) if self.marks else self.body

    @property
    def schema(self) -> bytes | None:
        """The JSON text of the JSON Schema that the answer must meet; None if there is none."""
        form = self.form
        if isinstance(form, dict) and isinstance(form.get("json_schema"), dict):  # Chat Completions nest it
            form = form["json_schema"]
        schema = form.get("schema") if isinstance(form, dict) else None
        return encode_json(schema) if isinstance(schema, dict) else None

    def prompt(self) -> str:
        """Returns the text of the request in its dialect, without its images and files."""
        members = [self.body.get(name) for name in ("system", "instructions", "messages", "input")]
        return "\n".join(text for member in members for text in _texts(member))


def without_marked(body: dict[str, Any], marks: Sequence[ItemMark], provider: str | None) -> dict[str, Any]:
    """Returns a body without marked items of `input` that a provider does not understand.

    Args:
        body: The client's JSON object, with a list as `input`.
        marks: The marked items.
        provider: As for `ClientRequest.body_for`.
    """
    if provider is None:
        left = {mark.place for mark in marks if not mark.is_reasoning}
    else:
        left = {mark.place for mark in marks if mark.provider and mark.provider != provider}
    if not left:
        return body
    return {**body, "input": [item for at, item in enumerate(body["input"]) if at not in left]}


def _texts(value: Any) -> Iterator[str]:
    """Yields the texts of a client's messages of any shape."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for name in ("content", "text", "output"):
            yield from _texts(value.get(name))


@mypyc_attr(allow_interpreted_subclasses=True)
class Format(ABC):
    """One wire format: stateless, shared by all streams."""

    name: ClassVar[str]
    framings: ClassVar[tuple[Framing, ...]] = ("sse", "ndjson")
    passed_headers: ClassVar[tuple[str, ...]] = ()
    """Names of request headers that are forwarded with the body to an upstream of the dialect."""
    without_effect: ClassVar[frozenset[str]] = frozenset()
    """The members of a request that do not change its answer: an upstream that lacks them is asked without them."""
    can_reset: ClassVar[bool] = False
    """Whether the format can void everything that was sent (`stream.reset`)."""
    asks_approvals: ClassVar[bool] = False
    """Whether clients of the format can be asked for an approval of a call, and mostly know how to."""
    rests: ClassVar[bool] = False
    """Whether a response ends where its run waits for approvals: the client's next request has the answers. The
    encoders are `RestingEncoder`s."""
    can_reset_step: ClassVar[bool] = False
    """Whether the format can void what was sent of one step (`step.reset`)."""
    shares_native_routes: ClassVar[bool] = False
    """Whether the native routes accept this dialect's requests if the client asks for this format."""
    copies_upstream: ClassVar[bool] = False
    """Whether the encoders are `FrameSink`s for the frames of every upstream; they write nothing from events."""
    headers: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Headers of a stream's response besides those of every stream."""
    repeats_answer: ClassVar[bool] = False
    """Whether the end of a stream repeats its answer: it cannot be written without the earlier events."""
    keepalives: ClassVar[bool] = False
    """Whether keep-alives are events, which have the number of the last event."""
    tells_programs_apart: ClassVar[bool] = False
    """Whether `for_program` may return another format."""
    text_members: ClassVar[tuple[str, ...]] = ()
    """The names of the members of a request that have texts of the conversation."""
    allows_retry_frames: ClassVar[bool] = True
    """Whether frames of a second attempt may be passed on after frames of a failed one were."""

    @abstractmethod
    def encoder(self, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Creates the encoder of one stream."""
        raise NotImplementedError

    @abstractmethod
    def whole(self, context: StreamContext) -> Encoder:
        """Creates an encoder that writes one JSON object at the end (`"stream": false`)."""
        raise NotImplementedError

    def passthrough(self, framing: Framing, context: StreamContext, *, whole: bool) -> PassthroughEncoder | None:
        """Creates an encoder for an upstream of this dialect, or returns None if the answer must be translated.

        Args:
            framing: The framing that the client asked for.
            context: The stream.
            whole: The answer is one JSON object.
        """
        return None

    def version(self, name: str) -> Format:
        """Returns the format for clients of a version.

        Args:
            name: The version, from a client.

        Raises:
            ValueError: The version is unknown; the text lists the known ones.
        """
        raise ValueError(f"format {self.name!r} has no versions")

    def for_program(self, user_agent: str | None) -> Format:
        """Returns the format for a client's program, by its `User-Agent`: most have none of their own."""
        return self

    def owns_request(self, body: dict[str, Any]) -> bool:
        """Returns whether a body sent to a native route is a request in this dialect (`shares_native_routes`).

        Args:
            body: The client's JSON object.
        """
        return False

    def given_decisions(self, body: dict[str, Any]) -> Sequence[GivenDecision]:
        """Returns what a client's request decides about calls of the run that its last response has shown.

        Args:
            body: The client's JSON object, which `parse_request` has read.

        Raises:
            InvalidRequest: A decision is not valid.
        """
        return ()

    def answer_format(self, body: dict[str, Any]) -> Format:
        """Returns the format of the answer to a request for which `owns_request` is true.

        Args:
            body: The client's JSON object.

        Raises:
            InvalidRequest: A member that the answer repeats is not valid.
        """
        return self

    def successor(self, before: PassthroughEncoder, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Creates an encoder that continues an answer whose first frames were an upstream's own.

        Args:
            before: The encoder that passed these frames on; they had no content.
            framing: The framing that the client asked for.
            context: The stream.
        """
        output = self.encoder(framing, context)
        # The passed frames already hold the role. SDKs would append a second role to the first.
        output.event({"type": "start"})
        output.take()
        return output

    def streamed(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """Returns a copy of a client's body that asks for a stream, for an answer that is read as events.

        Args:
            body: The client's JSON object, for an upstream of this dialect.

        Returns:
            The copy, or None if such a request must be translated.
        """
        return None

    def without_refusal(self, body: dict[str, Any], lost: Sequence[str]) -> list[str]:
        """Returns the paths of what is left out for every client, and never refused.

        Args:
            body: The client's JSON object.
            lost: The paths of what a native request cannot express.
        """
        return [path for path in lost if path in self.without_effect]

    def without_attribution(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns a client's body without the text by which its program is billed; the body itself if it has none.

        Args:
            body: The client's JSON object.
        """
        return body

    def texts(self, body: dict[str, Any]) -> list[Text]:
        """Returns the texts of a client's request in this dialect, each with its place.

        Args:
            body: The client's JSON object.
        """
        return texts_in(body, self.text_members, breathe)

    def has_tokens(self, body: dict[str, Any]) -> bool:
        """Returns whether a request in this dialect has a prompt of token ids.

        Args:
            body: The client's JSON object.
        """
        return has_tokens(body)

    def parse_attributed(self, body: dict[str, Any]) -> tuple[Request, list[str]]:
        """Translates a client's request with that text. Raises as `parse_request`, which leaves it out.

        Args:
            body: The client's JSON object.
        """
        return self.parse_request(body)

    def is_continued(self, body: dict[str, Any]) -> bool:
        """Returns whether an answer to a client's body may go on after a failure: not if a prefill cannot hold it.

        Args:
            body: The client's JSON object.
        """
        return True

    def with_messages(self, body: dict[str, Any], messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Returns a copy of a client's body with more messages at the end of its conversation.

        Args:
            body: The client's JSON object, for an upstream of this dialect.
            messages: The messages: `role` and `content`, a text, which are the same in all dialects.

        Raises:
            InvalidRequest: The conversation has another type.
        """
        raise self._no_requests()

    def counted_characters(self, asked: ClientRequest) -> int:
        """Returns the characters by which the tokens of a request are estimated if a client asks for their number."""
        return asked.prompt_characters

    def count_body(self, tokens: int) -> dict[str, Any]:
        """Returns the answer to a request for the number of its tokens."""
        return {"input_tokens": tokens}

    def started_response(self, context: StreamContext) -> dict[str, Any]:
        """Returns the response object for a new answer in the background.

        Args:
            context: The stream, which has just started.
        """
        raise self._no_requests()

    def read_request(self, body: dict[str, Any]) -> ClientRequest:
        """Reads the members of a request in this dialect that all routes and upstreams need.

        Args:
            body: The client's JSON object.

        Raises:
            InvalidRequest: The text names the member.
        """
        raise self._no_requests()

    def with_usage(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns a copy of the request that asks for usage, or the request itself if every answer has usage.

        Args:
            body: The client's JSON object.
        """
        raise self._no_requests()

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
            Unsupported: Only an upstream of this dialect can answer the request, whatever `on_unsupported` is.
        """
        raise self._no_requests()

    def error_body(self, error: Error, request_id: str) -> bytes:
        """Returns the body of an error response; only for errors before a stream starts."""
        payload = {**error.payload(), "request_id": request_id}
        return encode_json({"error": payload})

    def error_status(self, error: Error) -> int:
        """Returns the status of an error response."""
        return error.status

    def media_type(self, framing: Framing) -> str:
        """Returns the `content-type` of a stream."""
        return MEDIA_TYPES[framing]

    def whole_media_type(self, pieces: Sequence[Piece]) -> str:
        """Returns the `content-type` of a whole answer.

        Args:
            pieces: The answer's body.
        """
        return "application/json"


@mypyc_attr(allow_interpreted_subclasses=True)
class DataEncoder(ABC):
    """An encoder for formats with one `data:` line per SSE frame; in NDJSON each object is one line.

    Owns the framing, the keep-alive, the `id:` lines and the buffer. A format's `_encode` turns an event into objects.

    Args:
        framing: The framing that the client asked for.
        context: The stream.
    """

    def __init__(self, framing: Framing, context: StreamContext) -> None:
        self._sse = framing == "sse"
        self._lead, self._trail = (b"data: ", b"\n\n") if self._sse else (b"", b"\n")
        self._ids = context.stream_id.encode() if self._sse and context.ids else b""
        self._retry_ms = context.retry_ms
        self._out: list[Piece] = []
        self._frame_at = -1
        self._seq = 0
        self.has_blocks = False
        """As `DeltaSink.has_blocks`; set by formats whose deltas stand in blocks."""
        self.collects_text = False
        """As `DeltaSink.collects_text`; set by formats whose end repeats the answer."""

    def event(self, event: Event) -> None:
        """Writes the format's objects for this event, if it has any."""
        self._frame_at = -1
        self._encode(event)
        if event["type"] != "done":
            self._seq = event.get("seq", self._seq + 1)
            if self._ids:
                self._stamp()

    @property
    def seq(self) -> int:
        """The number of the last event, as the log stores it; frames carry it in `id:` lines only."""
        return self._seq

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """Returns the parts of a delta like this one.

        Encodes the delta with two one-letter texts: the frames differ only at the place of the text.
        """
        first, second = (self._written({**event, key: letter}) for letter in "ab")  # type: ignore[misc]  # the key depends on the type
        places = [at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other]
        if len(first) != len(second) or len(places) != 1:
            return None
        return self._parts(first[: places[0]], first[places[0] + 1 :])

    def _written(self, event: Event) -> bytes:
        """Returns the frames of an event without adding them to the buffer."""
        kept, self._out = self._out, []
        try:
            self._encode(event)
            return b"".join(self._out)
        finally:
            self._out = kept

    def _parts(self, head: bytes, tail: bytes) -> Sequence[Part] | None:
        """Returns the parts of a frame: before the text, the text, after it. With ids, an `id:` line comes first.

        None while `retry:` must still be written: the first frame has more lines.
        """
        if not self._ids:
            return head, "text", tail
        return None if self._retry_ms is not None else (b"id: %b." % self._ids, "seq", b"\n" + head, "text", tail)

    def append_frames(self, frames: Piece, count: int, characters: int = 0) -> None:
        """Appends frames of deltas that the kernel has encoded."""
        self._out.append(frames)
        self._seq += count

    def copied(self, event: Event, text: str) -> None:  # noqa: B027  # most formats do not collect
        """Receives the text of deltas that the kernel has encoded: with `has_blocks` arguments, or all of it."""

    def keep(self, event: Event) -> None:  # noqa: B027  # the ends of most formats repeat nothing
        """Receives an event whose upstream frames were passed on, if `collects_text`."""

    def keep_text(self, event: Event, text: str) -> None:  # noqa: B027  # the ends of most formats repeat nothing
        """Receives the text of deltas whose upstream frames were passed on, if `collects_text`."""

    def note_copied(self, count: int) -> None:  # noqa: B027  # frames of most formats have no numbers
        """Receives the number of upstream frames that were passed on unparsed."""

    def heartbeat(self) -> None:
        """Writes a keep-alive."""
        self._out.append(b": ping\n" if self._sse else b"\n")

    def take(self) -> bytes:
        """Returns the bytes written since the last call."""
        return b"".join(self.take_pieces())

    def take_pieces(self) -> list[Piece]:
        """Returns the bytes written since the last call, unjoined."""
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
        # The `id:` line stands in the event's last frame only: a client that was disconnected between two frames of an
        # event gets the event again. It is never a frame of its own: OpenAI's Python SDK would read it as an event.
        if self._frame_at < 0:
            return
        lines = b"id: %b.%d\n" % (self._ids, self._seq)
        if self._retry_ms is not None:
            lines += b"retry: %d\n" % self._retry_ms
            self._retry_ms = None
        self._out.insert(self._frame_at, lines)


def block_members(event: Event) -> dict[str, Any]:
    """Returns the members of a `provider.block` that a client sends back, for formats without this event."""
    return {"provider": event["provider"], "block": event["block"]}


def warning_members(event: Event) -> dict[str, Any]:
    """Returns what a `warning` says, for formats without this event."""
    members = {"reason": event.get("reason", ""), **event.get("provider_metadata", {})}
    if "guard" in event:
        members["guard"] = event["guard"]
    return members


OTHERS: tuple[str, ...] = (
    "approval.decided",
    "approval.required",
    "audio.delta",
    "image",
    "safety",
    "server_tool",
    "tool.result",
)
"""`WholeEncoder.others` for answers with all of these; later events repeat partial JSON and partial images."""
CALLS_TOO: tuple[str, ...] = (*OTHERS, "tool.call")
"""`OTHERS` and `tool.call`: for answers in which only the client's calls are parts, and the gateway's are events."""

_OF_RUNS: Final = (
    *("call_id", "tool_call", "tool_result", "executed_by", "server", "parts", "approval", "is_error", "attempt"),
    *("duration_ms", "truncated"),
)


def run_members(event: Event) -> dict[str, Any]:
    """Returns the members of an event about a gateway's call, for formats that lack the event."""
    return {key: event[key] for key in _OF_RUNS if key in event}


def result_text(event: Event) -> str:
    """Returns a `tool.result` as text, for formats that have no other results."""
    value = event.get("tool_result", "")  # events have no empty members
    return value if isinstance(value, str) else encode_json(value).decode()


@mypyc_attr(allow_interpreted_subclasses=True)
class WholeEncoder(ABC):
    """An encoder of one JSON object, written when the stream has finished.

    After an error it writes nothing: the body of the error response comes from `Format.error_body`.

    Args:
        context: The stream.
    """

    others: ClassVar[tuple[str, ...]] = ()
    """Types of events that the answer contains although `Result` has no member for them."""

    def __init__(self, context: StreamContext) -> None:
        self._context = context
        self._collector = Collector(plain=False, others=self.others)
        self._out = b""

    @property
    def seq(self) -> int:
        """1: the log stores the answer as one event."""
        return 1

    def event(self, event: Event) -> None:
        """Collects one event; `done` after a `finish` writes the answer."""
        self._collector.event(event)
        if event["type"] == "done" and event["finished"]:
            result = self._collector.result()
            if self._context.metrics is not None:
                result.metrics = self._context.metrics()
            self._out = self._answer(result)

    def heartbeat(self) -> None:  # noqa: B027  # no format has one
        """Writes nothing: the response's headers are sent at the end, when its status is known."""

    def take(self) -> bytes:
        """Returns the answer once, then nothing."""
        taken, self._out = self._out, b""
        return taken

    def take_pieces(self) -> list[Piece]:
        """Returns the answer as one piece, or an empty list before the end."""
        taken = self.take()
        return [taken] if taken else []

    @abstractmethod
    def _answer(self, result: Result) -> bytes:
        """Returns the answer as JSON."""
        raise NotImplementedError
