"""Messages of JSON-RPC 2.0, as MCP uses them. Sans-IO.

Owns what is a message. It must not know methods, protocols and ways to a server. Deliberate differences from JSON-RPC:

1. Our ids are whole numbers, which some servers write as 3.0; an answer with another type of id is nobody's.
2. A batch is read as its messages, whatever the protocol: 2025-03-26 allows it.
3. A member that is null is not there: servers write `"error": null` beside a result.
4. Of a page of a list, the tools are left as JSON (`msgspec.Raw`): one that is too large or too deep hides no other.
5. Half of a surrogate pair is read as U+FFFD (RFC 8259, 8.2); in tools as `HALF`, by which a tool is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET

from gai_fast.core.json.limits import LIMITS as JSON
from gai_fast.core.json.structure import Structure
from gai_fast.core.requests.reading import decode_json
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error, GaiFastError
from gai_fast.model.limits import SHARED
from gai_fast.net.tools.crashes import Crash
from gai_fast.net.tools.limits import LIMITS
from gai_fast.runtime.breathing import breathe
from gai_fast.runtime.json_pieces import UNREADABLE, read_value, without_halves

Fault = Literal[
    "unreachable", "wait", "status", "form", "refused", "lost", "late", "session", "token", "argument", "answer"
]

CODES: Final = {
    "parse": -32700,
    "request": -32600,
    "params": -32602,
    "method": -32601,
    "header": -32020,
    "capability": -32021,
    "version": -32022,
}
"""Codes of errors: JSON-RPC 2.0, 5.1; MCP 2026-07-28, "Error Codes"."""

REPLACED: Final = "\ufffd".encode()
"""How `encode_json` writes half of a surrogate pair."""
HALF: Final = "\ufdd0"
"""Half of a surrogate pair in a tool: a character that no text has (Unicode, 23.7)."""

_HALF: Final = b"\\ufdd0"
_READABLE: Final = b"\\ufffd"
_DECODER: Final = msgspec.json.Decoder()
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_Member = msgspec.Raw | msgspec.UnsetType


class _Envelope(msgspec.Struct):
    id: msgspec.Raw
    result: msgspec.Raw
    method: _Member = UNSET
    error: _Member = UNSET


class _Page(msgspec.Struct, rename="camel"):
    tools: msgspec.Raw
    result_type: _Member = UNSET
    next_cursor: _Member = UNSET
    ttl_ms: _Member = UNSET
    content: _Member = UNSET
    supported_versions: _Member = UNSET
    protocol_version: _Member = UNSET


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_PAGE: Final = msgspec.json.Decoder(_Page)
_NOTHING: Final = (UNSET, msgspec.Raw(b"null"))


class ToolServerError(GaiFastError):
    """A server of tools that did not do what it was asked for.

    Args:
        text: What happened, for people; never holds a secret.
        fault: `unreachable` (no connection), `wait` (it has asked for a pause), `status` (of HTTP), `form` (what it
            sent is not the protocol), `refused` (its own error), `lost` (the connection or the process ended), `late`,
            `session` (its session has ended, and the request was not handled), `token` (it refuses the token, and there
            is another), `argument` (the request cannot be sent),
            `answer` (a result that the client cannot use).
        may_have_run: Whether the outcome is unknown: the server may have done what it was asked for.
        status: The HTTP status, if it has refused by one.
        code: The code of its own error.
        data: The data of its own error.
        crash: The end of its process, with which the request was lost. None for anything else.
    """

    def __init__(
        self,
        text: str,
        fault: Fault,
        *,
        may_have_run: bool = False,
        status: int | None = None,
        code: int | None = None,
        data: Any = None,
        crash: Crash | None = None,
    ) -> None:
        super().__init__(text)
        self.fault = fault
        self.may_have_run = may_have_run
        self.status = status
        self.code = code
        self.data = data
        self.crash = crash


class ServerReply(NamedTuple):
    """The answer to a request.

    Attributes:
        id: The request's. None if it is no whole number: an error of a server that could not read the request.
        result: The result. None for an error.
        error: The error's members. None for a result.
        session: The id of the session that it begins on HTTP. None if it begins none.
        status: The HTTP status that it came with.
        size: The bytes of the message, if it is large; else 0.
    """

    id: int | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    session: str | None = None
    status: int = 200
    size: int = 0


class Notice(NamedTuple):
    """A notification."""

    method: str
    params: dict[str, Any]


class ServerQuestion(NamedTuple):
    """A request of the server's."""

    id: int | str
    method: str


ServerMessage = ServerReply | Notice | ServerQuestion


def request_bytes(id: int, method: str, params: Mapping[str, Any]) -> bytes:
    """Returns a request as JSON on one line."""
    return encode_json({"jsonrpc": "2.0", "id": id, "method": method, "params": params})


def notice_bytes(method: str, params: Mapping[str, Any]) -> bytes:
    """Returns a notification as JSON on one line."""
    return encode_json({"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})})


def answer_bytes(question: ServerQuestion) -> bytes:
    """Returns the answer to a request of the server's: a ping is answered, nothing else is known."""
    if question.method == "ping":
        return encode_json({"jsonrpc": "2.0", "id": question.id, "result": {}})
    error = {"code": CODES["method"], "message": "Method not found"}
    return encode_json({"jsonrpc": "2.0", "id": question.id, "error": error})


def read_messages(data: bytes) -> list[ServerMessage]:
    """Returns the messages in a body, an event or a line.

    Args:
        data: One message as JSON, or a batch.

    Raises:
        ToolServerError: It is not JSON, nested too deep, or no message. Nothing of it is in the text.
    """
    size = len(data) if len(data) > LIMITS.list_turn else 0
    page = _page(data) if b'"tools"' in data else None
    if page is not None:
        return [_message(page, size)]
    try:
        value = read_json(data, LIMITS.message_depth)
    except Error as problem:
        text = "nested too deep" if problem.reason == "depth" else "too large" if problem.reason == "items" else ""
        raise ToolServerError(
            f"it sends JSON that is {text}" if text else "it sends what is not JSON", "form"
        ) from None
    batch = value if isinstance(value, list) else [value]
    if len(batch) > LIMITS.message_batch:
        raise ToolServerError(
            f"it sends more than {LIMITS.message_batch} messages at once (limit message_batch)", "form"
        )
    return [_message(each, size) for each in batch]


def _page(data: bytes) -> dict[str, Any] | None:
    """Returns a page of a list of tools, whose tools are not read yet: rule 4. None if it is anything else, or faulty:
    then it is read as any other message, which names the fault."""
    if data.count(b",") > JSON.json_values:
        return None
    data = without_halves(data, _HALF)
    try:
        breathe()
        message = _ENVELOPE.decode(data)
        breathe()
        page = _PAGE.decode(message.result)
        others = (message.method, message.error, page.content, page.supported_versions, page.protocol_version)
        if not all(each in _NOTHING for each in others):
            return None
        named = (("resultType", page.result_type), ("nextCursor", page.next_cursor), ("ttlMs", page.ttl_ms))
        result = {name: read_json(bytes(each), LIMITS.message_depth) for name, each in named if each is not UNSET}
        breathe()
        tools = _ITEMS.decode(page.tools)
        breathe()
        return {"id": _DECODER.decode(message.id), "result": {**result, "tools": tools}}
    except (Error, *UNREADABLE, RecursionError):
        return None


def read_json(data: bytes, depth: int) -> Any:
    """Returns the value of JSON; rule 5. A long text is read in pieces.

    Args:
        data: The JSON.
        depth: The maximum nesting.

    Raises:
        Error: As `decode_json`.
    """
    data = without_halves(data, _READABLE)
    if len(data) <= LIMITS.list_turn:
        return decode_json(_DECODER, data, depth)
    structure = Structure(depth)
    for at in range(0, len(data), LIMITS.list_turn):
        breathe()
        structure.feed(data[at : at + LIMITS.list_turn])
    try:
        return read_value(data)
    except (*UNREADABLE, RecursionError):
        raise Error("invalid_request", "it is not JSON", reason="json") from None


def _message(value: Any, size: int) -> ServerMessage:
    if not isinstance(value, dict):
        raise _no_message()
    method, number = value.get("method"), value.get("id")
    if isinstance(method, str):
        params = value.get("params")
        if number is None:
            return Notice(method, params if isinstance(params, dict) else {})
        if isinstance(number, str) or type(number) is int:
            return ServerQuestion(number, method)
        raise _no_message()
    result, error = value.get("result"), value.get("error")
    if type(number) is float and number.is_integer():
        number = int(number)
    known = number if type(number) is int else None
    if isinstance(error, dict) and result is None:
        return ServerReply(known, None, error, size=size)
    if isinstance(result, dict) and error is None:
        return ServerReply(known, result, None, size=size)
    raise _no_message()


def _no_message() -> ToolServerError:
    return ToolServerError("it sends JSON that is no message of JSON-RPC 2.0", "form")


def error_of(reply: ServerReply, secrets: Collection[bytes] = ()) -> ToolServerError:
    """Returns the error of a reply that is one.

    Args:
        reply: The reply.
        secrets: Texts that the server was sent and may repeat; they are cut out.
    """
    error = reply.error or {}
    code, message = error.get("code"), error.get("message")
    text = readable(message, secrets) if isinstance(message, str) else ""
    number = code if type(code) is int else None
    shown = "an error without a message" if not text else f"the error {text!r}" if number is None else text
    where = "" if number is None else f" (code {number})"
    return ToolServerError(f"it answers: {shown}{where}", "refused", code=number, data=error.get("data"))


def readable(text: str, secrets: Collection[bytes] = ()) -> str:
    """Returns a server's text for people: one line, without secrets, at most `limits.tool_problem` characters.

    Args:
        text: The text.
        secrets: Texts that the server was sent and may repeat.
    """
    read = without(secrets, text)[: 4 * SHARED.tool_problem]
    line = " ".join(read.split())[: SHARED.tool_problem + 1]  # each character that is looked at takes 60 ns
    if not line.isprintable():
        line = " ".join("".join(each if each.isprintable() else " " for each in line).split())
    return line if len(line) <= SHARED.tool_problem else f"{line[: SHARED.tool_problem - 1]}…"


def without(secrets: Collection[bytes], text: str) -> str:
    """Returns a text with asterisks in place of secrets."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret.decode(), "***")
    return text


def depth_of(value: Any) -> int:
    """Returns how deep a value of JSON is nested: 0 without arrays and objects."""
    depth, level = 0, [value] if isinstance(value, (dict, list)) else []
    while level:
        depth += 1
        inner: list[Any] = []
        for container in level:
            breathe()
            for each in container.values() if isinstance(container, dict) else container:
                breathe()
                if isinstance(each, (dict, list)):
                    inner.append(each)
        level = inner
    return depth
