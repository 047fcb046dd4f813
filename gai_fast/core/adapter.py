"""The interfaces to a provider's answer: `Adapter` and `ResponseAPI`.

The providers implement them. They are base classes, not protocols: compiled code calls their methods directly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

from mypy_extensions import mypyc_attr

from gai_fast.model.changes import Changes
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.money import Amount
from gai_fast.model.settings import ModelSettings
from gai_fast.model.upstream_errors import UpstreamFailure

Framing = Literal["sse", "ndjson"]


@mypyc_attr(allow_interpreted_subclasses=True)
class ResponseAPI(ABC):
    """The part of a provider's API that describes responses. Stateless, shared by all answers."""

    provider: ClassVar[str]
    """The provider's name without `:api`, as in events."""
    dialect: ClassVar[str] = ""
    """The client format that equals this API's own requests and responses; empty if there is none."""
    framing: ClassVar[Framing] = "sse"
    answers_in_arrays: ClassVar[bool] = False
    """Whether a stream may also be one JSON array whose elements are the chunks."""
    finish_words: ClassVar[Mapping[str, str]] = {}
    """The `finish_reason` for each of the provider's words that other providers do not have. The words of all
    providers are one table; a word that is in neither becomes `other`."""
    failure_words: ClassVar[frozenset[str]] = frozenset()
    """Words that only this provider sends in place of a finish reason if the answer failed."""

    def window(self, model: ModelSettings) -> int | None:
        """Returns the tokens that a model has room for. `None` if that is unknown.

        Args:
            model: The model, with its upstream's id.
        """
        return None

    @abstractmethod
    def read_failure(self, body: Any) -> UpstreamFailure | None:
        """Reads an error body. Returns `None` if the object is not an error.

        Args:
            body: Parsed JSON of any shape.
        """
        # mypyc allows instances of a class with an abstract method, and crashes on an empty body.
        raise NotImplementedError

    @abstractmethod
    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes, now_ms: int | None = None) -> Error:
        """Returns the error for a response with a status of 400 or above.

        Args:
            status: The HTTP status.
            headers: Lower-case names.
            body: As much of the body as `limits.error_body` allows.
            now_ms: Milliseconds since the epoch, for a `Retry-After` date.
        """
        raise NotImplementedError


class ChunkMembers:
    """The names of members that an adapter's class gives the copier.

    Read once for each class: compiled code looks up a member of a class by name, 130 instructions each.
    """

    def __init__(self, adapter: type[Adapter]) -> None:
        self.text = adapter.text_members
        self.ignored = adapter.ignored_members
        self.kept = adapter.kept_members
        self.label = adapter.label_members


_KNOWN_MEMBERS: Final[dict[type, ChunkMembers]] = {}


def _members_of(adapter: type[Adapter]) -> ChunkMembers:
    known = _KNOWN_MEMBERS.get(adapter)
    if known is None:
        known = _KNOWN_MEMBERS[adapter] = ChunkMembers(adapter)
    return known


@mypyc_attr(allow_interpreted_subclasses=True)
class Adapter(ABC):
    """Reads one answer: chunks in, events out.

    The relay calls `receive` for every chunk, then exactly one of `finish` and `abort`. `receive` raises `Malformed` if
    a chunk cannot be read, and `Error` if the provider reports a failure; the relay handles both. If only a part of a
    chunk cannot be read, `receive` may return the events of the other parts and a `warning`.
    """

    api: ResponseAPI
    ended: bool = False
    """Whether the provider's end mark has come. Everything after it is ignored."""
    is_complete: bool = False
    """Whether every choice has its finish reason: only figures and the end mark may follow."""
    wanted_choices: int = 0
    """The number of choices that the request asks for; set by the owner of the request. 0 if that is unknown."""
    tool_names: frozenset[str] = frozenset()
    """The names of the request's tools, as they were sent; set by the owner of the request. Empty if unknown."""

    text_members: ClassVar[frozenset[str]] = frozenset()
    """Names of members whose string is the text of a delta, unchanged. The copier may learn a chunk that became one
    such delta, and then copies similar chunks without `receive`. Empty if no chunk may be copied."""
    ignored_members: ClassVar[frozenset[str]] = frozenset()
    """Names of members that vary between chunks and do not affect any event."""
    label_members: ClassVar[frozenset[str]] = frozenset()
    """Names of top-level members of a chunk that must be strings and do not affect any event."""
    kept_members: ClassVar[frozenset[str]] = frozenset()
    """Names of members whose value is an object of numbers. Only the last value of a stream matters."""
    content_members: ClassVar[frozenset[str]] = frozenset()
    """Names of top-level members of a chunk that may hold text of the answer. Empty if any member may."""
    collects_text: ClassVar[bool] = False
    """Whether `copied` receives visible text in addition to arguments."""
    follows_text: ClassVar[bool] = False
    """Whether `copied` receives the last 64 characters of visible text or more; all, if there are fewer."""
    copyable: bool = True
    """Whether chunks like the last one may be copied: the result of `receive` depended on its bytes alone."""
    is_plain: bool = False
    """Whether a chunk like the last one may be copied in any state: it becomes the delta that `expected` returns, if
    `expected` returns one."""

    def __init__(self, api: ResponseAPI) -> None:
        self.api = api
        self.members = _members_of(type(self))
        """The names of members for the copier."""
        self.started = False
        """Whether `start` has returned its event."""
        self.identifier = ""
        """The provider's id of the answer; empty if it has none."""
        self.usage: dict[str, Any] | None = None
        """The provider's last token counts. `None` if it has sent none."""
        self.searches = 0
        """The searches in the web that the provider has run so far, as it charges them."""
        self.own_cost: Amount | None = None
        """The provider's figure of the cost so far, in US dollars. `None` if it has sent none."""
        self.changes: Changes | None = None
        """The differences between the request for this answer and the client's. `None` if there are none."""
        self.stored_ids: list[str] = []
        """Ids that later requests can use to name what the upstream stores: the answer, and things in it."""

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
            text: The object's JSON text; argument objects are copied from it verbatim. If it is empty, they are
                serialized again.

        Raises:
            Malformed, Error: As `receive`.
        """
        raise NotImplementedError

    @abstractmethod
    def finish(self) -> list[Event]:
        """Returns the last events, including `finish`, after the end mark or the end of the body.

        Raises:
            Error: The provider sent no finish reason, or a reason that means a failure.
        """
        raise NotImplementedError

    @abstractmethod
    def abort(self) -> list[Event]:
        """Returns events for the complete parts of an incomplete answer. Called once before an `error`."""
        raise NotImplementedError

    @abstractmethod
    def start(self, identifier: str | None, model: str | None) -> list[Event]:
        """Returns the `start` event on the first call, then nothing. The relay adds its own ids.

        Args:
            identifier: The provider's id of the answer.
            model: The model that the provider reports.
        """
        raise NotImplementedError

    @abstractmethod
    def end(self, finish_reason: str, raw: str | None) -> Event:
        """Returns the `finish` event.

        Args:
            finish_reason: The reason.
            raw: The provider's finish reason.
        """
        raise NotImplementedError

    @abstractmethod
    def word(self) -> str:
        """Returns the provider's finish reason so far, empty if it has sent none."""
        raise NotImplementedError

    def billed(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Returns the token counts of a complete answer that its provider charges.

        Args:
            usage: The counts that it has used, and nearly always charges.
        """
        return usage

    @abstractmethod
    def failure(self, chunk: Any, name: str = "") -> UpstreamFailure | None:
        """Returns the failure that a chunk reports, or `None` if it reports none.

        Args:
            chunk: Parsed JSON of any shape.
            name: The SSE event name, empty if there is none.
        """
        raise NotImplementedError

    @abstractmethod
    def error(self, failure: UpstreamFailure) -> Error:
        """Returns the error for a failure that the stream reports. The relay sets the phase."""
        raise NotImplementedError

    @abstractmethod
    def truncated(self) -> Error:
        """Returns the error for an answer that ended without a finish reason."""
        raise NotImplementedError

    def receive_text(self, index: int | None, text: str) -> Event | None:
        """Reads a chunk that holds one text and nothing else, as `receive` reads it, from its values instead of JSON.

        Args:
            index: The number of the text's choice or block; None if it has none.
            text: The text, not empty.

        Returns:
            The chunk's event. None if the chunk has more events, or needs `receive`; nothing is read then.
        """
        return None

    def may_hold_text(self, chunk: dict[str, Any]) -> bool:
        """Returns whether a chunk that cannot be read may hold text of the answer; false only if it surely holds none.

        Args:
            chunk: The parsed chunk.
        """
        members = self.content_members
        return any(chunk.get(name) for name in members) if members else bool(chunk)

    def copied(self, event: Event, characters: int, text: str) -> None:  # noqa: B027  # most have nothing to note
        """Records copied deltas of one kind.

        Args:
            event: The delta as `receive` returned it, without its text.
            characters: The code points of all their texts.
            text: The joined texts of arguments and, with `collects_text`, of visible text. With `follows_text` the end
                of visible text, of fewer than 64 characters only if there are no more, or no memory for them. Empty
                for other deltas.
        """

    def kept(self, name: str, text: str) -> None:  # noqa: B027  # most have nothing to note
        """Records the last value of one of the `kept_members` in copied chunks.

        Args:
            name: The member's name.
            text: The value's JSON text.
        """

    def expected(self) -> Event | None:
        """Returns the delta that the next plain chunk will become, or `None` if that is unknown.

        All answers share the returned event, so it must not be changed. Not for adapters with `collects_text`.
        """
        return None
