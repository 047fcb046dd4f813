"""The calls by which a program asks a gateway, in this process or on a server: `Answer` and `Task`.

Owns the forms of an answer without events, and the methods that both kinds of gateway share (`Asking`). Must not know
either kind of gateway.
"""

from __future__ import annotations

import copy
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Generator, Mapping
from types import TracebackType
from typing import Any, Final, Protocol, Self

from gai_fast.core.callbacks import EventManager
from gai_fast.core.collector import Collector
from gai_fast.core.result import Result
from gai_fast.core.run import NOBODY_ASKED
from gai_fast.kernels import NotJSON, encode_json
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.events import Event
from gai_fast.model.request import Request

_log: Final = logging.getLogger("gai_fast.tools")

NativeRequest = Mapping[str, Any]
"""A native request (docs/http-api.md): the mapping that the server accepts as JSON."""


class AnswerStream(Protocol):
    """One answer as a stream of events."""

    id: str

    async def __aenter__(self) -> Self:
        """Sends the request."""

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the stream."""

    def __aiter__(self) -> AsyncIterator[Event]:
        """Iterates over the events."""

    async def result(self) -> Result:
        """Returns the complete answer."""

    async def cancel(self) -> None:
        """Stops the upstream."""


class Answer:
    """One answer as text. Made by `Gateway.ask` and `Task.stream`.

    `async for` yields the text in pieces; `await` returns the `Result`. Use one of them, once.

    Raises:
        Error: The request cannot be made, or the answer failed. Iteration first yields the text that came before the
            failure.
    """

    def __init__(self, stream: AnswerStream) -> None:
        self._stream = stream

    def __await__(self) -> Generator[Any, None, Result]:
        return self._whole().__await__()

    async def _whole(self) -> Result:
        async with self._stream as stream:
            result = await stream.result()
        if any(message["role"] == "tool" and NOBODY_ASKED in str(message) for message in result.messages):
            _warn()
        return result

    async def __aiter__(self) -> AsyncIterator[str]:
        ends = Collector()  # not the stream's own result, which may be too large
        async with self._stream as stream:
            async for event in stream:
                if event["type"] == "text.delta" and not event.get("choice"):
                    yield event.get("text", "")
                elif event["type"] == "tool.result":
                    if event.get("tool_result") == NOBODY_ASKED:
                        _warn()
                elif event["type"] in ("start", "error"):
                    ends.event(event)
            ends.result().raise_for_error()


def _warn() -> None:
    _log.warning("ask() asks nobody: a call that needs an approval was denied; use stream(), and stream.decide()")


def unasked(request: NativeRequest) -> NativeRequest:
    """Returns a request whose answer shows no approvals: none is waited for, unless the request says so."""
    return request if "approvals" in request else {**request, "approvals": "deny"}


_SETTABLE: Final = frozenset(Request.__struct_fields__)


class Task:
    """A request under construction. Made by `Gateway.task`. Each step returns a new task: a task can be reused.

    Example:
        >>> brief = gateway.task().system("Be brief.").model("fast")
        >>> result = await brief.prompt("Explain recursion").ask()
    """

    def __init__(self, gateway: Asking, request: dict[str, Any]) -> None:
        self._gateway = gateway
        self._request = request

    def system(self, text: str) -> Task:
        """Sets the system prompt."""
        return self.set(system=text)

    def prompt(self, text: str) -> Task:
        """Sets the prompt."""
        return self.set(query=text)

    def messages(self, messages: list[dict[str, Any]]) -> Task:
        """Sets the messages before the prompt."""
        return self.set(messages=messages)

    def model(self, name: str) -> Task:
        """Sets the model."""
        return self.set(model=name)

    def temperature(self, value: float) -> Task:
        """Sets the temperature, from 0 to 2."""
        return self.set(temperature=value)

    def max_tokens(self, count: int) -> Task:
        """Sets the maximum length of the answer, in tokens."""
        return self.set(max_tokens=count)

    def set(self, **fields: Any) -> Task:
        """Sets any fields of the native request.

        Raises:
            TypeError: A field is unknown.
        """
        unknown = fields.keys() - _SETTABLE
        if unknown:
            raise TypeError(f"a native request has no field {min(unknown)!r}")
        # Copied: the caller may change its own values afterwards.
        return Task(self._gateway, {**self._request, **copy.deepcopy(fields)})

    def stream(self) -> Answer:
        """Asks for the text of the answer as it streams."""
        return Answer(self._gateway.stream(unasked(self._request)))

    def events(self) -> AnswerStream:
        """Asks for the answer as events."""
        return self._gateway.stream(self._request)

    async def ask(self) -> Result:
        """Asks for the complete answer.

        Raises:
            Error: The request cannot be made, or the answer failed.
        """
        return await self.stream()


class Asking(ABC):
    """The methods of both kinds of gateway that need only `stream`."""

    @abstractmethod
    def stream(self, request: str | NativeRequest, events: EventManager | None = None) -> AnswerStream:
        """Asks for one answer as events."""

    def ask(self, request: str | NativeRequest, **fields: Any) -> Answer:
        """Asks for one answer as text: iterate over the pieces, or await the `Result`.

        Args:
            request: The prompt, or a native request.
            fields: More fields of the request: `model`, `temperature`, …

        Raises:
            TypeError: The request is neither text nor a mapping.
        """
        return Answer(self.stream(unasked(asked(request, fields))))

    def task(self) -> Task:
        """Starts a request that is built step by step."""
        return Task(self, {})


def checked_request(request: Any) -> NativeRequest:
    """Returns a native request unchanged, and that of a prompt.

    Raises:
        TypeError: The request is neither text nor a mapping.
    """
    if isinstance(request, str):
        return {"query": request}
    if not isinstance(request, Mapping):
        kind = type(request).__name__
        raise TypeError(f"a native request is a mapping such as {{'query': 'Hello'}}; this is {kind}")
    return request


def checked_events(events: Any) -> EventManager | None:
    """Returns the callbacks of a stream unchanged.

    Raises:
        TypeError: They are no `EventManager`.
    """
    if events is not None and not isinstance(events, EventManager):
        kind = type(events).__name__
        raise TypeError(f"events must be an EventManager, such as EventManager(on_delta=function); this is {kind}")
    return events


class _NotSendable(InvalidRequest, ValueError):
    """The request has a value that JSON cannot express. Also a `ValueError`, as every value without a JSON form is."""


def request_body(request: NativeRequest) -> bytes:
    """Returns a native request as JSON.

    Raises:
        InvalidRequest: It has a value that JSON cannot express; the text names the member. Also a `ValueError`.
    """
    try:
        return encode_json(dict(request))
    except NotJSON as problem:
        raise _NotSendable(message=f"The request is not valid: {problem}", reason="validation") from None


def check_decision(approval_id: str, decision: str, digest: str, reason: str | None) -> None:
    """Checks what a program says of a call: neither a URL nor a record can have half of a surrogate pair.

    Args:
        approval_id: As for `decide`.
        decision: As for `decide`.
        digest: As for `decide`.
        reason: As for `decide`.

    Raises:
        InvalidRequest: A value is not valid; the text names it.
    """
    for name, value in (("approval_id", approval_id), ("digest", digest), ("reason", reason or "")):
        if not isinstance(value, str):
            raise InvalidRequest(message=f"{name}: must be a text, not {type(value).__name__}", reason="validation")
        half = _HALF.search(value)
        if half is not None:
            text = f"{name}: half of a surrogate pair, which no text may have, at character {half.start()}"
            raise InvalidRequest(message=text, reason="validation")
    if decision not in ("approve", "deny"):
        raise InvalidRequest(message="decision: must be 'approve' or 'deny'", reason="validation")


_HALF: Final = re.compile("[\ud800-\udfff]")


def asked(request: str | NativeRequest, fields: Mapping[str, Any]) -> NativeRequest:
    """Returns the request of `ask`: a prompt or a native request, with more fields.

    Raises:
        TypeError: The request is neither text nor a mapping.
    """
    return {**checked_request(request), **fields}


_DIGITS: Final = 15
"""Maximum digits of an event's number: as in the ids that a server accepts."""


def event_number(stream_id: str, after: str | int | None) -> int:
    """Returns the number of the event that `after` names; 0 if `after` is `None`.

    Raises:
        ValueError: `after` names no event of this stream.
    """
    number = after
    if isinstance(after, str):
        name, _, digits = after.rpartition(".")
        is_number = digits.isascii() and digits.isdecimal() and len(digits) <= _DIGITS
        number = int(digits) if name == stream_id and is_number else -1
    if number is None:
        return 0
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 10**_DIGITS:
        raise ValueError(f"`after` must be the `seq` of an event, or `{stream_id}.<seq>`")
    return number
