"""The delivered content of a stream, compared with another attempt at the answer: verified continuation.

Owns the comparison. Sans-IO. Decides nothing about attempts and must not know formats.

A new attempt must repeat the delivered content, byte for byte and in order, before new content follows. The provider's
ids of calls change between attempts: the client keeps the first ids.

An attempt that was given the delivered text as a prefill should continue it. If it starts from the beginning instead,
it repeats the text: the repeated text is dropped once it is whole. If the attempt differs before, all of its text is
new. So is all text after a prefill of less than `limits.repeated_text` characters.

What a client has of another worker's answer is what its processors made of it. The answer is then compared behind new
ones (`Repetition`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from gai_fast.core.limits import LIMITS
from gai_fast.model.errors import Error
from gai_fast.model.events import ANNOTATIONS, DELTAS, LIFECYCLE, Event
from gai_fast.model.limits import SHARED

_Place = tuple[Any, ...]
_SNAPSHOT: Final = "json.snapshot"


def _essence(event: Event) -> dict[str, Any]:
    """Returns an event that is not a delta, without values that a provider generates for each answer."""
    essence: dict[str, Any] = {key: value for key, value in event.items() if key not in _MADE_UP}
    if "server_tool" in essence:
        essence["server_tool"] = {key: value for key, value in essence["server_tool"].items() if key != "id"}
    if event["type"] == "provider.block":
        # Its ids and its encrypted members differ in each answer.
        essence["block"] = event["block"].get("type") if isinstance(event["block"], dict) else None
    return essence


_MADE_UP: Final = frozenset({"call_id", "signature", "safety", "usage", "provider_metadata"})


_TEXT: Final[_Place] = ("text.delta", None, None)
"""The place of the first choice's text."""


def _place_of(event: Event) -> _Place:
    return event["type"], event.get("choice"), event.get("index")


class Transcript:
    """The delivered content of one stream."""

    __slots__ = ("_at", "_call_ids", "_echoed", "_failure", "_offset", "_prefill", "_said", "_size", "is_lost")

    def __init__(self) -> None:
        # A run of deltas of one kind: its place and texts. Any other event: its place, call id and the event.
        self._said: list[tuple[_Place, list[str], Event]] = []
        self._at = 0
        self._offset = 0
        self._failure: Error | None = None
        self._call_ids: dict[str, str] = {}
        self._prefill = ""  # the text that this attempt may repeat; empty: it goes on from it
        self._echoed = 0  # characters of it that the attempt has repeated, and that are held back
        self._size = 0
        self.is_lost = False
        """Whether more than `limits.transcript` was delivered: the answer cannot be continued any more."""

    @property
    def text(self) -> str | None:
        """The delivered content if it is one text, as a prefill needs it, else `None`."""
        if len(self._said) == 1 and self._said[0][0] == _TEXT:
            return "".join(self._said[0][1])
        return None

    @property
    def is_repeated(self) -> bool:
        """Whether the attempt has repeated all of the delivered content."""
        return self._at == len(self._said)

    def release(self, event: Event) -> str:
        """Returns the text that is held back and belongs before an event: the attempt has not repeated the prefill."""
        if not self._echoed or event["type"] in ANNOTATIONS or _place_of(event) == _TEXT:
            return ""
        held = self._prefill[: self._echoed]
        self._prefill, self._echoed = "", 0
        return held

    def repeat(self, failure: Error) -> None:
        """Begins an attempt that repeats the content.

        Args:
            failure: Raised by `take` if the attempt differs.
        """
        self._at = self._offset = self._echoed = 0
        self._prefill = ""
        for _, pieces, _ in self._said:
            pieces[:] = ["".join(pieces)]
        self._failure = failure
        self._call_ids = {}

    def go_on(self) -> None:
        """Begins an attempt whose content follows the delivered content."""
        self._at, self._offset = len(self._said), 0
        text = self.text or ""
        self._prefill, self._echoed = text if len(text) >= LIMITS.repeated_text else "", 0
        self._call_ids = {}

    def forget(self) -> None:
        """Drops the content, which is void."""
        self._said.clear()
        self._at = self._offset = self._size = self._echoed = 0
        self._prefill = ""
        self.is_lost = False

    def named(self, event: Event) -> Event:
        """Returns an event with the call id that the client has."""
        known = self._call_ids.get(event["call_id"]) if "call_id" in event else None
        return event if known is None else {**event, "call_id": known}

    def take(self, event: Event) -> Event | None:
        """Compares or records an event of the answer.

        Returns:
            The event for the client, without content that the client already has. `None` if the client has all of it.

        Raises:
            Error: The attempt differs from the delivered content; the error is the failure of the attempt before.
        """
        kind = event["type"]
        if kind in ANNOTATIONS:
            return event if self.is_repeated else None
        key = DELTAS.get(kind)
        place = _place_of(event)
        event = self.named(event)
        if self.is_repeated:
            if self._prefill and place == _TEXT:
                text = self._behind_prefill(event["text"])
                if not text:
                    return None
                event = {**event, "text": text}
            self._note(place, event, key)
            return event
        if kind == "finish":
            raise self._differs()
        if key is None:
            self._match(place, event)
            return None
        return self._compared(event, key, place)

    def _behind_prefill(self, text: str) -> str:
        """Returns the new part of a text of an attempt that may repeat its prefill; empty until that is known."""
        here = self._prefill[self._echoed : self._echoed + len(text)]
        if not text.startswith(here):
            text = self._prefill[: self._echoed] + text
        elif self._echoed + len(here) < len(self._prefill):
            self._echoed += len(here)
            return ""
        else:
            text = text[len(here) :]
        self._prefill, self._echoed = "", 0
        return text

    def _note(self, place: _Place, event: Event, key: str | None) -> None:
        if self.is_lost:
            return
        text: str = event.get("call_id", "") if key is None else event[key]  # type: ignore[literal-required]  # DELTAS' keys
        self._size += SHARED.log_piece_cost + (len(repr(event)) if key is None else len(text))
        if key is not None and self._said and self._said[-1][0] == place:
            self._said[-1][1].append(text)
        else:
            self._said.append((place, [text], event))
        if self._size > LIMITS.transcript:
            self._said.clear()
            self.is_lost = True
        self._at = len(self._said)

    def _match(self, place: _Place, event: Event) -> None:
        expected, call_id, known = self._said[self._at]
        if place != expected or self._offset or _essence(event) != _essence(known):
            raise self._differs()
        if "call_id" in event:
            self._call_ids[event["call_id"]] = call_id[0]
        self._at += 1

    def _compared(self, event: Event, key: str, place: _Place) -> Event | None:
        text: str = event[key]  # type: ignore[literal-required]  # as above
        while text and self._at < len(self._said):
            expected, known, _ = self._said[self._at]
            if place != expected:
                raise self._differs()
            here = known[0][self._offset : self._offset + len(text)]
            if not text.startswith(here):
                raise self._differs()
            text = text[len(here) :]
            self._offset += len(here)
            if self._offset == len(known[0]):
                self._at, self._offset = self._at + 1, 0
        if not text:
            return None
        event = {**event, key: text}  # type: ignore[misc]  # as above
        self._note(place, event, key)
        return event

    def _differs(self) -> Error:
        return self._failure or Error("internal", "an attempt differs from what was delivered")


class Repetition:
    """What a client has of an answer that runs through new processors: what repeats it is left out.

    Time decides where `safety`, a guard's `warning` and `json.snapshot` stand. So each `safety` is sent once, wherever
    it comes, a warning once a guard, and no snapshot of what the client has.

    Args:
        failure: Raised by `take` if the answer differs.
    """

    __slots__ = ("_failure", "_is_given_up", "_safety", "_said", "_warned")

    def __init__(self, failure: Error) -> None:
        self._failure = failure
        self._said = Transcript()
        self._safety: Counter[str] = Counter()
        self._warned: set[str] = set()
        self._is_given_up = False

    def recall(self, event: Event) -> None:
        """Notes an event that the client has."""
        kind = event["type"]
        if kind == "stream.reset":
            self._said.forget()
            self._safety.clear()
        elif kind == "safety":
            self._safety[_finding_of(event)] += 1
        elif kind == "warning" and "guard" in event:
            self._warned.add(event["guard"])
        elif kind != _SNAPSHOT and kind not in LIFECYCLE:
            self._said.take(event)

    def begin(self) -> None:
        """Begins to compare."""
        self._said.repeat(self._failure)

    def give_up(self) -> None:
        """Lets nothing pass but the stream's end, unless all is repeated."""
        self._is_given_up = not self._said.is_repeated

    def take(self, event: Event) -> Event | None:
        """Compares an event that processors send.

        Returns:
            The event for the client; as `Transcript.take`.

        Raises:
            Error: As `Transcript.take`.
        """
        kind = event["type"]
        if kind == "error" or kind == "done":
            return event
        if self._is_given_up:
            return event if kind == "finish" else None
        if kind == "start":
            return None
        if kind == "warning" and "guard" in event:
            return None if event["guard"] in self._warned else event
        if kind == "safety":
            found = _finding_of(event)
            if not self._safety[found]:
                return event
            self._safety[found] -= 1
            return None
        if self._said.is_repeated:
            return self._said.named(event)
        return None if kind == _SNAPSHOT else self._said.take(event)


def _finding_of(event: Event) -> str:
    """Returns what a `safety` says, without a judge's score."""
    said = [(key, value) for key, value in event["safety"].items() if key != "score"]
    return repr((event.get("choice"), sorted(said)))
