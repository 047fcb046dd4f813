"""OpenAI's whole response: one JSON object, built from events.

Audio has events in a stream, but no place in a `response`: audio events are in `x_gai.events`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from gai_fast.formats._base import KeptAnswer, StreamContext
from gai_fast.formats._openai import note_warning
from gai_fast.formats.responses.output import ResponsesOutput, discard
from gai_fast.formats.responses.parts import ResponseObject, custom_tools, ids_of, namespaced, outcome_of
from gai_fast.kernels import encode_json
from gai_fast.model.events import NO_EVENT, Event


class WholeResponse:
    """Events → one `response`; after an error it writes nothing.

    Args:
        context: The stream.
    """

    def __init__(self, context: StreamContext) -> None:
        self._context = context
        self._response = ResponseObject(context)
        self._usage: dict[str, Any] | None = None
        self._warnings: list[dict[str, Any]] = []
        self._audio: list[Event] = []
        self._finish: Event = NO_EVENT
        self._out = b""
        self._output = self._new_output()

    def _new_output(self) -> ResponsesOutput:
        echo = self._context.echo
        return ResponsesOutput(self._context.stream_id, custom_tools(echo), discard, namespaced(echo))

    @property
    def seq(self) -> int:
        """1: the log stores the answer as one event."""
        return 1

    def event(self, event: Event) -> None:
        """Collects one event; `done` after a `finish` writes the answer."""
        kind = event["type"]
        if event.get("choice"):
            return
        if kind == "start":
            self._response.model = event.get("model", self._response.model)
            self._output.provider = event.get("provider")
        elif kind == "stream.reset":
            self._output, self._usage, self._audio = self._new_output(), None, []
        elif kind == "usage":
            self._usage = event["usage"]
        elif kind == "warning":
            note_warning(self._warnings, event)
        elif kind == "audio.delta":
            self._output.take_room(len(encode_json(event)))
            self._audio.append(event)
        elif kind == "finish":
            self._finish = event
        elif kind == "done":
            if event["finished"]:
                self._out = self._answer()
        else:
            self._output.take(event)

    def heartbeat(self) -> None:
        """Writes nothing: the response's headers are sent at the end, when its status is known."""

    def take(self) -> bytes:
        """Returns the answer once, then nothing."""
        taken, self._out = self._out, b""
        return taken

    def take_pieces(self) -> list[bytes]:
        """Returns the answer as one piece, or an empty list before the end."""
        taken = self.take()
        return [taken] if taken else []

    def _answer(self) -> bytes:
        outcome = outcome_of(self._finish)
        self._output.finish(is_complete=outcome.status == "completed")
        x_gai: dict[str, Any] = {"warnings": self._warnings} if self._warnings else {}
        if self._audio:
            x_gai["events"] = self._audio
        response = self._response.at(
            outcome.status,
            self._output.items,
            usage=self._finish.get("usage") or self._usage,
            incomplete=outcome.incomplete,
            x_gai=x_gai | outcome.x_gai,
        )
        data = encode_json(response)
        kept = self._context.kept
        if kept is not None:
            without = partial(_without, response)
            kept.leave(self._response.identifier, outcome.status, data, ids_of(self._output.items), data, without)
        return data


def _without(response: dict[str, Any], _kept: KeptAnswer) -> bytes:
    """Returns the object of an answer that could not be kept."""
    return encode_json({**response, "store": False})
