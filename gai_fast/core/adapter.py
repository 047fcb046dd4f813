"""The interfaces through which the core reads a provider's answer: `Adapter` and `ResponseAPI`.

The providers implement them. They are base classes, no protocols: compiled code calls their methods directly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from mypy_extensions import mypyc_attr

from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.money import Amount
from gai_fast.model.upstream_errors import UpstreamFailure

Framing = Literal["sse", "ndjson"]


@mypyc_attr(allow_interpreted_subclasses=True)
class ResponseAPI(ABC):
    """The half of a provider's API that describes responses; stateless, shared by all answers."""

    provider: ClassVar[str]
    """The provider's name without `:api`, as it stands in events."""
    dialect: ClassVar[str] = ""
    """The client format whose requests and answers are this API's own; empty: none."""
    framing: ClassVar[Framing] = "sse"
    answers_in_arrays: ClassVar[bool] = False
    """Whether a stream may also be one JSON array whose elements are the chunks."""
    finish_words: ClassVar[Mapping[str, str]] = {}
    """The `finish_reason` for each of the provider's words; a word that is missing here becomes `other`."""
    failure_words: ClassVar[frozenset[str]] = frozenset()
    """Words in place of a finish reason which mean that the answer failed."""

    @abstractmethod
    def read_failure(self, body: Any) -> UpstreamFailure | None:
        """Reads an error body; returns `None` if the object is no error.

        Args:
            body: Parsed JSON of any shape.
        """
        # mypyc does not keep a class with an abstract method from being instantiated, and crashes on an empty body.
        raise NotImplementedError

    @abstractmethod
    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes, now_ms: int | None = None) -> Error:
        """Returns the error for an answer with a status of 400 or above.

        Args:
            status: The HTTP status.
            headers: Lower-case names.
            body: As much of the body as `limits.error_body` allows.
            now_ms: Milliseconds since the epoch, for a `Retry-After` date.
        """
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Adapter(ABC):
    """Reads one answer: chunks in, events out.

    The relay calls `receive` for every chunk, then exactly one of `finish` and `abort`. `receive` raises `Malformed`
    for a chunk that cannot be read and `Error` for a failure that the provider reports; the relay handles both. If only
    a part of a chunk cannot be read, `receive` may return the events of the other parts and a `warning`.
    """

    api: ResponseAPI
    ended: bool = False
    """The provider's end mark has come; everything after it is ignored."""

    text_members: ClassVar[frozenset[str]] = frozenset()
    """Names of members whose string is the text of a delta, unchanged. The copier may learn a chunk that became one
    such delta; later chunks like it are copied without `receive`. Empty: no chunk is ever copied."""
    ignored_members: ClassVar[frozenset[str]] = frozenset()
    """Names of members that vary from chunk to chunk and that no event depends on."""
    label_members: ClassVar[frozenset[str]] = frozenset()
    """Names of members at the top of a chunk that must be strings, but that no event depends on."""
    kept_members: ClassVar[frozenset[str]] = frozenset()
    """Names of members whose value is an object of numbers, of which only the last one of a stream matters."""
    collects_text: ClassVar[bool] = False
    """Whether `copied` receives visible text as well as arguments."""
    copyable: bool = True
    """Whether chunks like the last one may be copied: the result of `receive` depended on nothing but its bytes."""
    is_plain: bool = False
    """Whether a chunk like the last one may be copied whatever came before it: it becomes the delta that `expected`
    returns, if that returns one."""

    def __init__(self, api: ResponseAPI) -> None:
        self.api = api
        self.started = False
        """Whether `start` has returned its event."""
        self.identifier = ""
        """The provider's own id of the answer; empty: it has none."""
        self.usage: dict[str, Any] | None = None
        """The provider's last count of tokens."""
        self.own_cost: Amount | None = None
        """The provider's own figure of the cost so far, in US dollars."""

    @abstractmethod
    def receive(self, name: str, data: str) -> list[Event]:
        """Reads one chunk.

        Args:
            name: The SSE event name, empty if there is none.
            data: The chunk's text.

        Raises:
            Malformed: The chunk breaks the API's grammar.
            Error: The chunk reports a failure.
        """
        raise NotImplementedError

    @abstractmethod
    def receive_whole(self, answer: Any, text: str = "") -> list[Event]:
        """Reads an answer that came as one JSON object instead of a stream.

        Args:
            answer: The parsed object.
            text: Its JSON text, from which argument objects are taken verbatim; without it they are serialized again.

        Raises:
            Malformed, Error: As `receive`.
        """
        raise NotImplementedError

    @abstractmethod
    def finish(self) -> list[Event]:
        """Returns the last events, `finish` included: the end mark has come, or the body has ended.

        Raises:
            Error: The provider gave no finish reason, or one that means a failure.
        """
        raise NotImplementedError

    @abstractmethod
    def abort(self) -> list[Event]:
        """Returns events for the complete parts of an incomplete answer; called once before an `error`."""
        raise NotImplementedError

    @abstractmethod
    def start(self, identifier: str | None, model: str | None) -> list[Event]:
        """Returns the `start` event, once; the relay adds the ids that it owns.

        Args:
            identifier: The provider's own id of the answer.
            model: The model as the provider reports it.
        """
        raise NotImplementedError

    @abstractmethod
    def end(self, finish_reason: str, raw: str | None) -> Event:
        """Returns the `finish` event.

        Args:
            finish_reason: The reason.
            raw: The provider's word for it.
        """
        raise NotImplementedError

    @abstractmethod
    def word(self) -> str:
        """Returns the provider's finish reason so far, empty if it has given none."""
        raise NotImplementedError

    @abstractmethod
    def failure(self, chunk: Any, name: str = "") -> UpstreamFailure | None:
        """Returns the failure that a chunk reports, or `None`.

        Args:
            chunk: Parsed JSON of any shape.
            name: The SSE event name, empty if there is none.
        """
        raise NotImplementedError

    @abstractmethod
    def error(self, failure: UpstreamFailure) -> Error:
        """Returns the error for a failure that the stream reports; the relay sets the phase."""
        raise NotImplementedError

    @abstractmethod
    def truncated(self) -> Error:
        """Returns the error for an answer that ended without a finish reason."""
        raise NotImplementedError

    def copied(self, event: Event, characters: int, text: str) -> None:  # noqa: B027  # most have nothing to note
        """Notes deltas of one kind that were copied.

        Args:
            event: The delta as `receive` returned it, without its text.
            characters: Code points of all their texts.
            text: The texts joined, for arguments and, with `collects_text`, visible text; empty for other deltas.
        """

    def kept(self, name: str, text: str) -> None:  # noqa: B027  # most have nothing to note
        """Notes the last value of one of the `kept_members` in copied chunks.

        Args:
            name: Its name.
            text: Its JSON text.
        """

    def expected(self) -> Event | None:
        """Returns the delta that a plain chunk would become now, or `None` if that is not known beforehand.

        All answers share the returned event, so it must not be changed. Not for adapters with `collects_text`.
        """
        return None
