"""One client's frames of one stream, compared with the answer: events that are missing, twice or foreign.

A ledger outlives connections: a client that was cut off goes on with the same one. It reads the frames of every format
itself, so that it shares no code with the gateway.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

import orjson

from tests.soak.answers import Answer

Format = Literal["gai", "openai", "simple"]
Framing = Literal["sse", "ndjson"]

NOT_LOGGED: Final = ("worker_lost", "log_behind", "store")
"""The reasons of errors that are no part of the stream: a client that comes back gets them again."""
UNNAMED: Final = "unnamed"
"""The code of an error in a format that has none."""
_MARK: Final = re.compile(r"‹(\d+)\.(\d+)›")


class Form(NamedTuple):
    """The form in which a client asks for a stream."""

    format: Format
    framing: Framing

    @property
    def query(self) -> str:
        """The query parameters that choose it."""
        return f"format={self.format}&framing={self.framing}"


class Ending(NamedTuple):
    """The event that ended a stream; `finish` has a reason, `error` a code as well, if the format has them."""

    type: Literal["finish", "error"]
    reason: str
    code: str = ""


@dataclass(slots=True)
class Ledger:
    """The part of one answer that one client has.

    Attributes:
        answer: The upstream's.
        form: How the client reads.
        place: The number of its last event, which is where it resumes; 0: none.
        pieces: Deltas that it has whole, those before its first place included.
        lost: Events or deltas that are missing amid others.
        doubled: Events or deltas that came again.
        wrong: The first thing that is no part of the answer, or against the rules of streams.
        ending: The event that ended the stream.
        is_done: Nothing may follow.
        taken_over: The text that was stored when another worker took the stream over, as its `stream.gap` told it. None
            if it told nothing.
    """

    answer: Answer
    form: Form
    place: int = 0
    pieces: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: str = ""
    ending: Ending | None = None
    is_done: bool = False
    taken_over: str | None = None
    _half: bytes = b""
    _came_after_end: bool = False
    _confirmed: tuple[int, str, Ending | None] = (0, "", None)  # at the last id
    _text: str = ""  # the beginning of a piece

    @classmethod
    def after(cls, answer: Answer, form: Form, place: int) -> Ledger:
        """The ledger of a client that begins within a stream: its first event is `start`, then each delta is one."""
        return cls(answer, form, place, max(0, place - 1))

    def copy(self) -> Ledger:
        """Returns the ledger of another client that has the same."""
        return replace(self)

    @property
    def is_whole(self) -> bool:
        """Whether the client has the whole answer, and its end."""
        return self.ending == ("finish", "stop", "") and self.pieces == self.answer.deltas and not self._text

    @property
    def faults(self) -> str:
        """The fault, in words; empty: there is none."""
        seen = [f"lost {self.lost}" * bool(self.lost), f"doubled {self.doubled}" * bool(self.doubled), self.wrong]
        return ", ".join(filter(None, seen))

    def connected(self) -> None:
        """A new connection begins: half a frame of the one before does not count."""
        self._half = b""
        if self.form.format != "gai":
            # Of the frames of one event only the last has the id: without it all of them come again, and without any
            # id the whole stream.
            self.pieces, self._text, self.ending = self._confirmed
        self._came_after_end = self.ending is not None
        if self.ending is not None and self.ending.reason in NOT_LOGGED and not self.is_done:
            self.ending = None

    def restart(self) -> None:
        """The client asks for the stream from its beginning."""
        self.place = self.pieces = 0
        self._text = ""
        self.ending = None
        self.is_done = False

    def feed(self, body: bytes) -> None:
        """Reads some bytes of a response's body."""
        data = self._half + body
        if self.form.framing == "sse":
            *frames, self._half = data.split(b"\n\n")
            for frame in frames:
                self._read_sse(frame)
        else:
            *frames, self._half = data.split(b"\n")
            for frame in filter(None, frames):
                self._read_object(orjson.loads(frame), None)

    def ended(self) -> None:
        """The response has ended properly: it must have had its end, and nothing may be left of a frame."""
        if self._half.replace(b": ping\n", b""):
            self._note(f"ends with half a frame {self._half[:80]!r}")
        if self.form == ("simple", "ndjson") and self.ending is None:
            self._end_without_reason()  # the end of the response is the only mark
        has_mark = self.form.format == "gai" or self.form.framing == "sse"
        is_unmarked = has_mark and not self.is_done and not self._came_after_end
        if self.ending is None or (is_unmarked and self.ending.type == "finish"):
            self._note("a proper end without an event that ends the stream")
        if self.ending is not None and self.ending.reason == "stop" and not self.is_whole:
            # What is missing at the end is lost, too, if the stream says that it is complete.
            self.lost += self.answer.deltas - self.pieces
            self._note(f"finished with {self.pieces} of {self.answer.deltas} deltas")

    def _note(self, wrong: str) -> None:
        self.wrong = self.wrong or wrong

    def _read_sse(self, frame: bytes) -> None:
        number: int | None = None
        data: list[bytes] = []
        for line in frame.split(b"\n"):
            name, _, value = line.partition(b": ")
            if name == b"id":
                number = int(value.rpartition(b".")[2])
            elif name == b"data":
                data.append(value)
        said = b"\n".join(data)
        if said == b"[DONE]":
            self._done(is_finished=True)
        elif data:
            self._read_object(orjson.loads(said), number)
        if number is not None:
            self._confirmed = (self.pieces, self._text, self.ending)

    def _read_object(self, said: dict[str, Any], number: int | None) -> None:
        if self.is_done:
            self._note(f"something follows the end: {said}")
        if self.form.format == "gai":
            if number not in (None, said.get("seq")):
                self._note(f"the id ends with {number}: {said}")
            self._read_event(said)
            return
        if number is not None:
            # Formats without numbers leave events out, so that only an order can be checked; the text shows the rest.
            if number <= self.place:
                self.doubled += 1
            self.place = max(self.place, number)
        if "error" in said:
            error = said["error"] if isinstance(said["error"], dict) else {}
            self._end(Ending("error", str(error.get("reason") or ""), str(error.get("code") or UNNAMED)))
        elif self.form.format == "simple":
            self._read_text(said["content"])
        else:
            for choice in said["choices"]:
                self._read_text(choice["delta"].get("content") or "")
                if choice.get("finish_reason"):
                    reason = said.get("x_gai", {}).get("finish_reason") or choice["finish_reason"]
                    self._end(Ending("finish", reason))

    def _read_event(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "done":
            self._done(is_finished=event["finished"])
            return
        if kind == "stream.gap":
            self._read_gap(event)
            return
        first, last = event.get("from_seq", event["seq"]), event["seq"]
        if first > self.place + 1:
            self.lost += first - self.place - 1
        elif first <= self.place:
            self.doubled += min(last, self.place) - first + 1
        if kind != "error" or event["error"].get("reason") not in NOT_LOGGED:
            self.place = max(self.place, last)
        if kind == "text.delta":
            self._read_text(event["text"])
        elif kind == "finish":
            self._end(Ending("finish", event["finish_reason"]))
        elif kind == "error":
            error = event["error"]
            self._end(Ending("error", error.get("reason") or "", error["code"]))
        elif kind == "warning" and event.get("reason") == "taken_over" and self.taken_over is not None:
            pass
        elif kind != "start":
            self._note(f"an event that nobody has sent: {event}")

    def _read_gap(self, event: dict[str, Any]) -> None:
        """Another worker took the stream over: what is not stored is void, and the stored text is told."""
        if event.get("reason") != "taken_over" or event["to"] != event["seq"]:
            self._note(f"an event that nobody has sent: {event}")
        self.lost += max(0, event["from"] - self.place - 1)
        has_only_stored, before = self.place < event["from"], (self.pieces, self._text)
        self.taken_over, self.place = event["text"], event["seq"]
        self.pieces, self._text, self.ending = 0, "", None
        self._read_text(event["text"])
        if has_only_stored and before != (self.pieces, self._text):
            self._note(f"a gap tells {self.pieces} deltas, where {before[0]} were sent")

    def _end(self, ending: Ending) -> None:
        # A client that knows the end and comes back may know more than is left of a killed worker's stream.
        is_own = ending.type == "error" and ending.reason in ("", *NOT_LOGGED)
        if self.ending is not None and not (is_own and self._came_after_end):
            self._note(f"{ending} follows {self.ending}")
        self.ending = ending

    def _end_without_reason(self) -> None:
        """`simple` does not tell why a stream has finished: what is short of the answer counts as cancelled."""
        self._end(Ending("finish", "stop" if self.pieces == self.answer.deltas else "cancelled"))

    def _done(self, *, is_finished: bool) -> None:
        if self.ending is None and self.form.format == "simple":
            self._end_without_reason()
        if self.is_done or self.ending is None or is_finished != (self.ending.type == "finish"):
            self._note(f"an end mark after {self.ending}")
        self.is_done = True

    def _read_text(self, text: str) -> None:
        self._text += text
        while self._text:
            if self.ending is not None:
                self._note(f"text follows {self.ending}")
                return
            expected = self.answer.piece(self.pieces) if self.pieces < self.answer.deltas else ""
            if expected and self._text.startswith(expected):
                self._text = self._text[len(expected) :]
                self.pieces += 1
            elif (expected and expected.startswith(self._text)) or not self._resynchronize():
                return

    def _resynchronize(self) -> bool:
        """Goes on with the delta that the text holds in place of the expected one; false if that is none."""
        mark = _MARK.match(self._text)
        if mark is None or int(mark[1]) != self.answer.number or int(mark[2]) >= self.answer.deltas:
            self._note(f"text that is no part of the answer after {self.pieces} deltas: {self._text[:80]!r}")
            self._text = ""
            return False
        place = int(mark[2])
        if place == self.pieces:  # the mark is right, and what follows is not
            self._note(f"delta {place} is altered: {self._text[:80]!r}")
            self._text = ""
            return False
        if self.form.format != "gai":  # in `gai` the numbers of the events have been counted
            self.lost += max(0, place - self.pieces)
            self.doubled += max(0, self.pieces - place)
        elif not (self.lost or self.doubled):
            self._note(f"delta {place} in place of {self.pieces}, and numbers that hide it")
        self.pieces = place
        return True
