"""Walks of refused requests, of objects of SDKs, and of logs in the forms that followers send, each with n."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from gai_fast.core.requests.reading import parse_request
from gai_fast.formats import StreamContext, get_format
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.net.logs.view import Representation, view_of
from gai_fast.providers import Target, get_provider, missing_route
from gai_fast.providers.sdk.objects import SDKMessages, chunk_of, shape_of
from gai_fast.stores import LogHeader

Work = Callable[[], object]
TARGET = Target("m", "k", "drop")
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 1}
MEMBERS = 100
"""The members of an object among which the client's own one is looked for: `limits.client_members`."""


def refusal(text: str) -> Error:
    """Returns an upstream's 400."""
    return Error("invalid_request", text, provider="openai")


# -- refused requests --


def _refused(text: str, body: dict[str, Any]) -> Work:
    error, request = refusal(text), {**ASKED, **body}
    return lambda: get_provider("openai").refused_member(request, TARGET, error)


def _refused_native(text: str, body: dict[str, Any]) -> Work:
    error, request = refusal(text), parse_request(encode_json({"query": "Hi", **body}))
    return lambda: get_provider("openai").refused_member(request, TARGET, error)


def _clients(body: dict[str, Any]) -> Work:
    error, asked = refusal("'temperature' is too high"), {**ASKED, **body}
    return lambda: get_provider("groq").client_member(asked, TARGET, error)


def _clients_translated(body: dict[str, Any]) -> Work:
    error, parse = refusal("'max_completion_tokens' is too high"), get_format("anthropic").parse_request
    asked = {**ASKED, "max_tokens": 9, **body}
    return lambda: get_provider("openai").client_member({}, TARGET, error, asked, parse)


def _route(detail: str) -> Work:
    error = Error("not_found", "no", provider="openai", details={"detail": detail})
    error.upstream_status = 404
    return lambda: missing_route(error)


def _deep(n: int) -> dict[str, Any]:
    odd: dict[str, Any] = {}
    for _ in range(n):
        odd = {"odd": odd}
    return odd


def _odd(n: int, value: Any = 1) -> dict[str, Any]:
    return {f"odd_{at}": value for at in range(n)}


UNKNOWN = "Unknown parameter: 'other_member'."
REFUSALS: dict[str, Callable[[int], Work]] = {
    "refused, many members": lambda n: _refused(UNKNOWN, {"stream_options": _odd(n)}),
    "refused, many members in a long name": lambda n: _refused(UNKNOWN, {"stream_options": {"o" * 8 * n: _odd(n)}}),
    "refused, long names": lambda n: _refused(
        UNKNOWN, {"stream_options": {"o" * 1000 + str(at): 1 for at in range(n)}}
    ),
    "refused, deep": lambda n: _refused(UNKNOWN, {"stream_options": _deep(n)}),
    "refused, many named": lambda n: _refused(
        " ".join(f"'odd_{at}'" for at in range(n)), {"stream_options": _odd(n), "messages": [_odd(n, "odd_1")]}
    ),
    "refused, many texts": lambda n: _refused("Unknown parameter: 'a_b'.", {"stream_options": {"a_b": ["a_b"] * n}}),
    "refused, native, many members": lambda n: _refused_native(UNKNOWN, {"metadata": _odd(n, "a")}),
    "refused, native, a schema": lambda n: _refused_native(
        UNKNOWN, {"response_format": {"type": "json_schema", "schema": {"type": "object", "properties": _odd(n, {})}}}
    ),
    "a missing route, one long word": lambda n: _route("a" * 100 * n),
    "a missing route, many words": lambda n: _route("a/b " * n),
    # Each of at most 100 members is left out once: there are as many already.
    "the client's member, many members": lambda n: _clients(_odd(MEMBERS + n)),
    "the client's member, a large member": lambda n: _clients({"metadata": _odd(n, "a")}),
    "the client's member, a tool": lambda n: _clients_translated(
        {"tools": [{"name": "f", "input_schema": {"type": "object", "properties": _odd(n, {})}}]}
    ),
    "the client's member, a large tool": lambda n: _clients_translated(
        {"tools": [{"name": "f", "input_schema": {"type": "object", "properties": _odd(100 * n, {})}}]}
    ),
}


# -- objects of SDKs --


def _message(text: str, identifier: str, *, is_whole: bool = False, calls: int = 0) -> Any:
    named = [{"index": at, "id": f"{identifier}{at}", "name": "f", "args": "{}"} for at in range(calls)]
    members: dict[str, Any] = {"content": text, "response_metadata": {}, "additional_kwargs": {}, "id": identifier}
    if is_whole:
        return SimpleNamespace(type="ai", tool_calls=[{**call, "args": {}} for call in named], **members)
    return SimpleNamespace(type="AIMessageChunk", tool_call_chunks=named, **members)


def _messages(items: list[Any]) -> Work:
    def work() -> None:
        messages = SDKMessages()
        for item in items:
            shape_of(chunk_of(item), "", messages).wire(chunk_of(item))

    return work


def _objects(items: list[Any]) -> Work:
    return lambda: [shape_of(chunk_of(item), "openai").wire(chunk_of(item)) for item in items]


OBJECTS: dict[str, Callable[[int], Work]] = {
    "SDK, chunks": lambda n: _objects([{"choices": [{"index": 0, "delta": {"content": "a"}}]}] * n),
    "SDK, one large chunk": lambda n: _objects([{"choices": [{"index": 0, "delta": {"content": "a"}}] * n}]),
    "SDK, chunks of a message": lambda n: _messages([_message("a", "m")] * n),
    "SDK, chunks of messages": lambda n: _messages([_message("a", f"m{at}") for at in range(n)]),
    "SDK, whole messages": lambda n: _messages([_message(f"{at}", f"m{at}", is_whole=True) for at in range(n)]),
    "SDK, whole messages after chunks": lambda n: _messages(
        [_message(f"{at}", f"m{at}") for at in range(n)]
        + [_message(f"{at} more", f"w{at}", is_whole=True) for at in range(n)]
    ),
    "SDK, whole messages of chunks": lambda n: _messages(
        [_message(f"{at}", f"m{at}", is_whole=is_whole) for at in range(n) for is_whole in (False, True)]
    ),
    "SDK, calls": lambda n: _messages([_message("", "m", calls=n), _message("", "n", is_whole=True, calls=n)]),
    "SDK, messages of graphs": lambda n: _messages([(("g",), "messages", (_message("a", "m"), {}))] * n),
    "SDK, nested tuples": lambda n: _messages([_nested(n)]),
}


def _nested(n: int) -> Any:
    item: Any = (_message("a", "m"), {})
    for _ in range(n):
        item = ("messages", item)
    return item


# -- logs --


def _log(form: Representation, texts: list[str]) -> list[bytes]:
    """Returns the pieces of a log, one for each event."""
    context = StreamContext("s" * 22, "r", None, "m", lambda: 5000, form.envelope, ids=True)
    encoder = form.format.encoder(form.framing, context)
    events: list[Any] = [
        {"type": "start", "provider": "p", "model": "m", "seq": 1},
        *({"type": "text.delta", "text": text, "seq": at} for at, text in enumerate(texts, 2)),
        {"type": "finish", "finish_reason": "stop", "seq": len(texts) + 2},
        {"type": "done", "finished": True, "seq": len(texts) + 3},
    ]
    pieces = []
    for event in events:
        encoder.event(event)
        pieces.append(encoder.take())
    return pieces


def _viewed(kept: str, sent: str, *, joins: bool, after: int = 0) -> Callable[[int], Work]:
    """Returns the way of a log to a follower.

    Args:
        kept: The format of the log.
        sent: The format that is sent.
        joins: Whether the follower is late.
        after: The number of the last event that it has.
    """
    own, wanted = Representation(get_format(kept), "sse"), Representation(get_format(sent), "sse")

    def made(n: int) -> Work:
        pieces = _log(own, ["a token "] * n)
        header = LogHeader("s" * 22, "", "m", kept, "sse")

        def work() -> None:
            view = view_of(header, wanted, min(after, n), lambda: 5000)
            if joins:
                view.feed_joined(pieces)
            else:
                for piece in pieces:
                    view.feed(piece)
            view.take_pieces()

        return work

    return made


LOGS: dict[str, Callable[[int], Work]] = {
    f"log, {kept} as {sent}{', late' if joins else ''}{', resumed' if after else ''}": _viewed(
        kept, sent, joins=joins, after=after
    )
    for kept, sent in (
        *(("gai", sent) for sent in ("gai", "openai", "anthropic", "responses", "vercel", "agui", "simple")),
        ("openai", "openai"),
    )
    for joins in (False, True)
    for after in (0, 100)
}
