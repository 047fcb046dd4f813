"""The events of a run whose answer is whole, as its record has them: its log is empty before the end.

A worker that goes on with such a run gives them to the answer again, in place of a log's events.

1. They are kept with the turns of the run: each is written once.
2. Adjacent deltas are kept as one (`logs/joined.py`).
3. Events that no whole answer shows are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from gai_fast.kernels import Piece, encode_json
from gai_fast.model.events import Event
from gai_fast.net.attempts.spec import Output
from gai_fast.net.logs.joined import JoinedEvents
from gai_fast.net.logs.view import read_event
from gai_fast.net.runs.records.state import decode_parts, encode_parts

_UNSEEN: Final = frozenset({"tool.progress", "json.snapshot"})
"""Types of events that no whole answer shows: rule 3."""


class ToldEvents:
    """The output of a run whose answer is whole.

    Args:
        inner: The encoder of the answer.
    """

    def __init__(self, inner: Output) -> None:
        self._inner = inner
        self._events = JoinedEvents()

    def event(self, event: Event) -> None:
        """Works as `EventSink.event`."""
        self._inner.event(event)
        if event["type"] not in _UNSEEN:
            whole = cast("dict[str, Any]", {**event})
            whole.pop("seq", None)
            self._events.add(whole)

    def recall(self, events: Sequence[Event]) -> None:
        """Gives the answer the events of the worker that is gone."""
        for event in events:
            self._inner.event(event)

    def take(self) -> list[Event]:
        """Returns the events since the last call."""
        return self._events.take()

    # -- the encoder (`Output`) --

    def heartbeat(self) -> None:
        """Works as `Output.heartbeat`."""
        self._inner.heartbeat()

    def take_pieces(self) -> Sequence[Piece]:
        """Works as `Output.take_pieces`."""
        return self._inner.take_pieces()


class _Added(msgspec.Struct):
    told: list[msgspec.Raw]
    parts: msgspec.Raw = msgspec.Raw()  # empty without any


_read: Final = msgspec.json.Decoder(_Added).decode


def encode_told(told: Sequence[Event], parts: Sequence[Mapping[str, Any]] | None) -> bytes:
    """Returns what a run has added, for a record.

    Args:
        told: The output of `ToldEvents.take`.
        parts: The parts of a turn that has ended, as for `encode_parts`. None if none has.

    Raises:
        ValueError: As `encode_parts`.
    """
    written = b'{"told":' + encode_json(told)
    return written + b"}" if parts is None else b'%b,"parts":%b}' % (written, encode_parts(parts))


def decode_told(added: Sequence[bytes]) -> tuple[list[Event], list[list[dict[str, Any]]]]:
    """Returns the events of a run, and the parts of its turns.

    Args:
        added: The outputs of `encode_told`.

    Raises:
        ValueError: They are none.
    """
    told: list[Event] = []
    turns: list[list[dict[str, Any]]] = []
    try:
        for each in added:
            found = _read(each)
            told += [read_event(bytes(event)) for event in found.told]
            if bytes(found.parts):
                turns.append(decode_parts(bytes(found.parts)))
    except (KeyError, TypeError):
        raise ValueError("not events of a run") from None
    return told, turns
