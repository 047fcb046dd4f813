"""What every provider's file builds on: the interface, tool calls in progress, error bodies.

A provider is one `API` (how to ask) whose `adapter()` makes one `Adapter` per answer (how to read it). Neither awaits,
opens anything or reads a clock. Knows no provider by name.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from typing import Any, ClassVar, Final, Literal

import orjson
from msgspec import UNSET, Struct, defstruct
from mypy_extensions import mypyc_attr

from gai_fast import errors
from gai_fast._impl import compact_json, encode_json, parse_exact
from gai_fast.errors import Error, InvalidRequest, Malformed, Said, Unsupported
from gai_fast.events import Event, JSONText, is_empty, join_surrogates
from gai_fast.limits import LIMITS
from gai_fast.reading import check_members
from gai_fast.request import FilePart, ImagePart, Request

Framing = Literal["sse", "ndjson"]


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
    """The environment variable that the provider's own SDK takes its address from; empty: none."""
    recording: ClassVar[str] = ""
    """The name of a file beside this package that is replayed instead of asking an upstream; empty: none."""
    stream_options: ClassVar[Mapping[str, bool]] = {}
    """What is asked of a stream beside its text, where the API has a place for that."""
    lacks: ClassVar[frozenset[str]] = frozenset()
    """Fields of a native request, by name, that this API has no place for whatever they say; see `possible`."""
    options: ClassVar[Mapping[str, Any]] = {}
    """The types, as msgspec takes them, of the members of `provider_options` that this API reads itself. Each may also
    be `null`; all other members go to the upstream as they are, which judges them."""

    @abstractmethod
    def build_request(self, request: Request, target: Target) -> UpstreamRequest:
        """The provider's own request for a native one.

        Raises:
            Unsupported: The provider cannot do what a field asks for, and `target` does not say to leave it out; the
                text names the field.
        """
        # As below: compiled, a class that lacks a method can be made, and a body that says nothing ends the process.
        raise NotImplementedError

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
            Unsupported: This API speaks no client dialect.
        """
        raise Unsupported(message=f"{self.provider} does not take this request as it is")

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

    def possible(self, request: Request, target: Target) -> Request:
        """The request without the fields that this API `lacks`: where `build_request` begins.

        Raises:
            InvalidRequest: As `check_options`.
            Unsupported: As `leave_out`.
        """
        given = request.provider_options.get(self.provider)
        if given:
            self.check_options(given, f"$.provider_options.{self.provider}")
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


_loads: Final = orjson.loads


def parse_chunk(data: str) -> Any:
    """A chunk's JSON.

    orjson first; the standard library takes what it refuses though providers send it: halves of surrogate pairs.

    Raises:
        Malformed: Not JSON.
    """
    try:
        return _loads(data)
    except orjson.JSONDecodeError as problem:
        try:
            return parse_exact(data)
        except ValueError:
            raise Malformed(f"a chunk of {len(data)} characters is not JSON: {problem.msg}") from None


def parse_object(data: str) -> dict[str, Any]:
    """A chunk that must be a JSON object.

    Raises:
        Malformed: Not JSON, or not an object.
    """
    chunk = parse_chunk(data)
    if not isinstance(chunk, dict):
        raise Malformed(f"a chunk is a JSON {type(chunk).__name__}, not an object")
    return chunk


class ToolCall:
    """One call in progress."""

    __slots__ = ("call_id", "closed", "index", "name", "pieces")

    def __init__(self, call_id: str, name: str = "") -> None:
        self.call_id = call_id
        self.name = name
        self.index: int | None = None
        """Its number among the calls that have been told, once it is one of them."""
        self.pieces: list[str] = []
        self.closed = False

    @property
    def arguments(self) -> str:
        """The argument text as it came."""
        text = "".join(self.pieces)
        return text if text.isascii() else join_surrogates(text)


def _made_id(number: int, seed: str) -> str:
    """The id of a call that the provider gave none: always the same for the same bytes, another one for any other."""
    return f"call_{sha256(f'{number} {seed}'.encode(errors='surrogatepass')).hexdigest()[:24] if seed else number}"


def too_many(what: str, limit: int) -> Error:
    """The error for an answer with more parts than are kept in memory; `what` is the name of the limit."""
    return Error("provider_unavailable", f"an answer with more than {limit} {what.replace('_', ' ')}", reason=what)


class ToolCalls:
    """The calls of one choice: dense indices, unique ids, `tool.call` once per call and last of it (CONTRACT §5)."""

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self._taken: set[str] = set()
        self.told: list[ToolCall] = []
        """Those that have a start, by their index; a call that has no name yet has none."""

    def __bool__(self) -> bool:
        return bool(self.calls)

    def outcome(self, words: Mapping[str, str], said: str) -> str:
        """The `finish_reason` of an answer with these calls, of which a provider may have said `stop`, or nothing.

        CONTRACT §5 "Ends": it is `tool_calls` then too.

        Args:
            words: What the provider's words mean.
            said: Its word, empty where there was none.
        """
        reason = words.get(said, "other")
        return "tool_calls" if self.calls and (reason == "stop" or not said) else reason

    def open(self, call_id: str | None, name: str, seed: str = "") -> tuple[ToolCall, list[Event]]:
        """Begins a call.

        Args:
            call_id: The provider's id; where it gave none, or one that another call has, an own one is made.
            name: The tool, empty where it is not known yet.
            seed: What no other answer says, such as its id or the chunk that begins the call: an id that is made from
                it is one of a kind in a whole conversation, which Anthropic insists on.

        Raises:
            Error: More calls than `limits.tool_calls`.
        """
        if len(self.calls) >= LIMITS.tool_calls:
            raise too_many("tool_calls", LIMITS.tool_calls)
        number = len(self.calls)
        identifier = call_id or _made_id(number, seed)
        while identifier in self._taken:
            identifier += f"_{number}"
        self._taken.add(identifier)
        call = ToolCall(identifier, name)
        self.calls.append(call)
        return call, self._announce(call) if name else []

    def _announce(self, call: ToolCall) -> list[Event]:
        call.index = len(self.told)
        self.told.append(call)
        start: Event = {
            "type": "tool.call.start",
            "call_id": call.call_id,
            "tool_call": {"name": call.name},
            "index": call.index,
        }
        # Fragments that came before the name are told now, in one.
        return [start, *self._delta(call, call.arguments)]

    def _delta(self, call: ToolCall, arguments: str) -> list[Event]:
        if call.index is None or not arguments:
            return []
        return [{"type": "tool.call.delta", "call_id": call.call_id, "index": call.index, "arguments": arguments}]

    def add(self, call: ToolCall, arguments: str, name: str = "") -> list[Event]:
        """A fragment of the arguments, and the name where it comes late."""
        events: list[Event] = []
        if name and not call.name:
            call.name = name
            events = self._announce(call)
        if arguments:
            call.pieces.append(arguments)
            events += self._delta(call, arguments)
        return events

    def close(self, call: ToolCall, *, cut_off: bool = False) -> list[Event]:
        """The complete call, once.

        Args:
            call: The call.
            cut_off: Nobody said that the call is complete: it is left out unless its text is JSON.
        """
        if call.closed:
            return []
        text = call.arguments
        compact = compact_json(text)
        if compact is None:
            if cut_off:
                return []
            if not text.strip():
                compact = "{}"
        call.closed = True
        value: Any = text if compact is None else JSONText(compact, parse_exact(compact))
        complete: Event = {
            "type": "tool.call",
            "call_id": call.call_id,
            "tool_call": {"name": call.name, "input": value},
        }
        # A call that never got a name is told all the same.
        return [complete] if call.index is not None else [*self._announce(call), complete]

    def close_all(self, *, cut_off: bool = False) -> list[Event]:
        """`close` for every call that is still open, in order."""
        return [event for call in self.calls for event in self.close(call, cut_off=cut_off)]


def members(text: str, *path: str) -> Iterator[str]:
    """The JSON text of a member, verbatim: numbers keep their digits, which parsing would lose.

    Args:
        text: A JSON object, valid.
        path: Keys from the outermost inwards; a list on the way is searched in all its elements.
    """
    decoder = json.JSONDecoder()
    yield from _members(decoder, text, _skip(text, 0), path)


def _members(decoder: json.JSONDecoder, text: str, at: int, path: tuple[str, ...]) -> Iterator[str]:
    if not path:
        _, end = decoder.raw_decode(text, at)
        yield text[at:end]
    elif text[at] == "[":
        at = _skip(text, at + 1)
        while text[at] != "]":
            yield from _members(decoder, text, at, path)
            _, at = decoder.raw_decode(text, at)
            at = _skip(text, at)
            at = _skip(text, at + 1) if text[at] == "," else at
    elif text[at] == "{":
        at = _skip(text, at + 1)
        while text[at] != "}":
            key, at = decoder.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
            if key == path[0]:
                yield from _members(decoder, text, at, path[1:])
            _, at = decoder.raw_decode(text, at)
            at = _skip(text, at)
            at = _skip(text, at + 1) if text[at] == "," else at


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def error_object(body: Any) -> Mapping[str, Any] | None:
    """The object of an error body that speaks of the failure, in the shapes of PROVIDERS §12, or `None`.

    Understands `{"error": {…}}`, `{"error": "text"}`, `{"code", "error": "text"}`, `{"object": "error", …}`,
    `{"type": "error", …}`, `{"detail": …}`, `{"message": "text"}` alone, `{"errors": [{…}]}`, and each of them in a
    one-element array. The official clients take whatever `error` is, unless it is empty.
    """
    if isinstance(body, list) and body:
        body = body[0]
    # `dict` first, and alone: to ask an abstract class takes its time, as it does to ask for two.
    if not isinstance(body, dict) and not isinstance(body, Mapping):
        return None
    if _OF_ERRORS.isdisjoint(body):
        return None  # as most chunks
    error = body.get("error")
    several = body.get("errors") if error is None and "choices" not in body else error
    if isinstance(several, list) and several:
        error = several[0]
    if error is not None and isinstance(error, Mapping) and error:
        return error
    if isinstance(error, str) and error:
        return {**body, "message": error}
    if error or body.get("object") == "error" or body.get("type") == "error":
        return body
    if "choices" not in body and (body.get("detail") or isinstance(body.get("message"), str)):
        return body
    return None


_OF_ERRORS: Final = frozenset(("detail", "error", "errors", "message", "object", "type"))
"""Members without any of which no object speaks of a failure."""

_WORDS: Final = (
    "code",
    "error_code",
    "error_type",
    "type",
    "status",
    "status_code",
    "raw_status_code",
    "http_status_code",
)
"""Where an error object names what is wrong, or the status."""


def said_of(error: Mapping[str, Any], further: Any = None) -> Said:
    """What an error object says, whatever its provider calls the parts.

    Args:
        error: The object that `error_object` found.
        further: An object inside it whose words say more and outrank it.
    """
    try:
        encode_json(error)
    except ValueError:  # nested too deep to be told, or a number beyond all floats
        error = {key: value for key, value in error.items() if isinstance(value, (str, int))}
    words: list[str] = []
    status: int | None = None
    for source in (further, error):
        if not isinstance(source, Mapping):
            continue
        for key in _WORDS:
            word = source.get(key)
            number = count(word)
            if number is not None and 400 <= number < 600:
                status = status or number
            elif isinstance(word, str) and word:
                words.append(word)
    message = _worded(error.get("message") or error.get("detail"))
    return Said(message, tuple(words), status, details=error)


def _worded(message: Any) -> str:
    """A message as text: validators send lists of `{loc, msg}`, some servers put the object into the message."""
    if isinstance(message, str):
        return message
    if isinstance(message, Mapping):
        inner = message.get("message") or message.get("detail") or message.get("msg")
        where = message.get("loc")
        if inner and isinstance(where, list):
            return f"{'.'.join(map(str, where))}: {_worded(inner)}"
        return _worded(inner) if inner else encode_json(message).decode()
    if isinstance(message, list):
        return "; ".join(map(_worded, message))
    return "" if message is None else str(message)


def count(value: Any) -> int | None:
    """A number of tokens, also where a server writes it as text or as a fraction; `None` for anything else."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 15:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def inside(raw: dict[str, Any], outer: str, key: str) -> int | None:
    """A number of tokens in an object of details, which may be missing or something else."""
    details = raw.get(outer)
    return count(details.get(key)) if isinstance(details, dict) else None


def counted_usage(
    into: int | None,
    out: int | None,
    *,
    cached: int | None = None,
    written: int | None = None,
    reasoning: int | None = None,
    total: int | None = None,
) -> dict[str, int]:
    """Usage as CONTRACT §5 writes it, keys in order, without what the provider did not say.

    Reasoning that the total shows to be outside the output is added to it (PROVIDERS §11, the generic self-check).

    Args:
        into: All input tokens, cached ones included.
        out: Output tokens.
        cached: Input tokens read from a cache.
        written: Input tokens written to a cache.
        reasoning: Output tokens spent on reasoning.
        total: What the provider says is the sum.
    """
    if into is not None and out is not None and reasoning and total not in (None, into + out):
        out += reasoning if total == into + out + reasoning else 0
    usage: dict[str, int] = {}
    if into is not None:
        usage["input_tokens"] = into
    if out is not None:
        usage["output_tokens"] = out
    if into is not None and out is not None:
        usage["total_tokens"] = into + out
    if cached:
        usage["cached_input_tokens"] = cached
    if written:
        usage["cache_write_input_tokens"] = written
    if reasoning:
        usage["reasoning_tokens"] = reasoning
    return usage


def text_of(value: Any) -> str:
    """A text of a chunk, empty where there is none.

    Raises:
        Malformed: Something else than text.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"a text of a chunk is a JSON {type(value).__name__}")
    return value


def is_given(value: Any) -> bool:
    """Whether a field of a native request says anything; 0 does, an empty list does not."""
    return value is not UNSET and value not in ("", [], {})


def merged(body: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A request's body with `provider_options` merged in last, as JSON Merge Patch (RFC 7396) says.

    Objects are merged member by member, `null` removes a member, all else replaces what is there.
    """
    whole = dict(body)
    for key, value in options.items():
        if value is None:
            whole.pop(key, None)
        elif isinstance(value, Mapping):
            inner = whole.get(key)
            whole[key] = merged(inner if isinstance(inner, Mapping) else {}, value)
        else:
            whole[key] = value
    return whole


def image_data(image: ImagePart) -> tuple[str, str] | None:
    """The media type and the base64 data of an image, also of one in a `data:` URL; `None`: it must be fetched.

    Raises:
        InvalidRequest: Data without a media type.
    """
    if not isinstance(image.url, str):
        return media_type(image), str(image.data)
    head, _, data = image.url.partition(";base64,")
    return (head.removeprefix("data:"), data) if data and head.startswith("data:") else None


def image_url(image: ImagePart) -> str:
    """The image as a URL that chat requests take: its own, or its data in one.

    Raises:
        InvalidRequest: Data without a media type.
    """
    if isinstance(image.url, str):
        return image.url
    return f"data:{media_type(image)};base64,{image.data}"


def file_url(part: FilePart) -> str:
    """A file's data in a `data:` URL."""
    return f"data:{part.media_type};base64,{part.data}"


def file_name(part: FilePart) -> str:
    """A file's name; one is made where it has none, as some APIs want one."""
    return part.filename or f"file.{part.media_type.rpartition('/')[2]}"


def file_text(part: FilePart) -> str:
    """The text of a text file.

    Raises:
        InvalidRequest: Its data is not base64 of UTF-8.
    """
    try:
        return b64decode(part.data, validate=True).decode()
    except ValueError:
        raise InvalidRequest(message="The `data` of a text file is not base64 of UTF-8", reason="validation") from None


def media_type(image: ImagePart) -> str:
    """The media type of an image's data.

    Raises:
        InvalidRequest: It is missing.
    """
    if not isinstance(image.media_type, str):
        raise InvalidRequest(message="An image with `data` needs its `media_type`", reason="validation")
    return image.media_type


def citation(uri: Any, title: Any, start: Any = None, end: Any = None) -> dict[str, Any]:
    """One citation without what is empty; a span from 0 to 0 marks nothing."""
    cited: dict[str, Any] = {
        key: value for key, value in (("uri", uri), ("title", title)) if isinstance(value, str) and value
    }
    first, last = count(start), count(end)
    if cited and first is not None and last:
        cited |= {"start": first, "end": last}
    return cited


def server_tool(identifier: str, name: str, status: str, arguments: str = "", output: Any = None) -> Event:
    """The event for a tool that the provider runs itself.

    Args:
        identifier: The provider's id of the run.
        name: The tool.
        status: `started`, `completed` or `failed`.
        arguments: Its input as JSON text; text that is not JSON is told as text.
        output: What came out, empty where there is nothing.
    """
    value: Any = arguments
    with suppress(ValueError):
        value = parse_exact(arguments)
    said = {"id": identifier, "name": name, "status": status, "input": value, "output": output}
    return {"type": "server_tool", "server_tool": {key: said[key] for key in said if not is_empty(said[key])}}
