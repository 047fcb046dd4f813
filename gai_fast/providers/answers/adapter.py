"""The base of all adapters. `gai_fast/core/adapter.py` has the interface that the relay calls."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Final

from mypy_extensions import mypyc_attr

from gai_fast.core.adapter import Adapter, ResponseAPI
from gai_fast.core.json.chunks import parse_chunk
from gai_fast.core.requests.stored_ids import stored_ids
from gai_fast.model.errors import Error, Malformed
from gai_fast.model.events import Event
from gai_fast.model.limits import SHARED
from gai_fast.model.money import Amount, amount_of
from gai_fast.model.retry_after import retry_after_ms
from gai_fast.model.upstream_errors import UpstreamFailure, from_upstream
from gai_fast.providers.answers.finish_words import FAILURE_WORDS, FINISH_WORDS, known_word
from gai_fast.providers.answers.limits import LIMITS
from gai_fast.providers.answers.room import Room

_LONGEST_ID: Final = LIMITS.stored_id
_MOST_IDS: Final = LIMITS.stored_ids
_END: Final[Event] = {
    "type": "finish",
    "provider": "",
    "model": "",
    "usage": {},
    "finish_reason": "",
    "finish_reason_raw": "",
}


@mypyc_attr(allow_interpreted_subclasses=True)
class ProviderAdapter(Adapter):
    """The base of all adapters: the start and the end of a response, and its errors."""

    chunk: str = ""
    """The text of the current chunk; empty if the adapter does not set it."""

    def __init__(self, api: ResponseAPI, model: str | None = None) -> None:
        super().__init__(api)
        self.model = model
        self.named = False
        """Whether the provider has named the model; the first name holds."""
        self.room = Room()
        """Limits the memory for everything that the adapter keeps of the response."""

    def cost_in(self, usage: dict[str, Any]) -> Amount | None:
        """Returns the cost that the provider reports in its usage, or None. By default OpenRouter's `cost`, in dollars.

        Args:
            usage: The provider's usage object.
        """
        cost = usage.get("cost")
        return None if cost is None else amount_of(cost)  # `amount_of(None)` costs 1,200 instructions

    def keep_ids(self, raw: Any) -> None:
        """Adds the ids in a part of the answer to `stored_ids`.

        Args:
            raw: A part whose dialect has ids of files or containers there.
        """
        for each in stored_ids(raw):
            self.keep_id(each.identifier)

    def keep_id(self, identifier: str) -> None:
        """Adds an id to `stored_ids`, unless it is empty or too long, or there are too many."""
        if 0 < len(identifier) <= _LONGEST_ID and len(self.stored_ids) < _MOST_IDS:
            self.stored_ids.append(identifier)

    def abort(self) -> list[Event]:
        return []

    def seed(self, choice: int = 0) -> str:
        """Returns the text from which the id of a call without an id is derived.

        The text is from the current chunk, which holds the response's id or its time.

        Args:
            choice: The number of the call's choice.
        """
        return f"{choice} {self.chunk[:512]} {self.chunk[-512:]}"

    def start(self, identifier: str | None, model: str | None) -> list[Event]:
        if model and not self.named:
            # Formats repeat the model in every frame: a long name would turn one read of short deltas into megabytes.
            self.model, self.named = model[: SHARED.model_name], True
        if self.started:
            return []
        self.started = True
        event: Event = {"type": "start", "provider": self.api.provider}
        if self.model:
            event["model"] = self.model
        if identifier:
            self.identifier = identifier
            event["provider_metadata"] = {"id": identifier}
        return [event]

    def end(self, finish_reason: str, raw: str | None) -> Event:
        event: Event
        if self.model and self.usage and raw:  # nearly all responses; a copy of the members takes half of the time
            event = _END.copy()
            event["provider"] = self.api.provider
            event["model"] = self.model
            event["usage"] = self.usage
            event["finish_reason"] = finish_reason
            event["finish_reason_raw"] = raw
            return event
        event = {"type": "finish", "provider": self.api.provider}
        if self.model:
            event["model"] = self.model
        if self.usage:
            event["usage"] = self.usage
        event["finish_reason"] = finish_reason
        if raw:
            event["finish_reason_raw"] = raw
        return event

    def word(self) -> str:
        return ""

    def check_word(self, word: str, message: str = "") -> None:
        """Checks the provider's finish reason.

        Args:
            word: The finish reason.
            message: The provider's explanation, empty if it sent none.

        Raises:
            Error: The word means that the answer failed.
        """
        if word in self.api.failure_words or (word not in FINISH_WORDS and known_word(word) in FAILURE_WORDS):
            raise self.error(UpstreamFailure(message, (known_word(word),)))

    def error(self, failure: UpstreamFailure) -> Error:
        wait = retry_after_ms({}, failure.message, None, failure.retry_after_ms)
        return from_upstream(failure, phase="first_event", provider=self.api.provider, retry_after_ms=wait)

    def checked(self, chunk: Any, name: str = "") -> dict[str, Any]:
        """Checks that a parsed chunk is an object that reports no failure, and returns it.

        Args:
            chunk: Parsed JSON of any shape.
            name: The SSE event name, empty if there is none.

        Raises:
            Error: The chunk reports a failure.
            Malformed: The chunk is not an object.
        """
        failure = self.failure(chunk, name)
        if failure is not None:
            raise self.error(failure)
        if not isinstance(chunk, dict):
            raise Malformed(f"a chunk is a JSON {type(chunk).__name__}, not an object")
        return chunk

    def failure(self, chunk: Any, name: str = "") -> UpstreamFailure | None:
        """Returns the failure that a chunk reports, or None. Overridden if the chunk's shape alone does not decide."""
        return self.api.read_failure(chunk)

    def error_event(self, data: str) -> Error:
        """Returns the error for an SSE event named `error`. Its data may have any shape."""
        try:
            failure = self.api.read_failure(parse_chunk(data))
        except Malformed:
            failure = None
        return self.error(failure or UpstreamFailure(data))

    def truncated(self) -> Error:
        return Error(
            "network",
            f"{self.api.provider} ended the answer before it was complete",
            reason="truncated",
            provider=self.api.provider,
        )

    def unreadable(self) -> Error:
        """Returns the error for text of the answer that cannot be read, in a chunk whose other parts were read."""
        return Error(
            "provider_unavailable",
            f"{self.api.provider} sent text of the answer that cannot be read",
            reason="malformed_chunk",
            provider=self.api.provider,
        )

    def spliced(self) -> Error:
        """Returns the error for a response that begins within another response: the two cannot be separated."""
        return Error(
            "provider_unavailable",
            f"{self.api.provider} began another answer within the first",
            reason="spliced_answer",
            provider=self.api.provider,
        )


@mypyc_attr(allow_interpreted_subclasses=True)
class WrappingAdapter(Adapter):
    """The base of adapters that change the events of another one.

    Args:
        inner: The provider's adapter.
    """

    def __init__(self, inner: Adapter) -> None:
        super().__init__(inner.api)
        self._inner = inner
        self.copyable = False  # a chunk becomes other events than those of the inner adapter

    @abstractmethod
    def read(self, events: list[Event]) -> list[Event]:
        """Returns the events in place of those of the inner adapter."""
        raise NotImplementedError

    def receive(self, name: str, data: str) -> list[Event]:
        self._inner.started = self.started  # the relay resets it if a `start` was lost
        try:
            events = self._inner.receive(name, data)
        finally:
            self._follow()
        return self.read(events)

    def receive_whole(self, answer: Any, text: str = "") -> list[Event]:
        try:
            events = self._inner.receive_whole(answer, text)
        finally:
            self._follow()
        return self.read(events)

    def finish(self) -> list[Event]:
        return self._read(self._inner.finish())

    def abort(self) -> list[Event]:
        return self._read(self._inner.abort())

    def start(self, identifier: str | None, model: str | None) -> list[Event]:
        return self._read(self._inner.start(identifier, model))

    def end(self, finish_reason: str, raw: str | None) -> Event:
        return self._inner.end(finish_reason, raw)

    def word(self) -> str:
        return self._inner.word()

    def billed(self, usage: dict[str, Any]) -> dict[str, Any]:
        return self._inner.billed(usage)

    def failure(self, chunk: Any, name: str = "") -> UpstreamFailure | None:
        return self._inner.failure(chunk, name)

    def error(self, failure: UpstreamFailure) -> Error:
        return self._inner.error(failure)

    def truncated(self) -> Error:
        return self._inner.truncated()

    def may_hold_text(self, chunk: dict[str, Any]) -> bool:
        return self._inner.may_hold_text(chunk)

    def _read(self, events: list[Event]) -> list[Event]:
        self._follow()
        return self.read(events)

    def _follow(self) -> None:
        """Copies the facts that the inner adapter has learned."""
        inner = self._inner
        self.ended, self.is_complete, self.started = inner.ended, inner.is_complete, inner.started
        self.identifier, self.usage, self.own_cost = inner.identifier, inner.usage, inner.own_cost
        self.stored_ids, self.searches = inner.stored_ids, inner.searches
