"""The interface of a provider: `API` asks an upstream, `Adapter` reads its answer.

A provider's file has one `API` object per API of that provider. `API.adapter()` makes one `Adapter` per answer. Neither
awaits, opens anything or reads a clock. Knows no provider by name. What several providers share stands beside this
file: `_requests.py`, `_chunks.py`, `_events.py`, `_failures.py`, `_room.py` and `_tool_calls.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Final, Literal

import orjson
from msgspec import Struct, defstruct
from mypy_extensions import mypyc_attr

from gai_fast import errors
from gai_fast._impl import encode_json
from gai_fast.errors import Error, Malformed, Said, Unsupported
from gai_fast.events import Event
from gai_fast.providers._chunks import parse_chunk
from gai_fast.providers._failures import error_object, said_of
from gai_fast.providers._requests import is_given, merged
from gai_fast.providers._room import Room
from gai_fast.reading import check_members
from gai_fast.request import Message, Request

Framing = Literal["sse", "ndjson"]

_ACCEPTED: Final = {"sse": "text/event-stream", "ndjson": "application/x-ndjson"}


class Target:
    """Whom a request is for.

    Args:
        model: The id the upstream is asked for.
        api_key: The credential, revealed; `None` where the upstream needs none.
        on_unsupported: What becomes of a field that the provider has no place for: refused, or left out.
        dropped: The paths of the fields that were left out, in order; filled by `API.leave_out`.
    """

    __slots__ = ("api_key", "dropped", "model", "on_unsupported")

    def __init__(
        self, model: str, api_key: str | None = None, on_unsupported: Literal["error", "drop"] = "error"
    ) -> None:
        self.model = model
        self.api_key = api_key
        self.on_unsupported = on_unsupported
        self.dropped: list[str] = []


class UpstreamRequest:
    """What goes on the wire; `path` is appended to the configured `base_url`."""

    __slots__ = ("body", "headers", "method", "path")

    def __init__(self, path: str, body: bytes, headers: Sequence[tuple[str, str]] = (), method: str = "POST") -> None:
        self.path = path
        self.body = body
        self.headers = headers
        self.method = method


@mypyc_attr(allow_interpreted_subclasses=True)
class API(ABC):
    """One API of one provider: stateless, shared by all requests."""

    provider: ClassVar[str]
    """The adapter's name without `:api`, as events say it."""
    dialect: ClassVar[str] = ""
    """The client format whose requests and answers this API speaks unchanged; empty: none."""
    framing: ClassVar[Framing] = "sse"
    answers_in_arrays: ClassVar[bool] = False
    """Whether the chunks may also come as the elements of one JSON array, as they are made."""
    base_url: ClassVar[str] = ""
    """As the provider's own SDK takes it; empty: the configuration must say."""
    key_variable: ClassVar[str] = ""
    """The usual environment variable of the credential; empty: none."""
    host_variable: ClassVar[str] = ""
    """The environment variable from which the provider's own SDK reads its address; empty: none."""
    path: ClassVar[str] = ""
    """Where requests go, below `base_url`."""
    recording: ClassVar[str] = ""
    """The name of a file beside this package that is replayed instead of asking an upstream; empty: none."""
    stream_options: ClassVar[Mapping[str, bool]] = {}
    """What is asked of a stream beside its text, where the API has a place for that."""
    finish_words: ClassVar[Mapping[str, str]] = {}
    """The `finish_reason` that each of the provider's words means; `other` for all that are not here."""
    failure_words: ClassVar[frozenset[str]] = frozenset()
    """Words in place of a finish reason that mean that the answer failed."""
    lacks: ClassVar[frozenset[str]] = frozenset()
    """Fields of a native request, by name, that this API has no place for whatever they say; see `possible`."""
    options: ClassVar[Mapping[str, Any]] = {}
    """The types, as msgspec takes them, of the members of `provider_options` that this API reads itself. Each may also
    be `null`; all other members go to the upstream as they are, which judges them."""

    def build_request(self, request: Request, target: Target) -> UpstreamRequest:
        """The provider's own request for a native one: `body`, with `provider_options` merged in, on its way.

        Raises:
            InvalidRequest: An option has a wrong type, or a field a value that no provider takes.
            Unsupported: The provider cannot do what a field asks for, and `target` does not say to leave it out; the
                text names the field.
        """
        options = request.provider_options.get(self.provider)
        if options:
            self.check_options(options, f"$.provider_options.{self.provider}")
        body = self.body(self.possible(request, target), target)
        return self.post(merged(body, options) if options else body, target)

    @abstractmethod
    def body(self, request: Request, target: Target) -> dict[str, Any]:
        """The JSON body for a native request, without `provider_options`.

        Args:
            request: The request, without the fields that this API `lacks`. Its options have been checked.
            target: Whom it is for; `leave_out` says what becomes of what else has no place.

        Raises:
            InvalidRequest, Unsupported: As `build_request`.
        """
        # Compiled, a class that lacks a method can be made, and an empty body would end the process.
        raise NotImplementedError

    def post(self, body: dict[str, Any], target: Target) -> UpstreamRequest:
        """The request that carries a body; APIs override it whose path or headers depend on the body."""
        return UpstreamRequest(self.path, encode_json(body), self.headers(target))

    def headers(self, target: Target) -> list[tuple[str, str]]:
        """The headers of a request, with the credential where there is one."""
        common = [("content-type", "application/json"), ("accept", _ACCEPTED[self.framing])]
        return [*common, self.key_header(target.api_key)] if target.api_key else common

    def key_header(self, api_key: str) -> tuple[str, str]:
        """The header that carries the credential."""
        return "authorization", f"Bearer {api_key}"

    @abstractmethod
    def adapter(self, model: str | None = None) -> Adapter:
        """A fresh reader for one answer.

        Args:
            model: The id that was asked for, told where the provider names none.
        """
        raise NotImplementedError

    def address(self, value: str) -> str:
        """The base URL that a value of `host_variable` means."""
        return value

    def said(self, body: Any) -> Said | None:
        """What an error body says, or `None` where this object is no error.

        Args:
            body: Parsed JSON of any shape.
        """
        error = error_object(body)
        return None if error is None else said_of(error)

    def build_passthrough(self, body: Mapping[str, Any], target: Target) -> UpstreamRequest:
        """A client's own request in this API's dialect, with the model replaced and written anew.

        Raises:
            InvalidRequest: A member that `options` names has a wrong type.
            Unsupported: This API speaks no client dialect.
        """
        if not self.dialect:
            raise Unsupported(message=f"{self.provider} does not take this request as it is")
        self.check_options(body, "$")
        return self.post({**body, "model": target.model}, target)

    def unsupported(self, field: str) -> Unsupported:
        """The refusal of a request's field that this API has no place for, where nothing can be left out."""
        # A part of the path may be the caller's own word, of any length.
        return Unsupported(message=f"{self.provider} does not support `{field[:200]}`", reason="field")

    def leave_out(self, field: str, target: Target, what: str = "") -> None:
        """Refuses a field of the native request, or notes that it is left out, as `on_unsupported` says.

        The one place that asks for the setting: `build_request` calls this for everything that the provider has no
        place for, and goes on without it where this returns.

        Args:
            field: Its path in the native request: `seed`, `reasoning.max_tokens`, `tools[1].strict`,
                `messages[2].content[1]`; `reading.turns` has the paths of messages.
            target: Whom the request is for.
            what: What there is about it, for the message: `audio parts in tool messages`.

        Raises:
            Unsupported: `on_unsupported` is `error`; the text names the field.
        """
        if target.on_unsupported == "error":
            refusal = self.unsupported(field)
            raise Unsupported(message=f"{refusal.message}: {what}", reason=refusal.reason) if what else refusal
        target.dropped.append(field)

    def leave_out_part(
        self, path: str, part: Any, message: Message, target: Target, *, only_its_type: bool = False
    ) -> None:
        """`leave_out` for a part of a message.

        Args:
            path: Where the part stands in the native request.
            part: The part.
            message: The message that holds it.
            target: Whom the request is for.
            only_its_type: Parts of its kind have a place, but not with its media type.
        """
        kind = part.__struct_config__.tag
        role = message.__struct_config__.tag
        what = f"{kind} of type {part.media_type}" if only_its_type else f"{kind} parts in {role} messages"
        self.leave_out(path, target, what)

    def possible(self, request: Request, target: Target) -> Request:
        """The request without the fields that this API `lacks`.

        Raises:
            Unsupported: As `leave_out`.
        """
        if not self.lacks:
            return request
        lacking = [
            name for name in request.__struct_fields__ if name in self.lacks and is_given(getattr(request, name))
        ]
        if not lacking:
            return request
        for name in lacking:
            self.leave_out(name, target)
        kept = {name: getattr(request, name) for name in request.__struct_fields__ if name not in lacking}
        return Request(**kept)

    def check_options(self, given: Mapping[str, Any], path: str) -> None:
        """Checks the members of a caller's object that this API reads itself, by the types that `options` declares.

        Args:
            given: `provider_options` of this provider, or a body in this API's dialect.
            path: Where the object stands in the caller's request, from `$` on.

        Raises:
            InvalidRequest: A member has another type; the text names its path and never quotes a value.
        """
        if not self.options.keys().isdisjoint(given):
            check_members(given, options_type(self), path)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes, now_ms: int | None = None) -> Error:
        """The error for an answer with a status of 400 or above.

        Args:
            status: The HTTP status.
            headers: Lower-case names.
            body: As much of the body as `limits.error_body` allows.
            now_ms: Milliseconds since the epoch, for a `Retry-After` date.
        """
        try:
            said = self.said(orjson.loads(body))
        except (ValueError, RecursionError):  # no JSON, or nested too deep to be told
            said = None
        if said is None:
            said = Said(_plain_text(body) or f"{self.provider} answered with status {status}")
        said = Said(said.message, said.words, status, said.retry_after_ms, said.details)
        if status != _TOO_MANY:
            # OpenAI tells of its limits in every answer; they are no reason for a failure of another kind.
            headers = {name: value for name, value in headers.items() if "ratelimit" not in name}
        wait = errors.retry_after_ms(headers, said.message, now_ms, said.retry_after_ms)
        return errors.from_upstream(said, phase="first_event", provider=self.provider, retry_after_ms=wait)


@cache
def options_type(api: API) -> type[Struct]:
    """The type of a caller's object whose members have the types that `API.options` declares."""
    members = [(name, kind | None, None) for name, kind in api.options.items()]
    return defstruct(type(api).__name__, members)


_TOO_MANY: Final = 429


def _plain_text(body: bytes) -> str:
    """A body that is no JSON as a message; markup says nothing to a caller."""
    text = body.decode("utf-8", "replace").strip()
    return "" if text.startswith("<") else text


@mypyc_attr(allow_interpreted_subclasses=True)
class Adapter(ABC):
    """Reads one answer: chunks in, events out.

    The relay calls `receive` for every chunk, then exactly one of `finish` and `abort`. What `receive` raises is the
    relay's to judge: `Malformed` for a chunk that cannot be read, `Error` for a failure that the provider told.
    """

    api: API
    ended: bool = False
    """The provider's end mark has come: nothing that follows counts."""

    text_members: ClassVar[frozenset[str]] = frozenset()
    """Names of the members whose string is, unchanged, the text of a delta. A chunk that became one such delta may be
    learned, and later ones of its kind are copied without `receive`; empty: none ever is."""
    ignored_members: ClassVar[frozenset[str]] = frozenset()
    """Names of members that vary from chunk to chunk and on whose value nothing that is told depends."""
    label_members: ClassVar[frozenset[str]] = frozenset()
    """Names of members at the top of a chunk that must be texts, but nothing depends on what they say."""
    kept_members: ClassVar[frozenset[str]] = frozenset()
    """Names of members whose value is an object of numbers, of which only the last one of a stream counts."""
    collects_text: ClassVar[bool] = False
    """Whether `copied` is given visible text as well as arguments."""
    chunk: str = ""
    """The text of the chunk at hand, where the adapter notes it."""
    copyable: bool = True
    """Whether chunks like the last one may be copied: what `receive` made of it depends on nothing but its bytes."""

    is_plain: bool = False
    """Whether a chunk like the last one is copyable whatever came before: it becomes what `expected` gives, where that
    gives anything."""

    def __init__(self, api: API, model: str | None = None) -> None:
        self.api = api
        self.model = model
        self.named = False
        """Whether the provider has said which model answers; what it says first holds."""
        self.started = False
        self.usage: dict[str, Any] | None = None
        self.room = Room()
        """For everything that is kept of the answer."""

    @abstractmethod
    def receive(self, name: str, data: str) -> list[Event]:
        """Reads one chunk.

        Args:
            name: The SSE event name, empty where there is none.
            data: The chunk's text.

        Raises:
            Malformed: The chunk is not what the API promises.
            Error: The provider says that it failed.
        """
        raise NotImplementedError

    @abstractmethod
    def receive_whole(self, answer: Any, text: str = "") -> list[Event]:
        """Reads an answer that came as one JSON object instead of a stream.

        Args:
            answer: The parsed object.
            text: Its JSON text, from which argument objects are taken verbatim; without it they are written anew.

        Raises:
            Malformed, Error: As `receive`.
        """
        raise NotImplementedError

    @abstractmethod
    def finish(self) -> list[Event]:
        """The last events, `finish` included: the end mark has come, or the body has ended.

        Raises:
            Error: The provider never said why it finished, or the reason it gave is a failure.
        """
        raise NotImplementedError

    def copied(self, event: Event, characters: int, text: str) -> None:  # noqa: B027  # most have nothing to note
        """Notes deltas that were copied.

        Args:
            event: One of their kind, as `receive` returned it; without its text.
            characters: Code points of all their texts.
            text: All their texts in order, of `arguments` and what `collects_text` asks for; empty for other deltas.
        """

    def expected(self) -> Event | None:
        """The delta that a plain chunk would become now; `None`: that cannot be said before it has come.

        Not for adapters that `collects_text`.
        """
        return None

    def kept(self, name: str, text: str) -> None:  # noqa: B027  # most have nothing to note
        """Notes the last of the `kept_members` that was copied.

        Args:
            name: Its name.
            text: Its JSON text.
        """

    def abort(self) -> list[Event]:
        """What is complete though the answer is not: called once before an `error`."""
        return []

    def seed(self, choice: int = 0) -> str:
        """What the id of a call is made from that has none: the chunk at hand, with the answer's id or its time.

        Args:
            choice: The number of the call's choice.
        """
        return f"{choice} {self.chunk[:512]} {self.chunk[-512:]}"

    def start(self, identifier: str | None, model: str | None) -> list[Event]:
        """The `start` event, once; the relay adds the ids it owns.

        Args:
            identifier: The provider's own id of the answer.
            model: The model as the provider reports it.
        """
        if model and not self.named:
            self.model, self.named = model, True
        if self.started:
            return []
        self.started = True
        event: Event = {"type": "start", "provider": self.api.provider}
        if self.model:
            event["model"] = self.model
        if identifier:
            event["provider_metadata"] = {"id": identifier}
        return [event]

    def end(self, finish_reason: str, raw: str | None) -> Event:
        """The `finish` event."""
        event: Event = {"type": "finish", "provider": self.api.provider}
        if self.model:
            event["model"] = self.model
        if self.usage:
            event["usage"] = self.usage
        event["finish_reason"] = finish_reason
        if raw:
            event["finish_reason_raw"] = raw
        return event

    def error(self, said: Said) -> Error:
        """The error for what the provider said in the stream; the relay fills in the phase."""
        wait = errors.retry_after_ms({}, said.message, None, said.retry_after_ms)
        return errors.from_upstream(said, phase="first_event", provider=self.api.provider, retry_after_ms=wait)

    def checked(self, chunk: Any, name: str = "") -> dict[str, Any]:
        """A parsed chunk, which must be an object and tell of no failure: where most adapters begin.

        Args:
            chunk: Parsed JSON of any shape.
            name: The SSE event name, empty where there is none.

        Raises:
            Error: The chunk tells of a failure.
            Malformed: It is no object.
        """
        said = self.failure(chunk, name)
        if said is not None:
            raise self.error(said)
        if not isinstance(chunk, dict):
            raise Malformed(f"a chunk is a JSON {type(chunk).__name__}, not an object")
        return chunk

    def failure(self, chunk: Any, name: str = "") -> Said | None:
        """What a chunk tells of a failure, or `None`; adapters override it whose grammar says more than its shape."""
        return self.api.said(chunk)

    def told(self, data: str) -> Error:
        """The error for an event that is named one, in whatever shape its data is."""
        try:
            said = self.api.said(parse_chunk(data))
        except Malformed:
            said = None
        return self.error(said or Said(data))

    def truncated(self) -> Error:
        """The error for an answer that ended without saying why (CONTRACT §5 "Ends")."""
        return Error(
            "network",
            f"{self.api.provider} ended the answer before it was complete",
            reason="truncated",
            provider=self.api.provider,
        )

    def spliced(self) -> Error:
        """The error for an answer amid which another one begins: the two cannot be told apart any more."""
        return Error(
            "provider_unavailable",
            f"{self.api.provider} began another answer amid the first",
            reason="spliced_answer",
            provider=self.api.provider,
        )
