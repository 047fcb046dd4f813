"""Follows JSON answers as they stream: finds faults at the first wrong character, makes snapshots on request.

Owns the handling of text that is not JSON, of repeated documents, and of the text around a document. `JSONReader` reads
the text once. A library checks the schema.

An answer must be complete only if the model ended it: an answer cut off at a length limit is not faulty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal

import msgspec

from gai_fast.core.processing.processor import Processor, StreamInfo
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.events import Event, is_empty, with_text
from gai_fast.model.version import installing
from gai_fast.processors._json_text import JSONReader, NotJSONText, blanks_end, same_json
from gai_fast.processors._schema import Schema, compile_schema, is_available
from gai_fast.processors.limits import LIMITS

OnInvalid = Literal["warn", "error"]


class JSONStreamProcessor(Processor):
    """Follows the text of a stream that should be one JSON document.

    Yields the text unchanged except for removed parts, `json.snapshot` events, and a `warning` or an error with reason
    `invalid_json`, `schema_mismatch` or `schema_unchecked`: the check could hold the loop (`limits.schema_work`).

    Args:
        schema: The JSON Schema that the document must meet, as a value or as JSON text; needs the extra `schema`. A
            member of the outermost object is checked as soon as it is complete.
        snapshots_ms: The shortest time between two `json.snapshot` events in milliseconds (0: one with every delta).
            Snapshots become rarer as their value grows: after one of n characters the text grows by
            n² / `limits.json_snapshots` before the next one, and at most to twice its size; there are none after
            `limits.json_snapshot` characters. The last snapshot comes when the document is complete, unless it has more
            than `limits.json_last_snapshot` characters. `None` if there are no snapshots. Snapshots share the parts of
            the value that are complete: a program must not change them.
        on_invalid: `warn` yields one `warning` and then passes all text. `error` ends the stream at once
            (`provider_unavailable`) and passes no text from the first wrong character on.
        recover: Leave out the text before and after the document: prose, and the fences of a code block.
        remove_duplicates: Leave out further documents that are equal to the first. A further document is held back
            until it is compared.

    Raises:
        ValueError: The schema cannot be used, or `on_invalid` is unknown.
        ModuleNotFoundError: A schema is given, but the extra is not installed.

    Example:
        >>> processor = JSONStreamProcessor(snapshots_ms=0)
        >>> [event.get("json") for event in processor.process({"type": "text.delta", "text": '{"a": [1, 2'})]
        [None, {'a': [1]}]
    """

    def __init__(
        self,
        schema: Any = None,
        *,
        snapshots_ms: int | None = None,
        on_invalid: OnInvalid = "warn",
        recover: bool = False,
        remove_duplicates: bool = True,
    ) -> None:
        if on_invalid not in ("warn", "error"):
            raise ValueError(f"`on_invalid` must be 'warn' or 'error', not {on_invalid!r}")
        if schema is not None and not isinstance(schema, Schema):
            schema = Schema(schema if isinstance(schema, str) else encode_json(schema).decode())
        self._schema: Schema | None = schema
        self.snapshots_ms = snapshots_ms
        self._on_invalid = on_invalid
        self._recover = recover
        self._remove_duplicates = remove_duplicates
        self._begin()

    def _begin(self) -> None:
        self._reader = JSONReader()
        self._take: Callable[[str], str] = self._seek if self._recover else self._read
        self._problem: tuple[str, str] | None = None
        self._checked = self._schema is None
        # Held back: prose before a document, and text that may be a document or a repetition of it.
        self._prose: list[str] = []
        self._held: list[str] = []
        self._prose_size = 0
        self._line_is_blank = True
        self._repeated: JSONReader | None = None
        self._has_other_answer = False
        self._last_snapshot: int | None = None
        self._snapshot_at = 0

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        """Processes an event.

        Raises:
            Error: The text is not valid, and `on_invalid` is `error`.
        """
        kind = event["type"]
        if kind == "text.delta" and not event.get("choice"):
            return self._text(event, now_ms)
        if kind in ("finish", "error"):
            return self._end(event, now_ms)
        if kind == "stream.reset":
            self._begin()
        elif kind in ("refusal.delta", "tool.call"):
            self._has_other_answer = True
        return (event,)

    @property
    def due_ms(self) -> int | None:
        """The time of the next snapshot. `None` if no snapshot is due."""
        if self._last_snapshot is None or self.snapshots_ms is None or not self._has_news():
            return None
        if not self._has_grown():
            return None
        return self._last_snapshot + self.snapshots_ms

    def flush(self, now_ms: int = 0) -> Iterable[Event]:
        """Yields a snapshot of the value if it has changed."""
        if self._has_news():
            value = self._reader.snapshot()
            if not is_empty(value):  # events leave out empty keys, so the snapshot would have no `json`
                self._last_snapshot, self._snapshot_at = now_ms, self._reader.position
                yield {"type": "json.snapshot", "json": value}

    # -- events --

    def _text(self, event: Event, now_ms: int) -> Iterator[Event]:
        if self._last_snapshot is not None:
            self._last_snapshot = min(self._last_snapshot, now_ms)  # the clock may be set back
        text = event.get("text", "")
        passed = self._take(text)
        if passed == text:
            yield event
        elif passed:
            yield with_text(event, passed)
        yield from self._report()
        due = self.due_ms
        if self._last_snapshot is None or self._reader.complete or (due is not None and due <= now_ms):
            yield from self.flush(now_ms)

    def _end(self, event: Event, now_ms: int) -> Iterator[Event]:
        model_ended = event["type"] == "finish" and event.get("finish_reason") == "stop"
        held = self._close(model_ended)
        if held:
            yield {"type": "text.delta", "text": held}
        if model_ended:
            yield from self._report()
        yield from self.flush(now_ms)
        self._take = self._pass
        yield event

    def _has_news(self) -> bool:
        """Returns whether a snapshot would differ from the last one. Brackets in prose are not a value."""
        if self.snapshots_ms is None or self._reader.position > LIMITS.json_last_snapshot:
            return False
        return self._reader.changed and self._take not in (self._seek, self._pass)

    def _has_grown(self) -> bool:
        """Returns whether the text has grown enough since the last snapshot, which cost its size.

        With growth by n² / `limits.json_snapshots` all snapshots together cost a multiple of this limit that grows by
        one each time the text becomes three times as long; with growth to twice the size they cost twice the text.
        """
        size = self._snapshot_at
        if self._reader.position > LIMITS.json_snapshot:
            return False
        return (self._reader.position - size) * LIMITS.json_snapshots >= size * min(size, LIMITS.json_snapshots)

    def _report(self) -> Iterator[Event]:
        """Yields or raises the problem once."""
        if self._problem is None:
            return
        (reason, what), self._problem = self._problem, None
        if self._on_invalid == "error":
            self._take = self._pass
            raise Error("provider_unavailable", f"the answer of the model {what}", reason=reason)
        yield {"type": "warning", "reason": reason}

    # -- the text: each method reads text and returns the part to pass on --

    def _pass(self, text: str) -> str:
        """Returns all text: the document is no longer followed."""
        return text

    def _drop(self, text: str) -> str:
        """Drops the text after a recovered document."""
        return ""

    def _read(self, text: str) -> str:
        """Reads the document."""
        begin = self._reader.position
        try:
            end = self._reader.feed(text)
        except NotJSONText as problem:
            at = problem.position - begin
            return self._invalid(f"is not JSON: {problem}", text[:at], text[at:])
        return self._check(text[:end], text[end:])

    def _check(self, text: str, rest: str) -> str:
        """Checks the document after its text has been read. `rest` is the text after the document."""
        if self._reader.position > LIMITS.json_answer:
            return self._invalid(f"is longer than {LIMITS.json_answer} characters", text, rest)
        self._take = self._read
        self._problem = self._mismatch()
        if self._problem is not None:
            self._checked = True
            if self._on_invalid == "error":
                return text
        if not self._reader.complete:
            return text
        if self._recover:
            self._take = self._drop
            return text
        self._take = self._follow
        return text + self._follow(rest)

    def _mismatch(self) -> tuple[str, str] | None:
        """Returns the first known problem with the schema. `None` if there is none so far."""
        reader, schema = self._reader, self._schema
        if self._checked or schema is None or not reader.began:
            return None
        if schema.is_too_costly(reader.values, reader.position):
            return "schema_unchecked", _UNCHECKED
        mismatch = self._known_mismatch(schema)
        return None if mismatch is None else ("schema_mismatch", f"does not meet its schema: {mismatch}")

    def _known_mismatch(self, schema: Schema) -> str | None:
        reader = self._reader
        if reader.complete:
            self._checked = True
            return schema.problem(reader.value)
        kind = _CONTAINERS.get(type(reader.value))
        if schema.types is not None and kind is not None and kind not in schema.types:
            return f"$ is an {kind}"
        names, reader.members = reader.members, {}
        problems = (schema.member_problem(name, reader.value[name]) for name in names)
        return next((problem for problem in problems if problem is not None), None)

    def _follow(self, text: str) -> str:
        """Reads the text after the document: white space, or a repetition of the document."""
        passed: list[str] = []
        at = repeats = 0
        while at < len(text):
            if self._repeated is None:
                repeats += 1
                begin = blanks_end(text, at)
                passed.append(text[at:begin])
                at = begin
                if at == len(text):
                    break
                if not self._remove_duplicates or repeats > LIMITS.json_repeats:
                    return self._invalid(_GOES_ON, "".join(passed), text[at:])
                self._repeated = JSONReader()
            try:
                end = self._repeated.feed(text, at)
            except NotJSONText:
                return self._invalid(_GOES_ON, "".join(passed), self._release() + text[at:])
            self._held.append(text[at:end])
            at = end
            if not self._is_repetition_so_far():
                return self._invalid(_GOES_ON, "".join(passed), self._release() + text[at:])
        return "".join(passed)

    def _is_repetition_so_far(self) -> bool:
        repeated = self._repeated
        if repeated is None:
            return True
        if repeated.position > LIMITS.json_repeated:
            return False
        if not repeated.complete:
            return True
        if not same_json(repeated.value, self._reader.value):
            return False
        self._held.clear()
        self._repeated = None
        return True

    def _seek(self, text: str) -> str:
        """Reads prose, until a bracket in it turns out to begin a document."""
        at = 0
        while at < len(text):
            if not self._held:
                if self._prose_size > LIMITS.json_prose:
                    return self._no_document(text[at:])
                piece = _PROSE.match(text, at)[0]  # type: ignore[index]  # it matches anything
                if piece not in self._openings():
                    self._line_is_blank = piece == "\n" or (self._line_is_blank and _FENCE.fullmatch(piece) is not None)
                    self._prose.append(piece)
                    self._prose_size += len(piece)
                    at += len(piece)
                    continue
            try:
                end = self._reader.feed(text, at)
            except NotJSONText as problem:
                if self._held:
                    text, at = "".join(self._held) + text[at:], 0
                    self._held.clear()
                if self._reader.sure:
                    wrong = at + problem.position
                    self._prose.clear()
                    return self._invalid(f"is not JSON: {problem}", text[at:wrong], text[wrong:])
                # Not a document: the search continues after the bracket.
                self._prose.append(text[at])
                self._prose_size += 1
                at += 1
                self._line_is_blank = False
                self._reader = JSONReader()
                continue
            self._held.append(text[at:end])
            at = end
            if self._reader.sure or self._reader.complete:
                begun = "".join(self._held)
                self._held.clear()
                self._prose.clear()
                return self._check(begun, text[at:])
        return self._no_document("") if self._prose_size + self._reader.position > LIMITS.json_prose else ""

    def _no_document(self, rest: str) -> str:
        what = f"holds no JSON in its first {LIMITS.json_prose} characters"
        return self._invalid(what, "", self._release() + rest)

    def _openings(self) -> str:
        """Returns the brackets that may open a document. A list must begin a line: in prose, `[` opens a reference."""
        return "{[" if self._line_is_blank else "{"

    def _release(self) -> str:
        held = "".join(self._prose) + "".join(self._held)
        self._prose.clear()
        self._held.clear()
        return held

    def _close(self, model_ended: bool) -> str:
        """Ends the text. Returns the held-back text that must be passed on.

        Args:
            model_ended: Whether the model ended the answer.
        """
        if self._take == self._follow and self._repeated is not None:
            if self._repeated.close() and self._is_repetition_so_far():
                return ""
            return self._invalid(_GOES_ON, "", self._release()) if model_ended else self._release()
        if self._take == self._read and self._reader.close():
            return self._check("", "")
        if self._take in (self._read, self._seek) and model_ended:
            is_missing = self._reader.began or self._prose or not self._has_other_answer
            if is_missing:
                return self._invalid("ends before its JSON is whole", "", self._release())
        return self._release()

    def _invalid(self, what: str, text: str, rest: str) -> str:
        """Records that the text is not JSON. `rest` begins at the first wrong character or with the held-back text."""
        self._take = self._pass
        self._problem = ("invalid_json", what)
        return text if self._on_invalid == "error" else text + rest


_GOES_ON: Final = "goes on after its JSON document"
_PROSE: Final = re.compile(r"[{\[\n]|[^{\[\n]+")
_FENCE: Final = re.compile(r"\s*(?:`+\s*)?(?:json)?\s*", re.I)
_UNCHECKED: Final = (
    "is too large to be checked against its schema (limit schema_work): ask for a smaller answer, or make the schema "
    "smaller"
)
_CONTAINERS: Final[dict[type, str]] = {dict: "object", list: "array"}


class JSONStreamSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[processor]] use = "json_stream"`: follows answers to requests whose `response_format` is JSON.

    Args:
        on_invalid: `warn` or `error`, as in `JSONStreamProcessor`.
        recover: Leave out the text around the document.
        remove_duplicates: Leave out further equal documents.
        validate: Check against the request's schema. The default is true if the extra `schema` is installed.
    """

    on_invalid: OnInvalid = "warn"
    recover: bool = False
    remove_duplicates: bool = True
    validate: bool | None = None

    def __post_init__(self) -> None:
        if self.validate and not is_available():
            raise ValueError(f"validate needs the extra `schema`: {installing('schema')}")

    def processor(self, stream: StreamInfo) -> Processor | None:
        """Returns a processor if the stream asks for JSON or for snapshots, else `None`."""
        if not stream.wants_json and stream.json_snapshots is None:
            return None
        validate = is_available() if self.validate is None else self.validate
        return JSONStreamProcessor(
            compile_schema(stream.schema) if validate and stream.schema else None,
            snapshots_ms=stream.json_snapshots,
            on_invalid=self.on_invalid,
            recover=self.recover,
            remove_duplicates=self.remove_duplicates,
        )


SETTINGS: Final = JSONStreamSettings
