"""Reads Gemini's responses: chunks of `candidates[].content.parts[]`.

`gemini.py` describes the grammar. `generate/citations.py` computes the positions of citations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

from gai_fast.core.json.chunks import WRONG_SHAPE, count, label, member, members, number, objects, parse_chunk, text_of
from gai_fast.kernels import encode_json, escape
from gai_fast.model.errors import Error, Malformed
from gai_fast.model.events import Event
from gai_fast.model.limits import SHARED
from gai_fast.providers.answers.adapter import ProviderAdapter
from gai_fast.providers.answers.argument_pieces import ArgumentPiece, ArgumentWriter, argument_path
from gai_fast.providers.answers.events import (
    UNREADABLE,
    add_ends,
    argument_piece,
    counted_usage,
    provider_block,
    server_tool,
)
from gai_fast.providers.answers.finish_words import COMPLETE
from gai_fast.providers.answers.limits import LIMITS
from gai_fast.providers.answers.room import Room, too_many
from gai_fast.providers.answers.tool_calls import ToolCall, ToolCalls
from gai_fast.providers.generate.citations import Citations, has_references
from gai_fast.providers.requests.api import API

_END: Final = "[DONE]"
"""An end mark that some proxies send; Google sends none. Proxies also send blank data as a keep-alive."""


class _Call:
    """The function call of one part."""

    def __init__(
        self, identifier: str, name: str, arguments: str, pieces: list[ArgumentPiece], continues: bool
    ) -> None:
        self.identifier = identifier
        self.name = name
        self.arguments = arguments
        """JSON text of arguments that came whole, else empty."""
        self.pieces = pieces
        self.continues = continues

    @property
    def has_content(self) -> bool:
        """Whether the part holds more than the end of a call."""
        return bool(self.name or self.arguments or self.pieces)


class _Part:
    """One part of a chunk, with checked types."""

    def __init__(self, text: str, is_thought: bool, signature: str) -> None:
        self.text = text
        self.is_thought = is_thought
        self.signature = signature
        self.call: _Call | None = None
        self.data: tuple[str, str] | None = None
        """Media type and base64 data."""
        self.tool: tuple[str, dict[str, Any]] | None = None
        """A step of a tool that Google runs: the name of the part's member, and its value."""
        self.block: dict[str, Any] | None = None
        """The part itself if it has no shared form."""
        self.is_whole = True
        """Whether the other members could be read, too."""

    @property
    def kind(self) -> str:
        """The kind of its content; empty if it has none."""
        if (self.call and self.call.has_content) or self.data or self.block:
            return "other"
        return ("thought" if self.is_thought else "text") if self.text else ""


class _Runs:
    """The runs of Google's tools in one candidate that have no result yet, at most `limits.tool_calls`.

    Attributes:
        begun: The number of all runs so far.
    """

    def __init__(self) -> None:
        self.begun = 0
        self._names: dict[str, str] = {}
        """The tool of each run, by the run's id; the oldest first."""
        self._latest = ("", "")
        """The run that began last. It also gets a result without an id if all runs have a result."""

    def begin(self, identifier: str, name: str) -> str:
        """Begins a run. Returns its id.

        Args:
            identifier: The id; if it is empty, one is made.
            name: The tool.
        """
        identifier = identifier or f"{name}_{self.begun}"
        self.begun += 1
        self._latest = identifier, name
        self._names.pop(identifier, None)  # its place is the last
        self._names[identifier] = name
        if len(self._names) > LIMITS.tool_calls:
            del self._names[next(iter(self._names))]
        return identifier

    def end(self, identifier: str) -> tuple[str, str]:
        """Returns the id and the tool of the run to which a result belongs, which then has its result.

        Args:
            identifier: The id in the result. If it is empty, the result belongs to the last run without one.
        """
        if not identifier and self._names:
            return self._names.popitem()
        if not identifier and self.begun:
            return self._latest
        return identifier, self._names.pop(identifier, "code_execution")


class _Candidate:
    """One candidate of a response."""

    def __init__(self, number: int, room: Room, places: Room) -> None:
        self.number = number
        self.calls = ToolCalls(room)
        self.open: ToolCall | None = None
        """The call whose arguments arrive in pieces, or None."""
        self.arguments = ArgumentWriter()
        self.citations = Citations(room, places)
        self.block = -1
        """The number of the content block: a run of text or of thoughts, or a part of another kind."""
        self.kind = ""
        self.runs = _Runs()
        self.reason = ""
        """The provider's finish reason."""
        self.message = ""


class _Details:
    """The members of a candidate other than its parts, with checked types."""

    def __init__(self, candidate: _Candidate, raw: dict[str, Any]) -> None:
        self.candidate = candidate
        self.ratings = _ratings(raw.get("safetyRatings"))
        """Category, action, probability and score of each rating."""
        self.has_references = has_references(raw)
        self.cited = candidate.citations.read(raw) if self.has_references else []
        reason = raw.get("finishReason")
        self.reason = label(reason) or ("OTHER" if reason else "")
        self.message = label(raw.get("finishMessage"))
        self.continuation = label(raw.get("continuationToken"))


class GeminiAdapter(ProviderAdapter):
    """Reads the chunks of a response."""

    text_members = frozenset({"text"})
    ignored_members = frozenset({"createTime"})
    kept_members = frozenset({"usageMetadata"})
    content_members = frozenset({"candidates"})
    collects_text = True  # to compute the positions of citations

    def __init__(self, api: API, model: str | None = None) -> None:
        super().__init__(api, model)
        self._candidates: dict[int, _Candidate] = {}
        self._places = Room(LIMITS.cited_text)
        self._rated: set[tuple[Any, ...]] = set()
        self._blocked: Error | None = None
        self._continuation = ""
        self._searches: set[str] = set()
        """The searches that the answer names so far; Google charges equal ones once."""
        self._shape: Any = None
        """The shape of the previous chunk, without its text."""

    def receive(self, name: str, data: str) -> list[Event]:
        if name == "error":
            raise self.error_event(data)
        if data.startswith(_END):
            self.ended = True
            return []
        return self._read(parse_chunk(data), data)

    def receive_text(self, index: int | None, text: str) -> Event | None:
        candidate = self._candidates.get(index or 0)
        if candidate is None or candidate.kind != "text" or not (self.started and self.named):
            return None
        candidate.citations.text.add(text, len(text))
        event: Event = {"type": "text.delta", "text": text}
        if candidate.number:
            event["choice"] = candidate.number
        return event

    def receive_whole(self, answer: Any, text: str = "") -> list[Event]:
        events = self._read(answer, text or encode_json(answer).decode())
        if not self._candidates and not self._blocked:
            raise Malformed("an answer without candidates")
        return events

    def _read(self, parsed: Any, text: str) -> list[Event]:
        """Reads a chunk, or a whole response, which has the form of a chunk."""
        chunk = _own_words(self.checked(parsed), text)
        self.chunk = text
        usage = _usage(chunk.get("usageMetadata"))
        # The types of the whole chunk are checked before any state changes, so that a malformed chunk begins nothing.
        identifier, model = label(chunk.get("responseId")), label(chunk.get("modelVersion"))
        read = [
            (raw, parts, _Details(self._candidate(raw.get("index")), raw)) for raw, parts in _candidates(chunk, text)
        ]
        self.usage = usage or self.usage
        referring = [raw for raw, _, details in read if details.has_references]
        if referring or self._searches:
            self._count_searches(referring)
        word = refusal = ""
        events: list[Event] = []
        if chunk.get("promptFeedback"):
            feedback = member(chunk, "promptFeedback")
            word = label(feedback.get("blockReason"))[: LIMITS.kept_word]
            refusal = label(feedback.get("blockReasonMessage"))
            events = self._safety(0, _ratings(feedback.get("safetyRatings")))
        has_scores = False
        for raw, parts, details in read:
            candidate = details.candidate
            added: list[Event] = []
            is_read = True
            for part in parts:
                try:
                    added += self._part(candidate, part)
                except WRONG_SHAPE:
                    if part.call is not None and not (events or added):
                        raise
                    # Earlier parts of the chunk have changed the state, so their events must not be discarded. Later
                    # parts may hold text.
                    is_read = False
                is_read = is_read and part.is_whole
            if not is_read:
                added.append({**UNREADABLE})
            if raw.get("logprobsResult"):
                has_scores = True
                _add_scores(added, raw["logprobsResult"])
            added += self._safety(candidate.number, details.ratings)
            added += candidate.citations.emit(details.cited)
            if details.reason:
                candidate.reason = details.reason[: LIMITS.kept_word]
                candidate.message = details.message[: SHARED.error_message]
                self.is_complete = len(self._candidates) >= self.wanted_choices and all(
                    each.reason for each in self._candidates.values()
                )
            self._continuation = details.continuation or self._continuation
            events += _numbered(candidate, added)
        # A block reason "unspecified" with candidates blocks nothing.
        if word and not (self._candidates and word.endswith("UNSPECIFIED")):
            self._block(word, refusal)
        # If two chunks in a row have one shape, further chunks of that shape change nothing but the text.
        last, self._shape = self._shape, (bool(usage), [_shape(raw, parts) for raw, parts, _ in read])
        self.copyable = self._shape == last and not has_scores
        self.copyable = self.copyable and not any(details.has_references for _, _, details in read)
        if self.started and self.named:
            return events
        return self.start(identifier, model) + events if identifier or model or events else []

    def _candidate(self, index: Any) -> _Candidate:
        number = count(index) or 0
        candidate = self._candidates.get(number)
        if candidate is None:
            if len(self._candidates) >= SHARED.choices:
                raise too_many("choices", SHARED.choices)
            candidate = self._candidates[number] = _Candidate(number, self.room, self._places)
        return candidate

    def _block(self, word: str, message: str) -> None:
        """Stores the error for a blocked prompt, and ends the response: `finish` raises the error."""
        text = message or f"{self.api.provider} blocked the prompt: {word}"
        self._blocked = Error("content_filtered", text, reason=word.lower(), provider=self.api.provider)
        self.ended = True

    # -- parts --

    def _part(self, candidate: _Candidate, part: _Part) -> list[Event]:
        kind = part.kind
        if kind and (kind != candidate.kind or kind == "other"):
            candidate.kind = kind
            candidate.block += 1
        events: list[Event] = []
        if part.text:
            if not part.is_thought:
                candidate.citations.text.add(part.text, len(part.text))
            events.append({"type": "reasoning.delta" if part.is_thought else "text.delta", "text": part.text})
        if part.call is not None and (part.call.has_content or candidate.open is not None):
            events += self._call(candidate, part.call, part.signature)
        elif part.signature:
            block = max(candidate.block, 0)
            events.append({"type": "reasoning.signature", "block": block, "signature": part.signature})
        if part.data is not None:
            events.append(_media(*part.data, is_draft=part.is_thought))
        if part.block is not None:
            self.keep_ids(part.block)
            events += provider_block(self.api.provider, part.block, candidate.block)
        if part.tool is not None:
            events.append(self._tool_event(candidate, *part.tool))
        return events

    def _call(self, candidate: _Candidate, fragment: _Call, signature: str) -> list[Event]:
        """Reads a call, or a piece of the open call. An empty piece only ends the open call."""
        call, writer = candidate.open, candidate.arguments
        if call is None or fragment.name:
            if not (fragment.name or fragment.arguments):
                raise Malformed("a piece of a call that has not begun")
            if not fragment.name:
                return [{**UNREADABLE}]
            call, writer = None, ArgumentWriter()
        try:
            text = fragment.arguments + "".join(map(writer.write, fragment.pieces))
        except Malformed:
            candidate.open = None  # a call with a missing piece must not look complete
            raise
        events: list[Event] = []
        if call is None:
            events += self._close(candidate)
            call, opened = candidate.calls.open(fragment.identifier, fragment.name, self.seed(candidate.number))
            candidate.open, candidate.arguments = call, writer
            events += opened
        if signature:
            events.append(candidate.calls.sign(call, signature))
        self.room.take(0, len(fragment.pieces))  # the writer keeps the path of each piece
        events += candidate.calls.add(call, text)
        if not fragment.continues:
            events += self._close(candidate)
        return events

    def _close(self, candidate: _Candidate) -> list[Event]:
        """Completes the call whose arguments arrived in pieces, if there is one."""
        call, candidate.open = candidate.open, None
        if call is None:
            return []
        return candidate.calls.add(call, candidate.arguments.close()) + candidate.calls.close(call)

    def _tool_event(self, candidate: _Candidate, member: str, raw: dict[str, Any]) -> Event:
        """Reads a step of a tool. A result without an id belongs to the last run without a result."""
        # A result without an id gets the run's id: with long ids, many short results would become many long events.
        identifier = label(raw.pop("id", None))[: LIMITS.kept_word]
        if member in ("executableCode", "toolCall"):
            name = label(raw.pop("toolType", None))[: LIMITS.kept_word].lower() or "code_execution"
            identifier = candidate.runs.begin(identifier, name)
            value = raw.get("args") if member == "toolCall" else raw
            return server_tool(identifier, name, "started", encode_json(value).decode() if value else "")
        run = candidate.runs.end(identifier)
        if member == "toolResponse":
            name = label(raw.get("toolType")).lower() or run[1]
            return server_tool(run[0] or name, name, "completed", output=raw.get("response"))
        failed = raw.get("outcome") not in _SUCCESSES
        return server_tool(run[0] or run[1], run[1], "failed" if failed else "completed", output=raw.get("output"))

    def _safety(self, number: int, ratings: list[tuple[str, str, str, Any]]) -> list[Event]:
        """Returns an event for each rating of a candidate that is new."""
        events: list[Event] = []
        for *key, score in ratings:
            if (number, *key) not in self._rated:
                self.room.take(sum(map(len, key)), 4)
                self._rated.add((number, *key))
                safety = {"category": key[0], "action": key[1]} | ({} if score is None else {"score": score})
                events.append({"type": "safety", "safety": safety})
        return events

    def copied(self, event: Event, characters: int, text: str) -> None:
        if event["type"] == "text.delta":
            self._candidates[event.get("choice", 0)].citations.text.add(text, characters)

    def kept(self, name: str, text: str) -> None:
        self.usage = _usage(parse_chunk(text)) or self.usage

    def _count_searches(self, candidates: Iterable[dict[str, Any]]) -> None:
        """Counts the searches of the answer. Before Gemini 3, Google charges one for a request."""
        for raw in candidates:
            queries = member(raw, "groundingMetadata").get("webSearchQueries")
            for query in queries if isinstance(queries, list) else ():
                if query and isinstance(query, str) and query not in self._searches:
                    self.room.take(len(query))
                    self._searches.add(query)
        once = (self.model or "").startswith(_PER_REQUEST)
        self.searches = min(1, len(self._searches)) if once else len(self._searches)

    # -- the end --

    def finish(self) -> list[Event]:
        if self._blocked is not None:
            raise self._blocked
        first = self._candidates.get(0) or _Candidate(0, self.room, self._places)
        if not (first.reason or self.ended):
            raise self.truncated()
        self.check_word(first.reason, first.message or f"{self.api.provider} stopped: {first.reason}")
        events = self.start(None, None)
        for candidate in self._candidates.values():
            added = candidate.citations.rest()
            if self._outcome(candidate) in COMPLETE:
                added += self._close(candidate)
            events += _numbered(candidate, added)
        end = self.end(self._outcome(first), first.reason)
        if len(self._candidates) > 1:
            add_ends(end, [(each.number, self._outcome(each), each.reason) for each in self._candidates.values()])
        if self._continuation:
            end["provider_metadata"] = {"continuation_token": self._continuation, **end.get("provider_metadata", {})}
        return [*events, end]

    def _outcome(self, candidate: _Candidate) -> str:
        return candidate.calls.outcome(self.api.finish_words, candidate.reason)

    def word(self) -> str:
        first = self._candidates.get(0)
        return "" if first is None else first.reason

    def abort(self) -> list[Event]:
        # An open call was cut off and becomes no event; all other calls are events already.
        return [event for one in self._candidates.values() for event in _numbered(one, one.citations.rest())]


def _add_scores(events: list[Event], result: Any) -> None:
    """Adds the probabilities of a chunk's tokens to its first text. Unreadable values are left out."""
    tops = objects(result.get("topCandidates")) if isinstance(result, dict) else []
    chosen = objects(result.get("chosenCandidates")) if isinstance(result, dict) else []
    scores = [_score(each) for each in chosen]
    for score, top in zip(scores, tops, strict=False):
        score["top_logprobs"] = [_score(each) for each in objects(top.get("candidates"))]
    for event in events:
        if event["type"] == "text.delta" and scores:
            event["logprobs"] = scores
            return


def _score(candidate: dict[str, Any]) -> dict[str, Any]:
    return {"token": label(candidate.get("token")), "logprob": number(candidate.get("logProbability"))}


def _numbered(candidate: _Candidate, events: list[Event]) -> list[Event]:
    """Adds the candidate's number to its events. Events of the first candidate have no number."""
    if candidate.number:
        for event in events:
            event["choice"] = candidate.number
    return events


def _candidates(chunk: dict[str, Any], text: str) -> list[tuple[dict[str, Any], list[_Part]]]:
    """Returns the raw candidates of a chunk, each with its parts.

    Raises:
        Malformed: A member has another type than the API promises.
    """
    arguments = numbers = _NONE
    name = _call_name(text)
    if name:
        path = ("candidates", "content", "parts", name)
        arguments, numbers = members(text, *path, "args"), members(text, *path, "partialArgs", "numberValue")
    read = []
    given = chunk.get("candidates") or ()
    for raw in [given] if isinstance(given, dict) else given:
        content = raw.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        if not parts or not isinstance(parts, list) or not isinstance(parts[0], dict):
            parts = _other_parts(raw)
        read.append((raw, [_read_part(part, arguments, numbers) for part in parts]))
    return read


def _call_name(text: str) -> str:
    """Returns the name of the members that are calls; empty if there are none.

    Args:
        text: The JSON text of a chunk.
    """
    if '"functionCall"' in text:
        return "functionCall"
    # A search for one character costs a ninth of one for a word.
    return "function_call" if "_" in text and '"function_call"' in text else ""


def _other_parts(raw: dict[str, Any]) -> list[Any]:
    """Returns the parts of a candidate from the places where compatible servers put them: one part, or a text."""
    content = raw.get("content")
    places: tuple[Any, ...] = (content,)
    if not content or isinstance(content, dict):
        inner, message = member(raw, "content"), member(raw, "message")
        places = inner.get("parts"), inner.get("text"), raw.get("parts"), raw.get("output"), raw.get("text")
        places = *places, message.get("content"), message.get("parts")
    found: Any = next((place for place in places if place), ())
    listed = [found] if isinstance(found, (str, dict)) else found
    return [{"text": part} if isinstance(part, str) else part for part in listed]


def _own_words(chunk: dict[str, Any], text: str) -> dict[str, Any]:
    """Returns a chunk with Google's names of members: proxies write `finish_reason`, and put a chunk in `response`.

    Args:
        chunk: The parsed chunk.
        text: Its JSON text.
    """
    inner = chunk.get("response")
    if inner and isinstance(inner, dict) and "candidates" not in chunk:
        chunk = inner
    if "_" not in text or _SNAKE.search(text) is None:  # the expression would take 5,000 instructions a chunk
        return chunk
    named: dict[str, Any] = _named(chunk)
    return named


def _named(value: Any) -> Any:
    if isinstance(value, list):
        return [_named(each) for each in value]
    if not isinstance(value, dict):
        return value
    named: dict[str, Any] = {}
    for name, inner in value.items():
        name = _JOINT.sub(_capital, name)
        named[name] = inner if name in _VERBATIM else _named(inner)
    return named


def _capital(found: re.Match[str]) -> str:
    return found[1].upper()


_SNAKE: Final = re.compile(r'_[a-z_]+"\s*:')
_JOINT: Final = re.compile("_([a-z])")
_VERBATIM: Final = frozenset(("args", "arguments", "partMetadata", "response", "schema"))
"""The members whose names are the client's or a tool's."""


def _read_part(raw: dict[str, Any], arguments: Iterator[str], numbers: Iterator[str]) -> _Part:
    """Reads a part. If another member than its text has another shape, only the text is read."""
    try:
        return _checked(raw, arguments, numbers)
    except WRONG_SHAPE:
        part = _Part(text_of(raw.get("text")), bool(raw.get("thought")), label(raw.get("thoughtSignature")))
        part.is_whole = False
        return part


_NONE: Final[Iterator[str]] = iter(())


def _checked(raw: dict[str, Any], arguments: Iterator[str], numbers: Iterator[str]) -> _Part:
    part = _Part(text_of(raw.get("text")), bool(raw.get("thought")), label(raw.get("thoughtSignature")))
    if part.text and (len(raw) == 1 or raw.keys() <= _OF_TEXT):
        return part
    part.text = part.text or label(raw.get("thought")) or text_of((raw.get("audioTranscription") or {}).get("text"))
    call = raw.get("functionCall")
    if call is not None:
        part.call = _call(call, arguments, numbers)
    inline = raw.get("inlineData")
    if inline and inline.get("data"):
        media_type = text_of(inline.get("mimeType"))
        if media_type.startswith(_SHOWN) or not media_type:
            part.data = media_type, text_of(inline.get("data"))
        else:
            part.block = raw
    for name in _TOOLS:
        if raw.get(name) is not None:
            part.tool = name, dict(raw[name])
            break
    if part.tool or raw.get("fileData"):
        part.block = raw
    return part


_OF_TEXT: Final = frozenset(("text", "thought", "thoughtSignature"))
"""The members of a part that is text or a thought."""


def _call(raw: dict[str, Any], arguments: Iterator[str], numbers: Iterator[str]) -> _Call:
    text = next(arguments, "") if "args" in raw else ""
    pieces = raw.get("partialArgs") or ()
    continues = any(one.get("willContinue") is True for one in (raw, *pieces))
    given = raw.get("args", raw.get("arguments"))
    if given is None or (not given and (pieces or continues)):
        text = ""  # no arguments, or later chunks have them
    elif not text or isinstance(given, str):  # `_candidates` looks for one spelling of the names; it may be JSON text
        text = argument_piece(given)
    return _Call(
        label(raw.get("id")),
        label(raw.get("name")),
        text,
        [_piece(piece, numbers) for piece in pieces],
        continues,
    )


def _opened(text: str) -> str:
    """Returns a string as JSON without its closing quote.

    Half a surrogate pair at either end is not escaped: the adjacent piece has the other half.
    """
    first, whole, last = cast("re.Match[str]", _HALVES.fullmatch(text)).groups()
    return f'"{first}{escape(whole).decode()[1:-1]}{last}'


_HALVES: Final = re.compile(r"([\udc00-\udfff]?)(.*?)([\ud800-\udbff]?)", re.DOTALL)


def _piece(raw: dict[str, Any], numbers: Iterator[str]) -> ArgumentPiece:
    number = next(numbers, "") if "numberValue" in raw else ""
    text, is_string = "", raw.get("stringValue") is not None
    if is_string:
        text = _opened(text_of(raw["stringValue"]))
    elif raw.get("numberValue") is not None:
        text = number or encode_json(raw["numberValue"]).decode()
    elif raw.get("boolValue") is not None:
        text = "true" if raw["boolValue"] else "false"
    elif "nullValue" in raw:
        text = "null"
    return ArgumentPiece(argument_path(text_of(raw.get("jsonPath"))), text, is_string)


def _shape(raw: dict[str, Any], parts: list[_Part]) -> tuple[Any, ...]:
    """Returns the members of a raw candidate that affect more than the text."""
    return raw.get("index"), raw.get("finishReason"), [part.kind for part in parts]


def _ratings(ratings: Any) -> list[tuple[str, str, str, Any]]:
    """Returns the ratings above "negligible", each as category, action, probability and score."""
    found = []
    for rating in objects(ratings):
        probability = str(rating.get("probability"))
        if rating.get("blocked") or probability in _PROBABLE:
            score = number(rating.get("probabilityScore"))
            action = "blocked" if rating.get("blocked") else "flagged"
            found.append((str(rating.get("category")), action, probability, score))
    return found


_PER_REQUEST: Final = ("gemini-1", "gemini-2")
"""The models whose requests with searches are charged, not the searches."""

_PROBABLE: Final = frozenset("LOW MEDIUM HIGH 2 3 4".split())
"""Probabilities above "negligible". Old SDKs wrote the numbers of the enum."""


def _usage(raw: Any) -> dict[str, int] | None:
    """Returns usage as `docs/events.md` defines it, or None if no count is present."""
    if not isinstance(raw, dict):
        return None
    prompt, answer = count(raw.get("promptTokenCount")), count(raw.get("candidatesTokenCount"))
    tools, thoughts = count(raw.get("toolUsePromptTokenCount")), count(raw.get("thoughtsTokenCount"))
    total = count(raw.get("totalTokenCount"))
    if prompt is None and answer is None and tools is None and thoughts is None and total is None:
        return None
    beside = (tools or 0) + (thoughts or 0)
    if total is not None and (prompt is None) is not (answer is None):
        # Some responses lack the count of the answer's tokens, which the total includes.
        rest = total - (prompt or 0) - (answer or 0) - beside
        if answer is None:
            answer = max(rest, 0)
        elif rest >= 0:
            prompt = rest
    elif thoughts and answer and answer >= thoughts and total == (prompt or 0) + (tools or 0) + answer:
        answer -= thoughts  # some proxies count the thoughts as a part of the answer
    return counted_usage(
        None if prompt is None else prompt + (tools or 0),
        None if answer is None else answer + (thoughts or 0),
        cached=count(raw.get("cachedContentTokenCount")),
        reasoning=thoughts,
    )


# -- media and tools that Google runs --

_SHOWN: Final = ("image/", "audio/")
"""The media types that have events. Data of others, such as video, is a block of Gemini's."""
_TOOLS: Final[tuple[str, ...]] = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")


def _media(media_type: str, data: str, *, is_draft: bool) -> Event:
    if media_type.startswith("audio/"):
        return {"type": "audio.delta", "audio": {"chunk": data, "format": media_type.removeprefix("audio/")}}
    image = {"data": data, "media_type": media_type} | ({"partial": True} if is_draft else {})
    return {"type": "image", "image": image}


_SUCCESSES: Final = ("OUTCOME_OK", 1)
