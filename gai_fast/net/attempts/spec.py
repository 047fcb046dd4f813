"""`StreamSpec`: the description of a stream to start, and the interfaces of the parts that its caller provides.

Data and interfaces only; `engine.py` starts a stream, `session.py` runs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Final, Literal, Protocol, Self

from mypy_extensions import mypyc_attr

from gai_fast.core.requests.shapes import RequestShape
from gai_fast.core.session import NamedSession
from gai_fast.core.sinks import DeltaSink, EventSink, FrameSink
from gai_fast.guards.input import LetThrough
from gai_fast.kernels import Piece
from gai_fast.model.credentials import Credential
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.money import Charge
from gai_fast.model.request import Request
from gai_fast.model.settings import ANONYMOUS, ModelSettings, OnUnsupported
from gai_fast.net.attempts.balance import TargetKey
from gai_fast.net.attempts.records import KeptRecord, RouteRecord, RunRecord
from gai_fast.net.upstream.connection import OpenExchange, Receiver
from gai_fast.otel.trace import Trace
from gai_fast.processors import Chain
from gai_fast.providers import Adapter
from gai_fast.stores import LogHeader


class Output(EventSink, Protocol):
    """Turns the relay's events into bytes."""

    def heartbeat(self) -> None:
        """Writes a keep-alive between two events."""

    def take_pieces(self) -> Sequence[Piece]:
        """Returns the bytes since the last call, in pieces: the writer joins and frames them in one copy."""


class Clock:
    """Milliseconds since the epoch, read once per turn and stream instead of once per event."""

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self.now_ms = read()

    def tick(self) -> int:
        """Reads the time."""
        self.now_ms = self._read()
        return self.now_ms

    def __call__(self) -> int:
        return self.now_ms


_NO_REQUEST: Final[dict[str, Any]] = {}
LIBRARY: Final = "library"
"""The transport of a stream that a program in this process reads."""


Role = Literal["hit", "joined", "miss"]
"""The source of an answer that streams may share: it was kept, another stream began its call, or this one did."""

Parse = Callable[[dict[str, Any]], tuple[Request, list[str]]]

OpenedAttempt = tuple[Adapter, Callable[[Error, bytes], Error], OpenExchange]
"""The result of `Engine.open`: the adapter, the redaction of errors for the client, and the opened exchange."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Sharing:
    """A stream's way to the answers that it may share with others (`net/sharing/answers.py`).

    A class, not a protocol, like `Timers`.

    Attributes:
        role: Where the answer of the attempt comes from.
        upstream: The name of the upstream that was asked for it.
    """

    role: Role
    upstream: str

    def finds(self, spec: StreamSpec) -> bool:
        """Returns whether an attempt needs no call of its own, so that the upstream's breaker does not matter."""
        raise NotImplementedError

    def open(self, spec: StreamSpec, receiver: Receiver, ask: Callable[[Receiver], OpenedAttempt]) -> OpenedAttempt:
        """Makes an attempt, as `Engine.open`.

        Args:
            spec: The attempt.
            receiver: Gets the response.
            ask: Sends the request if no other stream has.
        """
        raise NotImplementedError

    def ended(self, spec: StreamSpec, metrics: StreamMetrics, earlier: tuple[Charge, ...]) -> StreamMetrics | None:
        """Called when the stream has ended.

        Args:
            spec: Its last attempt.
            metrics: Its figures.
            earlier: The costs of all its attempts but the last.

        Returns:
            The figures to be recorded. None if they are recorded later, when the shared call has ended.
        """
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class StreamRun:
    """The run that a stream is (`net/stream/`): what follows a turn of its model.

    A class, not a protocol, like `Timers`.
    """

    @property
    def begins_with_calls(self) -> bool:
        """Whether calls come before the first turn, for which the run asks itself."""
        return False

    @property
    def is_calling(self) -> bool:
        """Whether its calls run or wait, so that no model is asked now."""
        return False

    def begin(self) -> None:
        """Called once the first turn is asked, if the run does not ask for it itself."""
        raise NotImplementedError

    def turn_ended(self, finish: Event) -> None:
        """Called with the end of each turn, within a call of the relay, whose output is sent afterwards.

        Args:
            finish: The provider's `finish`, with the usage of the turn.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Ends the calls that run: the stream is over; idempotent."""
        raise NotImplementedError

    def hear(self, approval_id: str) -> None:
        """Called when a call of the run was decided."""
        raise NotImplementedError

    def seconds_since_wait(self) -> float:
        """Returns the seconds since the run has last waited for an approval; 0 while it does, infinite if it never
        has."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Keeping:
    """How the answer of a stream is kept (`server/requests/keeping.py`).

    A class, not a protocol, like `Timers`.
    """

    @property
    def has_last(self) -> bool:
        """Whether the last event of the answer is written, and not yet sent."""
        raise NotImplementedError

    def recorded(self) -> KeptRecord | None:
        """Returns what another worker needs to keep the answer. None if it could not."""
        return None

    def logged(self, frames: bytes) -> None:
        """Called with frames that the log of the stream gets.

        Args:
            frames: Whole frames.
        """

    def wrote(self, pieces: Sequence[Piece]) -> None:
        """Called with the last bytes of the output, before `ended`.

        Args:
            pieces: The bytes.
        """

    def ended(self, spec: StreamSpec, *, is_left: bool, is_refused: bool) -> asyncio.Future[None] | None:
        """Begins to keep the answer of a stream that has ended.

        Args:
            spec: Its last attempt.
            is_left: The client has left before the end.
            is_refused: The client gets an error response: nothing of the answer has reached it.

        Returns:
            A future that is done once it is known whether the answer is kept. None if that is known.
        """
        raise NotImplementedError

    def last(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """Returns the last bytes of the response as they are sent: they say whether the answer is kept.

        Args:
            pieces: The last bytes of the output.
        """
        raise NotImplementedError


class Asked(Protocol):
    """A request as `candidates.py` sees it: that of a stream, or one that is passed through.

    Attributes:
        model: The model to ask, with its target.
        home: As for `StreamSpec`.
        is_retry: The client marked the request as a retry of its own.
        caller: The name of the request's caller.
    """

    model: ModelSettings
    home: str
    is_retry: bool
    caller: str

    def again(self, *, has_begun: bool) -> Self | None:
        """Returns the request for the same model again. None if its answer cannot follow what the client has.

        Args:
            has_begun: Whether events of an answer have been written.
        """

    def to(self, model: ModelSettings, *, has_begun: bool) -> Self:
        """Returns the request for another model.

        Args:
            model: The other model.
            has_begun: Whether events of an answer have been written.

        Raises:
            Error: The request cannot be put to that model.
        """


@dataclass(slots=True)
class StreamSpec:
    """One answer to ask for.

    Args:
        model: The model to ask.
        request: A native request; or the client's own body, which goes to an upstream of its dialect as it is.
        output: The relay's sink.
        deltas: The same sink, if it accepts encoded deltas.
        frames: The same sink, if the upstream's bytes are passed on unchanged.
        hold: The answer is one JSON object.
        can_reset: The format can announce that everything since `start` is void (`stream.reset`).
        is_continued: A failed answer may be continued, if the model's settings say so (`Format.is_continued`).
        dialect: The name of the format that the client speaks.
        headers: Headers of the client that go with its own body.
        shape: The shape of the client's own body, if its format has found it.
        counts: The tokens of the client's own body are counted, instead of an answer being made.
        is_large: The request has so many messages that it is written for its upstream beside the loop.
        is_kept: The answer is kept for later turns.
        left_out: Paths of the client's fields that have no place in `request`.
        ignored: Paths of such fields that do not change the answer: they are reported, and never refused.
        unsupported: The client's choice for fields that the upstream does not support. None if the model's
            `on_unsupported` decides.
        is_agent: The client is a coding agent.
        prompt_characters: Length of the request's text, for partial usage.
        is_retry: The client marked the request as a retry of its own.
        other: Makes the spec for another model, if more than the model differs. Also gets this spec if events of an
            answer have been written.
        caller: The name of the key that the stream belongs to; `ANONYMOUS` without one, for a program in this process
            too.
        log_header: Describes the stream to its log; its output is an encoder then. None if the stream is not durable.
        chain: The stream's processors, from `Engine.chain`; it lives through every attempt.
        trace: The exported trace of the stream. None if nothing is exported.
        request_id: For the metrics, as the next three.
        trace_id: The 32 hex digits of `traceparent`, if there is one.
        endpoint: The route.
        transport: `sse`, `ndjson`, `ws`, `json` or `LIBRARY`.
        sharing: The way to answers that the stream may share. None if it has its own.
        translated: The client's body that was translated into `request`, and its translation (`Format.parse_request`).
            None if `request` is what the client sent.
        session: The session that the client has named. None if it has not.
        home: The digest by which targets and keys are found again: the session's, or that of the request's beginning.
            Empty if there is none, or nothing to choose from.
        keeping: How the answer is kept. None if it is not.
        credential: The caller's own, for an upstream that takes it. None if the caller sends none.
        let: What guards have let through of the request. None if they have found nothing.
        run: Makes the run of a session and its spec. None if the stream is none.
        recorded_run: What another worker needs to go on with the run. None if there is none.
        recorded: Returns what another worker needs to ask for the same in the client's dialect, and the body that this
            has as JSON. None for a native request, and for a stream that is not durable.
        begun: Returns whether nothing may be asked before its argument is called: the store then has the request. None
            for a stream without a log.
        without: A target, and the path of a member that it has refused and that this request is sent without.
        offered: The names of the gateway's tools in the request, if the stream is a run.
        without_tools: A target, and those of them that it has refused and that this request is sent without.
        tool_refusals: How often it was sent once more without some of them.
    """

    model: ModelSettings
    request: Request | dict[str, Any]
    output: Output
    deltas: DeltaSink | None = None
    frames: FrameSink | None = None
    _: KW_ONLY
    hold: bool = False
    can_reset: bool = False
    is_continued: bool = True
    dialect: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    shape: RequestShape | None = None
    counts: bool = False
    is_large: bool = False
    is_kept: bool = False
    left_out: Sequence[str] = ()
    ignored: Sequence[str] = ()
    unsupported: OnUnsupported | None = None
    is_agent: bool = False
    prompt_characters: int | None = None
    is_retry: bool = False
    other: Callable[[ModelSettings, StreamSpec | None], StreamSpec] | None = None
    caller: str = ANONYMOUS
    log_header: LogHeader | None = None
    chain: Chain | None = None
    trace: Trace | None = None
    request_id: str = ""
    trace_id: str | None = None
    endpoint: str = ""
    transport: str = ""
    sharing: Sharing | None = None
    translated: tuple[dict[str, Any], Parse] | None = None
    session: NamedSession | None = None
    home: str = ""
    keeping: Keeping | None = None
    credential: Credential | None = None
    let: LetThrough | None = None
    run: Callable[[Any, StreamSpec], StreamRun] | None = None
    recorded_run: RunRecord | None = None
    without: tuple[TargetKey, str] | None = None
    offered: frozenset[str] = frozenset()
    without_tools: tuple[TargetKey, tuple[str, ...]] | None = None
    tool_refusals: int = 0
    recorded: Callable[[], tuple[RouteRecord, dict[str, Any]]] | None = None
    begun: Callable[[Callable[[], None]], bool] | None = None

    @property
    def on_unsupported(self) -> OnUnsupported:
        """Whether a field that the upstream does not support is refused or left out."""
        chosen = self.unsupported or self.model.stream.on_unsupported
        if chosen != "auto":
            return chosen
        return "drop" if self.is_agent else "error"

    @property
    def answering(self) -> str:
        """The name of the upstream that answers. For a shared answer it may be another target of the model."""
        return self.model.upstream.name if self.sharing is None else self.sharing.upstream

    def drop_request(self) -> None:
        """Drops a request that is not sent again: its body may be large."""
        self.request, self.other, self.translated = _NO_REQUEST, None, None

    def again(self, *, has_begun: bool) -> StreamSpec | None:
        """Returns the spec for the same model again. None if it cannot follow the frames that the client has.

        Args:
            has_begun: Whether events of an answer have been written.
        """
        if self.frames is None or self.hold or self.other is None or not has_begun:
            return self
        try:
            return self.to(self.model, has_begun=True)
        except Error:
            return None  # the upstream reads more of its dialect than can be translated

    def to(self, model: ModelSettings, *, has_begun: bool) -> StreamSpec:
        """Returns the same spec for another model.

        Args:
            model: The other model.
            has_begun: Whether events of an answer have been written to the output.

        Raises:
            Error: The request cannot be put in the dialect of the other model.
        """
        if self.other is None:
            return replace(self, model=model)
        spec = self.other(model, self if has_begun else None)
        spec.sharing = self.sharing
        spec.keeping = self.keeping
        spec.trace = self.trace
        spec.chain = self.chain
        spec.run = self.run
        return spec
