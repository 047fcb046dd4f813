"""SSE frames of a Responses answer → WebSocket messages: the `data` of each event, one message for each.

Sans-IO: knows no socket. Nearly all frames have OpenAI's form, which is the gateway's own too and which
`event_messages` checks and reads at once. Those of an upstream that are passed on may be any SSE (other line ends,
comments, no `event:`, data in several lines) and are brought into messages line by line, in linear time.

1. An `error` is not sent: what ends a response is `response.failed`, which follows it. If nothing follows, the
   stream's reader would wait without end, so it becomes the `error` message of sockets.
2. Comments, `retry:`, ids of events and `[DONE]` become no message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from mypy_extensions import mypyc_attr

from gai_fast.kernels import encode_json, event_messages, head_of

_LEAD: Final = b"{"
_DATA: Final = b"data:"
_EVENT: Final = b"event:"
_BOM: Final = b"\xef\xbb\xbf"
_NAME: Final = b"event: response."
"""The beginning of frames of responses in the gateway's own form, which is OpenAI's too."""
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_CREATED: Final = b"response.created"
_NEAR: Final = 256
"""Bytes in which the id of a response of the gateway's own is."""
_ENDS: Final = frozenset(("response.completed", "response.incomplete", "response.failed"))
_FAILED: Final = "response.failed"
_TYPED: Final = b'{"type":"response.'
_FAILED_TYPE: Final = b'{"type":"response.failed"'
_STATUS: Final = 500


@mypyc_attr(native_class=False)
class _Named(Struct):
    id: str = ""


@mypyc_attr(native_class=False)
class _Event(Struct):
    type: str = ""
    response: Raw = Raw(b"{}")


@mypyc_attr(native_class=False)
class _Type(Struct):
    type: str = ""


_EVENTS: Final = msgspec.json.Decoder(_Event)
_NAMES: Final = msgspec.json.Decoder(_Named)
_TYPES: Final = msgspec.json.Decoder(_Type)
_OBJECTS: Final = msgspec.json.Decoder(dict[str, Any])
_ANY: Final = msgspec.json.Decoder(Raw)


class TurnEvents:
    """The events of one answer.

    Attributes:
        identifier: The id of the response; empty until its first event has come.
    """

    __slots__ = ("_error", "_last", "identifier")

    def __init__(self) -> None:
        self.identifier = ""
        self._error = b""  # the data of an `error` that nothing has followed
        self._last = b""  # ends with the last event that is known not to be a delta

    @property
    def has_failed(self) -> bool:
        """Whether the last event is `response.failed`."""
        data = self._last_data
        if data.startswith(_TYPED):  # nearly all: a last event is long
            return data.startswith(_FAILED_TYPE)
        return _type_of(data) == _FAILED

    def find_identifier(self, frames: bytes, own: str) -> None:
        """Looks for the id of the response.

        Args:
            frames: Whole frames, those that come first.
            own: The id that the response has if the gateway writes it. It is then near the beginning.
        """
        if frames.find(b'"id":"%b"' % own.encode(), 0, _NEAR) >= 0:
            self.identifier = own
            return
        at = frames.find(_CREATED)
        if at < 0:
            return
        end = frames.find(b"\n\n", at)
        for data in events_in(frames if end < 0 else frames[: end + 2]):
            try:
                identifier = _NAMES.decode(_EVENTS.decode(data).response).id
            except (msgspec.DecodeError, RecursionError):
                continue
            if identifier:
                self.identifier = identifier
                return

    def take(self, frames: bytes) -> bytes:
        """Returns the messages for whole frames of any form.

        Args:
            frames: The frames.
        """
        plain = event_messages(frames, _NAME)
        if plain is not None:
            self._error, self._last = b"", frames
            return plain
        made: list[bytes] = []
        for data in events_in(frames):
            if _type_of(data) != "error":
                self._error, self._last = b"", data
                made += (head_of(len(data)), data)
            elif _type_of(self._last_data) not in _ENDS:
                self._error = data
        return b"".join(made)

    def take_copied(self, frames: bytes) -> bytes:
        """Returns the messages for frames of deltas that an upstream has sent; as `take`.

        Args:
            frames: The frames.
        """
        plain = event_messages(frames, _NAME)
        if plain is not None:
            return plain
        return b"".join([head_of(len(data)) + data for data in events_in(frames)])

    def rest(self) -> bytes:
        """Returns the message of an `error` that nothing has followed, at the end of the frames: rule 1."""
        data, self._error = self._error, b""
        return error_message(data, _STATUS, "internal") if data else b""

    @property
    def _last_data(self) -> bytes:
        """The data of the last event."""
        last = self._last
        return last[last.rfind(b"\n", 0, len(last) - 2) + 1 :].removeprefix(b"data: ")


def events_in(frames: bytes) -> Iterator[bytes]:
    """Yields the data of each event in frames, if it is an object; in one line.

    An event without an end counts. Data in several lines that is no object as a whole is that of several events,
    between which their server has left no empty line.

    Args:
        frames: Whole frames, by the rules of server-sent events (HTML, 9.2.6).
    """
    lines: list[bytes] = []
    frames = frames.removeprefix(_BOM)
    for line in (*(_LINE_END.split(frames) if frames.find(b"\r") >= 0 else frames.split(b"\n")), b""):
        if line.startswith(_DATA):
            lines.append(line[len(_DATA) :].strip())
        elif lines and (not line or line.startswith(_EVENT)):
            whole = b" ".join(lines)  # a line end within JSON is a blank
            if len(lines) > 1 and not _is_json(whole):
                yield from (each for each in lines if each.startswith(_LEAD))
            elif whole.startswith(_LEAD):
                yield whole
            lines = []


def error_message(body: bytes, status: int, code: str) -> bytes:
    """Returns the `error` message of a socket, framed.

    Args:
        body: The error as a response has it, `{"error": {…}}`, or as an event.
        status: The HTTP status.
        code: The code for an error that has none.
    """
    try:
        whole = _OBJECTS.decode(body)
    except (msgspec.DecodeError, RecursionError):
        whole = {}
    own = whole.get("error")
    said = own if isinstance(own, dict) else whole
    kind, param = said.get("type"), said.get("param")
    error = {
        "type": kind if isinstance(kind, str) and said is not whole else "server_error",
        "code": str(said.get("code") or code),
        "message": str(said.get("message") or "the answer broke off"),
        "param": param if isinstance(param, str) else None,
    }
    data = encode_json({"type": "error", "status": status, "error": error})
    return head_of(len(data)) + data


def _type_of(data: bytes) -> str:
    """Returns the type of an event; empty if it has none that can be read."""
    try:
        return _TYPES.decode(data).type
    except (msgspec.DecodeError, RecursionError):
        return ""


def _is_json(data: bytes) -> bool:
    try:
        _ANY.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
