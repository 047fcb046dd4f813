"""Adds correlation ids, which link a stream to logs and traces.

A compact stream has `request_id` and `trace_id` on its first event only, and `stream_id` on `start` only. This
processor adds them to `start`, `finish` and `error`, or to all events.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, cast

import msgspec

from gai_fast.core.processing.processor import Processor, StreamInfo, Touches
from gai_fast.model.events import Event
from gai_fast.processors.limits import LIMITS

_ENDS: Final = frozenset({"start", "finish", "error"})


class CorrelationProcessor(Processor):
    """Adds ids to events.

    Args:
        ids: `request_id`, `trace_id`, `stream_id`; an unknown id is `None`. An event's own ids take precedence.
        labels: Fixed keys for `provider_metadata.correlation` of `start`, such as a team or a deployment.
        every: Add the ids to every event but `done`, not only to `start`, `finish` and `error`.
    """

    def __init__(
        self, ids: dict[str, str | None], labels: dict[str, str] | None = None, *, every: bool = False
    ) -> None:
        self._ids = {key: value for key, value in ids.items() if value}
        self._labels = dict(labels or {})
        self._every = every
        self.touches: Touches = "deltas" if every else "events"

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        """Returns the event with its ids."""
        kind = event["type"]
        if kind == "done" or not (self._every or kind in _ENDS):
            return (event,)
        added: dict[str, Any] = {**self._ids, **event}
        if kind == "start" and self._labels:
            added["provider_metadata"] = {**added.get("provider_metadata", {}), "correlation": self._labels}
        return (cast(Event, added),)


class CorrelationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[processor]] use = "correlation"`.

    Args:
        ids: The ids to add.
        on: `ends` adds them to `start`, `finish` and `error`, `every` to every event.
        labels: As in `CorrelationProcessor`.
    """

    ids: tuple[Literal["request_id", "trace_id", "stream_id"], ...] = ("request_id", "trace_id", "stream_id")
    on: Literal["ends", "every"] = "ends"
    labels: Annotated[dict[str, str], msgspec.Meta(max_length=LIMITS.correlation_keys)] = {}

    def processor(self, stream: StreamInfo) -> Processor | None:
        """Returns a processor for every stream."""
        known = {"request_id": stream.request_id, "trace_id": stream.trace_id, "stream_id": stream.stream_id}
        return CorrelationProcessor({key: known[key] for key in self.ids}, self.labels, every=self.on == "every")


SETTINGS: Final = CorrelationSettings
