"""The interface of processors, event → events; `chain.py` has the chain that runs them in order.

A processor is one file: the settings type of a `[[processor]]` entry, and the processor that it makes for one stream.
Nothing here awaits, opens anything or reads a clock: time is an argument.

Rules:

1. `start`, `finish`, `error` and `done` pass in their place; a processor neither drops nor makes them.
2. Events keep their order. A processor emits the events that it holds back before the next event of another kind.
3. A processor ends its stream early by raising `Error` or `Stop` once, at `start` and `stream.reset` behind the event.
   After that it passes everything. The relay makes an `Error` the `error` event, and a `Stop` the `finish`.
4. In a chain whose events have no `seq` yet, a processor that joins n events sets `seq` 0 and `from_seq` 1 - n. The
   chain numbers them.
5. A processor that waits for a verdict says so (`holds`): the answer's `finish` comes behind it. Such a processor is
   woken by what it waits for (`connect`), and its `due_ms` is then a time that has passed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Final, Literal, Protocol

from msgspec import Struct

from gai_fast.model.errors import Error, GaiFastError
from gai_fast.model.events import Event, FinishReason

FRAME: Final = frozenset({"start", "finish", "error", "done"})
"""The events that make a stream legal: every processor passes them."""

Touches = Literal["events", "deltas"]
"""The events of a stream that a processor must see.

* `events`: all but deltas, which may be copied without being parsed.
* `deltas`: all."""


class Stop(GaiFastError):
    """Ends a stream properly before its answer does: rule 3.

    Args:
        finish_reason: The `finish_reason` of the stream.
        reason: The `reason` of its `finish`: why the gateway ends it.
    """

    def __init__(self, finish_reason: FinishReason, reason: str) -> None:
        super().__init__(f"the stream ends: {finish_reason}, {reason}")
        self.finish_reason: FinishReason = finish_reason
        self.reason = reason


class StreamInfo(Struct, frozen=True):
    """Facts about a stream that a processor may know before the first event.

    Args:
        stream_id: The stream's id.
        request_id: The request's id.
        trace_id: The 32 hex digits of `traceparent`. `None` if there is no trace.
        model: The model that the client requested.
        wants_json: Whether the request's `response_format` is JSON.
        schema: The JSON text of the response format's JSON Schema. `None` if there is none.
        json_snapshots: Milliseconds between two `json.snapshot` events. `None` if the request asks for none.
        prompt: Returns the request's text, for a tokenizer.
        caller: The name of the request's caller.
        said: What is said of the request: events that come behind `start`.
        placeholders: What stands in the request in place of own words, for the stage that puts them back. None if there
            are none.
    """

    stream_id: str = ""
    request_id: str = ""
    trace_id: str | None = None
    model: str = ""
    wants_json: bool = False
    schema: bytes | None = None
    json_snapshots: int | None = None
    prompt: Callable[[], str] | None = None
    caller: str = ""
    said: tuple[Event, ...] = ()
    placeholders: object | None = None


class Processor(ABC):
    """One stage of one stream: event in, zero or more events out."""

    touches: Touches = "deltas"
    changes_text: ClassVar[bool] = False
    """Whether the processor replaces texts of the model, which no later event may then hold."""
    hides_scores: ClassVar[bool] = False
    """Whether the processor leaves out all probabilities of tokens (`logprobs`)."""

    @abstractmethod
    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        """Processes an event.

        Args:
            event: The next event. It must not be changed: other code may hold it.
            now_ms: Milliseconds since any fixed moment.

        Raises:
            Error: The stream must end with this error. The events yielded before it are emitted.
            Stop: The stream must end with a `finish`; as for `Error`.
        """

    @property
    def due_ms(self) -> int | None:
        """The time to call `flush` if no event comes before, on the clock of `process`. `None` if there is none."""
        return None

    def flush(self, now_ms: int = 0) -> Iterable[Event]:
        """Returns the events that are held back until a time or until more text; raises as `process`."""
        return ()

    @property
    def holds(self) -> bool:
        """Whether the processor holds text or waits for a verdict: `finish` must wait."""
        return False

    @property
    def waiting(self) -> int:
        """The characters that wait for a verdict. Text that waits for more text does not count: more must be read."""
        return 0

    def release(self, now_ms: int = 0) -> Iterable[Event]:
        """Returns the events that are held back until more text, because no more comes; raises as `process`.

        What waits for a verdict stays held.
        """
        return self.flush(now_ms)

    def announce(self, finish: Event, now_ms: int = 0) -> Event:
        """Looks at what a provider says beside the `finish` that comes next, while it may still wait for a verdict.

        Args:
            finish: The `finish`, which has `provider_metadata`.
            now_ms: As for `process`.

        Returns:
            The `finish` as it will pass.
        """
        return finish

    def told(self, error: Error) -> Error:
        """Returns the error that ends the stream as a client may read it: it may quote what the model has said."""
        return error

    def connect(self, wake: Callable[[], None] | None) -> None:  # noqa: B027  # most wait for nothing
        """Receives the function that flushes the chain as soon as an event has become due by itself.

        Args:
            wake: Called on the loop's thread, never within a call of the processor. None if the stream is over.
        """


class Preface(Processor):
    """Puts events behind `start`.

    Args:
        events: The events.
    """

    touches: Touches = "events"

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        """Passes an event; behind `start` the others."""
        return (event, *self._events) if event["type"] == "start" else (event,)


class ProcessorSettings(Protocol):
    """A checked `[[processor]]` entry."""

    def processor(self, stream: StreamInfo) -> Processor | None:
        """Returns the processor of a stream. `None` if the stream needs none.

        Raises:
            Error: The processor cannot serve this request; nothing has been sent.
        """
