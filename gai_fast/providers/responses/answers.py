"""Reads responses of the Responses dialect.

    response.created → [queued] → in_progress
      per item: output_item.added → (content_part.added → *.delta* → *.done → content_part.done)* → output_item.done
    response.completed | incomplete | failed

Owns the grammar and the hooks for providers that depart from it; each departure is in its provider's file.
What is unusual:

* The output is a list of items, and some items are lists of parts. `output_index` assigns an event to its item: some
  proxies change an item's id from event to event, some events have no id, some no index.
* The text is repeated three times: at the end of a part, at the end of its item, and in the terminal event. Text that
  no delta carried is read from the first of these that has it.
* `encrypted_content` is a reasoning item's signature. Each event has another value; the client must send back the value
  at the item's end, without the item's id if the provider stores nothing.
* A tool that the provider runs is an item, too. The outcome of some tools is a separate item; the outcome of most is
  the end of their own item.
* A failure is an `error`, flat or nested, followed by a `response.failed` with the same content. Azure's filter sends
  them the other way round, and `response.failed` has no content (maximhq/bifrost#6419).
* Events after the terminal event are ignored. Some servers send `[DONE]` as the end mark, as in the chat dialect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, NamedTuple, cast

from mypy_extensions import mypyc_attr

from gai_fast.core.json.chunks import (
    WRONG_SHAPE,
    count,
    inner_text,
    label,
    member,
    nested_count,
    objects,
    parse_chunk,
    text_of,
    token_scores,
)
from gai_fast.kernels import compact_json, encode_json
from gai_fast.model.errors import Malformed
from gai_fast.model.events import Event
from gai_fast.model.upstream_errors import UpstreamFailure
from gai_fast.providers.answers.adapter import ProviderAdapter
from gai_fast.providers.answers.events import (
    UNREADABLE,
    argument_piece,
    citation,
    counted_usage,
    provider_block,
    server_tool,
)
from gai_fast.providers.answers.failures import is_error_type
from gai_fast.providers.answers.finish_words import COMPLETE
from gai_fast.providers.answers.limits import LIMITS
from gai_fast.providers.answers.room import too_many
from gai_fast.providers.answers.tool_calls import ToolCall, ToolCalls
from gai_fast.providers.requests.api import API

_CONTENT_BLOCKS: Final = LIMITS.content_blocks
_END: Final = "[DONE]"

_STATUSES: Final = frozenset({"completed", "incomplete", "failed", "cancelled"})
"""The statuses of a response that has ended."""
_TERMINAL: Final = {"response.done": "completed"} | {f"response.{status}": status for status in _STATUSES}
"""The status for each terminal event. ChatGPT's own endpoint and the Realtime API send `done` for every status."""

# For each kind of part: the event for its text, the member that holds the text, and the kind of item that it is in.
_PARTS: Final = {
    "output_text": ("text.delta", "text", "message"),
    "refusal": ("refusal.delta", "refusal", "message"),
    "summary_text": ("reasoning.delta", "text", "reasoning"),
    "reasoning_text": ("reasoning.delta", "text", "reasoning"),
}
# For each event of a part: the kind of part, and `delta` or `done`.
_PART_EVENTS: Final = {
    f"response.{name}.{end}": (kind, end)
    for end in ("delta", "done")
    for name, kind in (
        ("output_text", "output_text"),
        ("refusal", "refusal"),
        ("reasoning_summary_text", "summary_text"),
        ("reasoning_text", "reasoning_text"),
        # The names of other servers: the Realtime API and early ones, Open Responses, and their imitators.
        ("text", "output_text"),
        ("message", "output_text"),
        ("output", "output_text"),
        ("reasoning", "reasoning_text"),
        ("reasoning_content", "reasoning_text"),
        ("thinking", "reasoning_text"),
        ("reasoning_summary", "summary_text"),
    )
} | {
    "response.delta": ("output_text", "delta"),
    "response.content_part.delta": ("output_text", "delta"),
    "response.output_item.delta": ("output_text", "delta"),
}
_TEXT_EVENT: Final = "response.output_text.delta"
_FIRST_TEXT: Final = ("output_text", 0)
"""The kind and the index of an item's first part."""
_TRANSCRIPTS: Final = (
    "response.audio.transcript.delta",
    "response.audio_transcript.delta",
    "response.output_audio_transcript.delta",
)
"""The events of an audio's transcript: the Responses API's, and the Realtime API's."""
# For each event of a call: the kind of item, and the member that holds the text.
_CALL_EVENTS: Final = {
    "response.function_call_arguments.delta": ("function_call", "delta"),
    "response.function_call_arguments.done": ("function_call", "arguments"),
    "response.custom_tool_call_input.delta": ("custom_tool_call", "delta"),
    "response.custom_tool_call_input.done": ("custom_tool_call", "input"),
}
_INNER_EVENTS: Final = frozenset(
    kind
    for kind in (
        *_PART_EVENTS,
        *_CALL_EVENTS,
        *(f"response.{name}.{end}" for name in ("output_item", "content_part") for end in ("added", "done")),
    )
    if kind.count(".") > 1
)
"""Events within a response that report no failure of it: see `_may_report_failure`."""
_SEARCH: Final = "web_search_call"
"""The type of an item that is a search of the provider's."""
_AWAITED: Final = frozenset(
    "apply_patch_call computer_call local_shell_call mcp_approval_request program shell_call tool_search_call".split()
)
"""Server tools whose item holds only the request: the outcome is another item, or comes from the client."""
_UNSAID: Final = ("reasoning", "_call")
"""The ends of types of items that are no text, even if they have a role and a content."""
_INPUTS: Final[tuple[str, ...]] = ("arguments", "input", "action", "operation")
_NAMED_INPUTS: Final[tuple[str, ...]] = ("queries", "code", "revised_prompt", "prompt")
_OUTPUTS: Final[tuple[str, ...]] = ("output", "outputs", "results", "result", "tools", "error")
_OUTPUT: Final = (list, str, dict)
"""The types of `output`: OpenAI's, and one text or one item of other servers."""
_IMAGE_HEADS: Final = {"/9j/": "jpeg", "UklGR": "webp"}
"""The image format for the first characters of the base64, used if the event does not name the format."""


_PREFIX_LENGTH: Final = 64
"""Characters of a text's prefix, and of its end: `follows_text` keeps as many."""


class _Part:
    """One part of an item.

    Attributes:
        owner: The place of its item among all items; negative if it has none.
        begin: Code points of the response's text before the part.
        is_delivered: Whether its text has become events.
        held: Text that becomes an event with the first delta, or at the end if nothing else of the part comes.
        event: The type of its deltas: a server that sends its text in two types of events repeats it.
        prefix: The first characters of its text, to recognize the part if its index changes.
        cited: The number of its annotations that have been read.
    """

    def __init__(self, owner: int = -1, begin: int = 0) -> None:
        self.owner = owner
        self.begin = begin
        self.is_delivered = False
        self.held = ""
        self.event = ""
        self.prefix = ""
        self.cited = 0


_UNDELIVERED: Final = _Part()


class _Sent:
    """The text of a response that has become events.

    Attributes:
        characters: Its code points.
        last: Its last characters; fewer than there are if the copier could not keep them.
        part: The part that began last.
    """

    def __init__(self) -> None:
        self.characters = 0
        self.last = ""
        self.part = _UNDELIVERED

    def copy(self) -> _Sent:
        copied = _Sent()
        copied.characters, copied.last, copied.part = self.characters, self.last, self.part
        return copied

    def add(self, text: str, characters: int) -> None:
        """Adds a text, or its end if it has more characters."""
        self.characters += characters
        self.last = ((self.last if len(text) == characters else "") + text)[-_PREFIX_LENGTH:]

    def rest(self, whole: str) -> str:
        """Returns the end of the last part's whole text that no delta carried; empty if deltas carried another text."""
        part, last = self.part, self.last
        sent = self.characters - part.begin
        if not 0 < sent < len(whole) or len(last) < min(sent, _PREFIX_LENGTH):
            return ""
        is_same = whole.startswith(part.prefix) and whole.endswith(last[-sent:], 0, sent)
        return whole[sent:] if is_same else ""


class _Item:
    """One item of the output.

    Attributes:
        place: Its place among all items.
        number: Its position in the output.
        has_index: Whether its first event had its `output_index`.
        is_whole: Whether the argument text of its call has ended.
        run: Of a tool that the provider runs: the id of the run in its first event. The last event may have another id.
        thinks_as: The kind of part in which its reasoning comes. Some servers repeat it in the other kind, delta by
            delta (peonist-ai/halogen-flash-server#67).
    """

    def __init__(self, kind: str, identifier: str, place: int, index: int | None) -> None:
        self.kind = kind
        self.identifier = identifier
        self.place = place
        self.number = place if index is None else index
        self.has_index = index is not None
        self.parts: dict[tuple[str, int], _Part] = {}
        self.call: ToolCall | None = None
        self.is_whole = False
        self.is_signed = False
        self.is_done = False
        self.thinks_as = ""
        self.run = ""


class _Open(NamedTuple):
    """The items of one kind that have not ended, in order.

    Attributes:
        items: All of them.
        unnumbered: Those without an index.
    """

    items: dict[_Item, None]
    unnumbered: dict[_Item, None]


_NONE_OPEN: Final = _Open({}, {})


def _note_open(open_of: dict[str, _Open], item: _Item) -> None:
    of_kind = open_of.get(item.kind)
    if of_kind is None:
        of_kind = open_of[item.kind] = _Open({}, {})
    of_kind.items[item] = None
    if not item.has_index:
        of_kind.unnumbered[item] = None


class _Items:
    """The items of a response, and which of them an event belongs to.

    1. An `output_index` means the item that began there last: some proxies change an item's id from event to event.
    2. Some servers number all items 0. From then on that two open items of one kind have one index, a known id decides.
    3. Without an index the id decides; without both, the event belongs to the last open item of its kind.
    4. A call without an id has the id of its call: llama.cpp's deltas name it as their item (ggml-org/llama.cpp#24882).

    Attributes:
        begun: All items, in order.
        unfinished: Those that have not ended, in order.
        is_shared: Whether two open items of one kind have had one index.
    """

    def __init__(self) -> None:
        self.begun: list[_Item] = []
        self.unfinished: dict[_Item, None] = {}
        self.is_shared = False
        self._at: dict[tuple[str, int], _Item] = {}
        """The current item for each kind and `output_index`."""
        self._named: dict[tuple[str, str], _Item] = {}
        """The last item of each kind and id."""
        self._open_of: dict[str, _Open] | None = None
        """Those of each kind that have not ended; None until an event does not say which one it belongs to."""

    def begin(self, item: _Item) -> None:
        self.begun.append(item)
        self.unfinished[item] = None
        if self._open_of is not None:
            _note_open(self._open_of, item)
        self.name(item, item.identifier)
        if item.has_index:
            place = item.kind, item.number
            former = self._at.get(place)
            self.is_shared = self.is_shared or (former is not None and not former.is_done)
            self._at[place] = item

    def name(self, item: _Item, identifier: str) -> None:
        """Keeps an id of an item, unless it is empty."""
        item.identifier = identifier
        if identifier:
            self._named[item.kind, identifier] = item

    def end(self, item: _Item) -> None:
        if not item.is_done:
            item.is_done = True
            del self.unfinished[item]
            if self._open_of is not None:
                of_kind = self._open_of[item.kind]
                del of_kind.items[item]
                of_kind.unnumbered.pop(item, None)

    def current(self, kind: str, index: int) -> _Item | None:
        """Returns the current item of a kind and an `output_index`, nearly always the last one, or None."""
        if self.begun:
            last = self.begun[-1]
            if last.has_index and last.number == index and last.kind == kind:
                return last  # a look-up takes 500 instructions more
        return self._at.get((kind, index))

    def find(self, kind: str, identifier: str, index: int | None) -> _Item | None:
        """Returns the item of an event, or None.

        Args:
            kind: The kind of item.
            identifier: Its id, empty if the event has none.
            index: Its `output_index`, if the event has one.
        """
        if index is None:
            named = self._named.get((kind, identifier)) if identifier else None
            return named or next(reversed(self._open_items(kind).items), None)
        named = self._open(kind, identifier) if self.is_shared else None
        return named or self.current(kind, index)

    def find_unnumbered(self, kind: str, identifier: str) -> _Item | None:
        """Returns the open item whose end alone has an index, or None; arguments as for `find`."""
        return self._open(kind, identifier) or next(iter(self._open_items(kind).unnumbered), None)

    def _open_items(self, kind: str) -> _Open:
        """Returns the items of a kind that have not ended."""
        if self._open_of is None:
            self._open_of = {}
            for item in self.unfinished:
                _note_open(self._open_of, item)
        return self._open_of.get(kind, _NONE_OPEN)

    def _open(self, kind: str, identifier: str) -> _Item | None:
        named = self._named.get((kind, identifier)) if identifier else None
        return None if named is None or named.is_done else named


@mypyc_attr(allow_interpreted_subclasses=True)
class ResponsesAdapter(ProviderAdapter):
    """Reads the dialect's events. Providers override `client_calls` and `extras`."""

    text_members = frozenset({"delta"})
    ignored_members = frozenset({"sequence_number", "obfuscation"})
    label_members = frozenset({"item_id"})
    content_members = frozenset({"delta", "text", "part", "item", "refusal"})
    follows_text = True

    client_calls: ClassVar[frozenset[str]] = frozenset({"function_call", "custom_tool_call"})
    """Kinds of items that call one of the client's tools."""

    def __init__(self, api: API, model: str | None = None) -> None:
        super().__init__(api, model)
        self._items = _Items()
        self._prefixes: dict[tuple[int, str, str], _Part] = {}
        """The delivered parts, by the place of their item, their kind and their prefix."""
        self._identifier = ""
        self._calls = ToolCalls(self.room)
        self._server_tools: dict[str, str] = {}
        """Names of the tools that the provider runs, by the id of the run."""
        self._has_sound = self._has_held = False
        self._sent = _Sent()
        self._word = ""
        """The provider's finish reason."""

    def receive(self, name: str, data: str) -> list[Event]:
        if data.startswith(_END):  # OpenAI sends none, but the official clients accept it
            self.ended = True
            return []
        if name == "error":
            raise self.error_event(data)
        chunk = parse_chunk(data)
        kind = _kind(chunk, name) if isinstance(chunk, dict) else ""
        if kind not in _INNER_EVENTS or "object" in cast("dict[str, Any]", chunk):
            chunk = self.checked(chunk, name)
        if not kind and chunk.get("status") in _STATUSES and "output" in chunk:
            kind = f"response.{chunk['status']}"  # the whole response as one chunk
        if not kind:
            raise Malformed("an event without a type")
        # A delta without an index is assigned to its item by the id alone, and the copier does not compare ids.
        is_numbered = count(chunk.get("output_index")) is not None and not self._items.is_shared
        self.copyable = is_numbered and kind.endswith(".delta")
        events = [] if self._word else self._read(kind, chunk)
        return events if self.started or not events or events[0]["type"] == "start" else self.start(None, None) + events

    def receive_text(self, index: int | None, text: str) -> Event | None:
        item = None if index is None or self._word or self._items.is_shared else self._items.current("message", index)
        part = None if item is None else item.parts.get(_FIRST_TEXT)
        if part is None or not (self.started and part.is_delivered and part.event == _TEXT_EVENT):
            return None
        self._sent.add(text, len(text))
        return {"type": "text.delta", "text": text}

    def failure(self, chunk: Any, name: str = "") -> UpstreamFailure | None:
        return self.api.read_failure(chunk) if _may_report_failure(chunk, name) else None

    def _read(self, kind: str, chunk: dict[str, Any]) -> list[Event]:
        match kind:
            case "response.created" if self._is_another(member(chunk, "response")):
                raise self.spliced()
            case "response.created" | "response.queued" | "response.in_progress":
                return self._begin(member(chunk, "response"))
            case "response.output_item.added":
                return self._open(member(chunk, "item"), chunk)
            case "response.output_item.done":
                raw = member(chunk, "item")
                item_kind = _item_kind(raw)
                if not item_kind:
                    return []
                item = self._item(item_kind, _name_of(raw, item_kind in self.client_calls), chunk)
                if item_kind == _SEARCH and not item.is_done:  # the end of the response has the count, if it comes
                    self.searches += _searches({"output": [raw]})
                return self._complete(item, raw)
            case "response.content_part.added" | "response.reasoning_summary_part.added":
                self._hold("", member(chunk, "part"), chunk)
            case "response.content_part.done" | "response.reasoning_summary_part.done":
                return self._end_part(member(chunk, "part"), chunk)
            case "response.output_text.annotation.added":
                part = self._part(self._item_of("message", chunk), "output_text", chunk)
                try:
                    return self._cite(part, [chunk.get("annotation")])
                except WRONG_SHAPE:
                    return [{**UNREADABLE}]
            case "response.image_generation_call.partial_image":
                return _image(label(chunk.get("partial_image_b64")), chunk, partial=True)
            case "response.audio.delta" | "response.output_audio.delta":
                self._has_sound = True
                return _sound(chunk)
        if kind in _PART_EVENTS:
            return self._part_event(kind, chunk)
        if kind in _CALL_EVENTS:
            return self._call_event(kind, chunk)
        if kind in _TRANSCRIPTS:
            return self._deliver(_Part(), "output_text", chunk["delta"])
        if kind in _TERMINAL:
            return self._end(_TERMINAL[kind], member(chunk, "response") or chunk)
        return [] if kind.startswith("response.") else self._read(f"response.{kind}", chunk)

    def receive_whole(self, answer: Any, text: str = "") -> list[Event]:
        if isinstance(answer, dict) and "output" not in answer:
            answer = member(answer, "response") or answer
        if not isinstance(answer, dict) or not (answer.get("output_text") or isinstance(answer.get("output"), _OUTPUT)):
            raise Malformed("an answer without output")
        if answer.get("status") in ("queued", "in_progress"):
            return self._begin(answer)
        self.ended = True
        return self._end("completed", answer)

    def may_hold_text(self, chunk: dict[str, Any]) -> bool:
        item, response = chunk.get("item"), chunk.get("response")
        if isinstance(item, dict) and _item_kind(item) not in ("", "message", "reasoning"):
            return False
        return super().may_hold_text(chunk) or bool(response.get("output") if isinstance(response, dict) else response)

    def finish(self) -> list[Event]:
        if not self._word and not self.ended:
            raise self.truncated()
        self.check_word(self._word)
        if self._word == "failed":
            raise self.error(UpstreamFailure())
        reason = self._calls.outcome(self.api.finish_words, self._word)
        if reason in COMPLETE and self._items.unfinished and _has_broken_call(self._items.unfinished):
            raise self.truncated()
        events = self.start(None, None) + self._held_texts()
        if reason in COMPLETE:
            events += self._calls.close_all()
            if not self._calls and any(
                item.kind in self.client_calls and item.call is None for item in self._items.unfinished
            ):
                raise self.unreadable()  # pieces of a call came, but never its name
        return [*events, self.end(reason, self._word)]

    def word(self) -> str:
        return self._word

    def copied(self, event: Event, characters: int, text: str) -> None:
        if event["type"] == "text.delta":
            self._sent.add(text, characters)
        elif event["type"] == "tool.call.delta":
            self._calls.copied(event["index"], text)

    # -- the response --

    def _is_another(self, response: dict[str, Any]) -> bool:
        return bool(self._items.begun) and label(response.get("id")) != self._identifier

    def _begin(self, response: dict[str, Any]) -> list[Event]:
        usage = response.get("usage")
        if isinstance(usage, dict):
            counted, self.searches = _counted(usage), _searches(response)
            if counted:
                self.usage = counted
            if counted or self.own_cost is None:
                self.own_cost = self.cost_in(usage)
        identifier = label(response.get("id"))
        if identifier != self._identifier:
            self._identifier = identifier
            self.keep_id(identifier)
        return [] if self.started and self.named else self.start(self._identifier, label(response.get("model")))

    def _end(self, event_status: str, response: dict[str, Any]) -> list[Event]:
        """Ends the response: reads its finish reason, and all content that no earlier event carried.

        Args:
            event_status: The status that the event's name implies.
            response: The whole response.
        """
        events = self._begin(response)
        status = _status(response, event_status)
        if "failed" in (status, event_status) or response.get("error"):
            self._word = "failed"  # the response is over, and its counts are final
            failure = self.api.read_failure(response)
            if failure is not None:
                raise self.error(failure)
            self.is_complete = True  # an `error` may follow, else `finish` raises one
            return events
        reason = label(member(response, "incomplete_details").get("reason"))
        self._word = reason[: LIMITS.kept_word] if reason and status == "incomplete" else status
        self.is_complete = True
        return events + self._complete_all(response)

    def _complete_all(self, response: dict[str, Any]) -> list[Event]:
        """Ends all items of a whole response. Items that cannot be read are left out, with one warning."""
        events: list[Event] = []
        output, is_read = _listed(response.get("output") or [], may_be_text=not (self._items.begun or self._has_sound))
        for item, raw in _paired(self._items.begun, output, self._new):
            sent = self._sent.copy()
            try:
                events += self._complete(item, raw)
            except WRONG_SHAPE:
                if item.kind == "message" and not sent.characters:  # nor have deltas brought its text
                    raise self.unreadable() from None
                self._sent, is_read = sent, False
        events += self._held_texts()
        said = label(response.get("output_text"))  # as the SDK's property
        if said and not (self._sent.characters or _has_text(self._items.begun)):
            events += self._deliver(_Part(), "output_text", said)
        try:
            events += self.extras(response)
        except WRONG_SHAPE:
            is_read = False
        return events if is_read else [*events, {**UNREADABLE}]

    def extras(self, response: dict[str, Any]) -> list[Event]:
        """Reads the members of a complete response other than its output."""
        return []

    # -- items --

    def _new(self, kind: str, identifier: str, index: int | None) -> _Item:
        if len(self._items.unfinished) >= _CONTENT_BLOCKS:
            raise too_many("content_blocks", _CONTENT_BLOCKS)
        self.room.take(len(kind) + len(identifier), 8)
        item = _Item(kind, identifier, len(self._items.begun), index)
        self._items.begin(item)
        self.keep_id(identifier)
        return item

    def _item_of(self, kind: str, chunk: dict[str, Any]) -> _Item:
        return self._item(kind, label(chunk.get("item_id")), chunk)

    def _item(self, kind: str, identifier: str, chunk: dict[str, Any]) -> _Item:
        """Returns the item of an event. Begins the item if no event has announced it.

        Args:
            kind: The kind of item.
            identifier: Its id, empty if the event has none.
            chunk: The event.
        """
        index = count(chunk.get("output_index"))
        item = self._items.find(kind, identifier, index)
        if item is None and label(chunk.get("type")).endswith(".done"):  # some servers number an item at its end
            item = self._items.find_unnumbered(kind, identifier)
        return item or self._new(kind, identifier, index)

    def _open(self, raw: dict[str, Any], chunk: dict[str, Any]) -> list[Event]:
        """Begins an item. Content that it holds is not read here: the item's end repeats it."""
        kind = _item_kind(raw)
        identifier, index = _name_of(raw, kind in self.client_calls), count(chunk.get("output_index"))
        item = None if index is None else self._items.current(kind, index)
        # Some servers number every item 0: another id is another item.
        if item is None or item.is_done or item.identifier != identifier:
            item = self._new(kind, identifier, index)
        if kind in self.client_calls:
            return self._call(item, raw)
        if kind == "message":
            for at, part in enumerate(objects(raw.get("content"))):
                self._hold(identifier, part, {**chunk, "content_index": at})
        if kind in ("", "message", "reasoning") or kind in _AWAITED or kind.endswith("_output"):
            return []
        return [self._server_tool(item, raw, "started")]

    def _complete(self, item: _Item, raw: dict[str, Any]) -> list[Event]:
        """Ends an item: reads all content that no earlier event carried."""
        kind = item.kind
        if kind == "message":
            return self._fill_all(item, raw.get("content") or raw.get("text"))
        if kind == "reasoning":
            return self._complete_reasoning(item, raw)
        if kind in self.client_calls:
            return self._complete_call(item, raw)
        if item.is_done:
            return []
        self._items.end(item)
        self.keep_ids(raw)
        drawn = kind == "image_generation_call"  # an image is not repeated as a block
        events = _image(label(raw.get("result")), raw) if drawn else provider_block(self.api.provider, raw, item.number)
        if kind in _AWAITED:
            return [*events, self._server_tool(item, raw, "started")]
        failed = raw.get("error") or raw.get("status") in ("failed", "incomplete")
        return [*events, self._server_tool(item, raw, "failed" if failed else "completed")]

    def _complete_reasoning(self, item: _Item, raw: dict[str, Any]) -> list[Event]:
        events: list[Event] = []
        # A server that streams the summary or the content repeats its text in the other member.
        if not any(part.is_delivered for part in item.parts.values()):
            events, more = self._fill_all(item, raw.get("summary")), self._fill_all(item, raw.get("content"))
            events += [] if _joined(events) == _joined(more) else more
        signature = label(raw.get("encrypted_content"))
        if signature and not item.is_signed:
            item.is_signed = True
            events.append({"type": "reasoning.signature", "block": item.number, "signature": signature})
        self._items.end(item)
        return events

    # -- parts --

    def _part(self, item: _Item, kind: str, chunk: dict[str, Any]) -> _Part:
        index = count(chunk.get("summary_index" if kind == "summary_text" else "content_index")) or 0
        return item.parts.get((kind, index)) or self._new_part(item, kind, index)

    def _new_part(self, item: _Item, kind: str, index: int) -> _Part:
        if len(item.parts) >= _CONTENT_BLOCKS:
            raise too_many("content_blocks", _CONTENT_BLOCKS)
        self.room.take(0, 8)
        part = item.parts[kind, index] = _Part(item.place, self._sent.characters)
        return part

    def _hold(self, identifier: str, raw: dict[str, Any], chunk: dict[str, Any]) -> None:
        """Keeps the text that a part has when it is announced: it comes before the first delta, as in the SDK.

        Args:
            identifier: The id of its item, empty if the event has it.
            raw: The part.
            chunk: The event.
        """
        kind, text = _announced(raw)
        if text:
            item = self._item(_PARTS[kind][2], identifier or label(chunk.get("item_id")), chunk)
            self._keep(self._part(item, kind, chunk), text)

    def _keep(self, part: _Part, text: str) -> None:
        """Keeps the text of a part until its first delta, or until the end."""
        if not part.is_delivered:
            self.room.take(len(text) - len(part.held), 0)
            part.held = text
            self._has_held = True

    def _held_texts(self) -> list[Event]:
        """Returns the texts of announced parts that had no delta."""
        parts = _unsent(self._items.begun) if self._has_held else ()
        return [event for part, kind in parts for event in self._deliver(part, kind, part.held)]

    def _part_event(self, event: str, chunk: dict[str, Any]) -> list[Event]:
        kind, end = _PART_EVENTS[event]
        if end == "done":
            return self._end_part({**chunk, "type": kind}, chunk)
        text = _delta_text(chunk)
        item = self._item_of(_PARTS[kind][2], chunk)
        if item.thinks_as not in ("", kind):
            self.copyable = False
            return []
        part = self._part(item, kind, chunk)
        if isinstance(chunk.get("delta"), dict) and _PARTS[kind][2] == "reasoning" and isinstance(text, str):
            # An object of early servers is an update, and not always the rest: the item's end has the whole text.
            self._keep(part, text if text.startswith(part.held) else part.held + text)
            return []
        if text and part.event != event:
            if part.event:
                return []
            part.event = event
            item.thinks_as = kind if item.kind == "reasoning" else ""
        events = self._deliver(part, kind, text)
        if chunk.get("logprobs") and events:
            self.copyable = False  # each token has its own
            scores = token_scores(chunk["logprobs"])
            if scores:
                events[0]["logprobs"] = scores
        return events

    def _deliver(self, part: _Part, kind: str, text: Any) -> list[Event]:
        """Returns the delta for text of a part, if it is not empty, and a warning for reasoning that is not text."""
        event, _, item_kind = _PARTS[kind]
        if item_kind != "message" and text and not isinstance(text, str):
            return [{**UNREADABLE}]
        text = text_of(text)
        if not text:
            return []
        if not part.is_delivered:
            text = text if text.startswith(part.held) else part.held + text
            part.is_delivered, part.begin, part.prefix = True, self._sent.characters, text[:_PREFIX_LENGTH]
            if part.owner >= 0:
                self._prefixes.setdefault((part.owner, kind, part.prefix), part)
            if event == "text.delta":
                self._sent.part = part
        if event == "text.delta":
            self._sent.add(text, len(text))
        return [{"type": event, "text": text}]

    def _end_part(self, raw: dict[str, Any], chunk: dict[str, Any]) -> list[Event]:
        """Ends a part: reads its text if no delta carried it, and its other annotations."""
        kind = label(raw.get("type"))
        if kind not in _PARTS:
            return []
        _, name, item_kind = _PARTS[kind]
        item = self._item_of(item_kind, chunk)
        if item.thinks_as not in ("", kind):
            return []
        part = self._part(item, kind, chunk)
        if not part.is_delivered:
            part = self._delivered(item, kind, label(raw.get(name))) or part
        events = self._fill(part, kind, raw)
        if events and item_kind == "reasoning":
            item.thinks_as = kind
        return events

    def _delivered(self, item: _Item, kind: str, text: str) -> _Part | None:
        """Returns the part of an item whose deltas began as a text does: they may have had another index. Or None."""
        for size in range(min(len(text), _PREFIX_LENGTH), 0, -1):
            part = self._prefixes.get((item.place, kind, text[:size]))
            if part is not None:
                return part
        return None

    def _fill_all(self, item: _Item, raw_parts: Any) -> list[Event]:
        """Reads the parts of a whole item.

        A part that deltas carried may have another index here: gpt-oss on vLLM and Bedrock count `content_index` across
        items in their deltas, and from 0 in each whole item.
        """
        self._items.end(item)
        if isinstance(raw_parts, (str, dict)):
            raw_parts = [raw_parts]
        if raw_parts and not isinstance(raw_parts, list):
            if any(part.is_delivered for part in item.parts.values()):
                return [{**UNREADABLE}]
            raise Malformed("the parts of an item are no list")
        whole, parts = _matched(item, raw_parts or ())
        events: list[Event] = []
        for at, (index, kind, raw) in enumerate(whole):
            part = parts[at]
            if part is None:
                is_taken = item.parts.get((kind, index), _UNDELIVERED).is_delivered
                place = ~index if is_taken else index
                part = item.parts.get((kind, place)) or self._new_part(item, kind, place)
            events += self._fill(part, kind, raw)
        return events

    def _fill(self, part: _Part, kind: str, raw: dict[str, Any]) -> list[Event]:
        """Reads a whole part: its text unless deltas carried it, and the annotations that no event carried.

        Annotations that cannot be read become a warning. An exception would discard the whole chunk, with the text of
        this part and the events of the parts before it, which count as delivered already.

        Raises:
            Error: The text cannot be read.
        """
        events: list[Event] = []
        try:
            if not part.is_delivered:
                text = inner_text(raw.get(_PARTS[kind][1]) or raw.get("text") or raw.get("content") or part.held)
                if text and not isinstance(text, str) and _PARTS[kind][2] == "message":
                    raise self.unreadable()
                events = self._deliver(part, kind, text)
            elif part is self._sent.part and (rest := self._sent.rest(label(raw.get("text")))):
                events = self._deliver(part, kind, rest)
            if annotations := raw.get("annotations"):
                events += self._cite(part, annotations[part.cited :])
        except WRONG_SHAPE:
            events.append({"type": "warning", "reason": "malformed_chunk"})
        return events

    def _cite(self, part: _Part, annotations: Iterable[Any]) -> list[Event]:
        """Reads annotations. Their offsets count from the begin of the part, an event's from the begin of the text."""
        cited = []
        for annotation in annotations:
            part.cited += 1  # counted before it is read: the whole part repeats an annotation that cannot be read
            self.keep_ids(annotation)
            cited.append(_citation(annotation, part.begin))
        cited = [one for one in cited if one.get("uri")]
        return [{"type": "citations", "citations": cited}] if cited else []

    # -- calls and tools --

    def _call(self, item: _Item, raw: dict[str, Any]) -> list[Event]:
        events: list[Event] = []
        if item.call is None:
            # A client must send back the `call_id`; `id` is the item's id.
            identifier = label(raw.get("call_id")) or item.identifier
            if not item.identifier:
                self._items.name(item, identifier)
            item.call, events = self._calls.open(identifier, label(raw.get("name")))
            item.call.keeps_pieces = item.kind == "custom_tool_call"
        return events

    def _call_event(self, kind: str, chunk: dict[str, Any]) -> list[Event]:
        item_kind, name = _CALL_EVENTS[kind]
        item, text = self._item_of(item_kind, chunk), argument_piece(chunk.get(name))
        if item.call is None or item.is_whole:
            return []
        if kind.endswith(".delta"):
            return self._calls.add(item.call, text)
        item.is_whole = True
        events = self._calls.add_rest(item.call, text)
        if compact_json(item.call.arguments) == "{}":
            return events  # some servers send the arguments only with the item's end
        # Text that is not JSON may be cut off; only the item's end has the status.
        return events + self._calls.close(item.call, cut_off=True)

    def _complete_call(self, item: _Item, raw: dict[str, Any]) -> list[Event]:
        if item.is_done:
            return []
        self._items.end(item)
        item.is_whole = True
        kind = item.kind
        # The text is read before the call begins, so that a chunk that cannot be read begins no call.
        given = raw.get("input" if kind == "custom_tool_call" else "arguments")
        text = argument_piece(given) if given else ""
        events = self._call(item, raw)
        call = item.call
        if call is None or call.closed:
            return events
        events += self._calls.add(call, "", label(raw.get("name"))) + self._calls.add_rest(call, text)
        # Arguments that are not JSON may have been cut off by the token limit; only the response's end has the reason.
        cut_off = raw.get("status") == "incomplete" or (kind == "function_call" and bool(call.arguments.strip()))
        return events + self._calls.close(call, cut_off=cut_off)

    def _server_tool(self, item: _Item, raw: dict[str, Any], status: str) -> Event:
        kind = label(raw.get("type"))
        identifier = item.run = item.run or label(raw.get("call_id")) or label(raw.get("id"))
        if kind == "mcp_approval_request":
            requested = {key: raw[key] for key in ("server_label", "name", "arguments") if key in raw}
            return server_tool(identifier, kind, status, encode_json(requested).decode())
        known = self._server_tools.get(identifier, kind.removesuffix("_output").removesuffix("_call"))
        name = label(raw.get("name")) or known
        if name != self._server_tools.get(identifier):
            self.room.take(len(identifier) + len(name), 2)
            self._server_tools[identifier] = name
        output = None if status == "started" else _output_of(kind, raw)
        return server_tool(identifier, name, status, _input_of(raw), output)


def _joined(events: list[Event]) -> str:
    """Returns the text of events."""
    return "".join([event.get("text", "") for event in events])


def _name_of(raw: dict[str, Any], is_call: bool) -> str:
    """Returns the id of an item; of a client's call that has none, its call's."""
    return label(raw.get("id")) or (label(raw.get("call_id")) if is_call else "")


def _output_of(kind: str, raw: dict[str, Any]) -> Any:
    """Returns the output of a tool that the provider runs; None if it has none, or is an image."""
    return None if kind == "image_generation_call" else next((raw[key] for key in _OUTPUTS if raw.get(key)), None)


def _input_of(raw: dict[str, Any]) -> str:
    """Returns the input of a tool that the provider runs, as text or as JSON."""
    given = next((raw[key] for key in _INPUTS if raw.get(key)), "")
    given = given or next(({key: raw[key]} for key in _NAMED_INPUTS if raw.get(key)), "")
    return given if isinstance(given, str) else encode_json(given).decode()


def _listed(given: Any, *, may_be_text: bool) -> tuple[list[tuple[str, str, dict[str, Any]]], bool]:
    """Returns the kind, the id and the object of each item of a whole output, and whether all could be read.

    Args:
        given: The output: a list, or one item.
        may_be_text: Whether a text is an item.
    """
    output: list[tuple[str, str, dict[str, Any]]] = []
    if isinstance(given, (str, dict)):
        given = [given]
    is_read = isinstance(given, list)
    raw: Any
    for raw in given if is_read else ():
        if isinstance(raw, str) and may_be_text:
            raw = {"type": "message", "content": raw}
        try:
            kind = _item_kind(raw)
        except WRONG_SHAPE:
            kind = ""
        if kind:
            output.append((kind, label(raw.get("id")), raw))
        else:
            is_read = False
    return output, is_read


def _matched(item: _Item, raw_parts: Iterable[Any]) -> tuple[list[tuple[int, str, dict[str, Any]]], list[_Part | None]]:
    """Returns the parts of a whole item, by index, kind and object, and the part of each that deltas carried, or None.

    Args:
        item: The item.
        raw_parts: Its raw parts.
    """
    whole: list[tuple[int, str, dict[str, Any]]] = []
    parts: list[_Part | None] = []
    left = 0
    for each in item.parts.values():
        left += each.is_delivered
    for index, one in enumerate(raw_parts):
        raw: dict[str, Any]
        if isinstance(one, dict):
            raw = one
        elif isinstance(one, str):
            raw = {"text": one}
        else:
            continue
        kind = _part_kind(raw, item.kind)
        if kind:
            part = item.parts.get((kind, index))
            if part is None or not part.is_delivered or not label(raw.get(_PARTS[kind][1])).startswith(part.prefix):
                part = None
            else:
                left -= 1
            whole.append((index, kind, raw))
            parts.append(part)
    if left:
        _match_rest(item, whole, parts)
    return whole, parts


def _unsent(items: list[_Item]) -> list[tuple[_Part, str]]:
    """Returns the parts, each with its kind, that hold a text and whose item has sent none of this kind."""
    found: list[tuple[_Part, str]] = []
    for item in items:
        held = [(part, key[0]) for key, part in item.parts.items() if part.held]
        if held:
            delivered = {key[0] for key, part in item.parts.items() if part.is_delivered}
            found += [each for each in held if each[1] not in delivered and item.thinks_as in ("", each[1])]
    return found


def _has_broken_call(items: Iterable[_Item]) -> bool:
    """Returns whether a call among open items has a part of its arguments only."""
    return any(item.call is not None and not item.is_whole and item.call.is_cut_off for item in items)


def _has_text(items: list[_Item]) -> bool:
    """Returns whether a text or a refusal of a message has become events."""
    return any(part.is_delivered for item in items if item.kind == "message" for part in item.parts.values())


def _delta_text(chunk: dict[str, Any]) -> Any:
    """Returns the text of a delta, which some servers send as an object, or as `text`.

    Raises:
        Malformed: It has none.
    """
    text = chunk.get("delta")
    if isinstance(text, str):
        return text
    if text is None and "text" not in chunk:
        raise Malformed("a delta without a text")
    return inner_text(chunk.get("text") if text is None else text)


def _paired(
    items: list[_Item],
    output: list[tuple[str, str, dict[str, Any]]],
    new: Callable[[str, str, int | None], _Item],
) -> Iterable[tuple[_Item, dict[str, Any]]]:
    """Yields the item for each object of a whole output.

    An object is paired with the item of its call's id or its own, else with the next unpaired item of its kind, else
    with a new item.

    Args:
        items: The items that events have begun.
        output: The kind, the id and the object of each item.
        new: Makes an item of a kind and an id.
    """
    kinds = [item.kind for item in items]
    if kinds == [kind for kind, _, _ in output] and (len(kinds) == 1 or len(set(kinds)) == len(kinds)):
        for at, (_, _, raw) in enumerate(output):  # nearly all answers have one item of each kind
            yield items[at], raw
        return
    named: dict[tuple[str, str], _Item] = {}
    for item in items:
        named[item.kind, item.identifier] = item
        if item.call is not None:  # its id stays the same if a proxy changes the ids of items
            named[item.kind, item.call.call_id] = item
    found: list[_Item | None] = []
    for kind, identifier, raw in output:
        called = label(raw.get("call_id"))
        item_called = named.get((kind, called)) if called else None
        found.append(item_called or (named.get((kind, identifier)) if identifier else None))
    paired = {one for one in found if one is not None}
    others: dict[str, deque[_Item]] = {}
    for item in items:
        if item not in paired:
            others.setdefault(item.kind, deque()).append(item)
    for at, (kind, identifier, raw) in enumerate(output):
        one = found[at]
        if one is None:
            waiting = others.get(kind)
            one = waiting.popleft() if waiting else new(kind, identifier, None)
        yield one, raw


def _counted(usage: dict[str, Any]) -> dict[str, int]:
    """Returns usage as `docs/events.md` defines it."""
    input_tokens, output_tokens = count(usage.get("input_tokens")), count(usage.get("output_tokens"))
    is_whole = input_tokens is not None and output_tokens is not None
    return counted_usage(
        input_tokens,
        output_tokens,
        cached=nested_count(usage, "input_tokens_details", "cached_tokens"),
        written=nested_count(usage, "input_tokens_details", "cache_write_tokens"),
        reasoning=nested_count(usage, "output_tokens_details", "reasoning_tokens"),
        # In this dialect every provider's output includes reasoning: the total stands for a missing count alone.
        total=None if is_whole else count(usage.get("total_tokens")),
    )


def _citation(annotation: dict[str, Any], begin: int) -> dict[str, Any]:
    """Reads an annotation of a part that begins at this place of the text."""
    uri, title = annotation.get("url") or annotation.get("file_id"), annotation.get("title")
    span = count(annotation.get("start_index")), count(annotation.get("end_index"))
    places = [begin + place for place in span if place is not None] if span[1] else ()
    return citation(uri, title or annotation.get("filename"), *(places if len(places) == 2 else ()))


def _announced(raw: dict[str, Any]) -> tuple[str, str]:
    """Returns the kind and the text of a part that an event announces."""
    kind = _part_kind(raw, "message") or _part_kind(raw, "reasoning")
    text = raw.get(_PARTS[kind][1]) if kind else None
    return kind, text if isinstance(text, str) else ""


def _may_report_failure(chunk: Any, name: str) -> bool:
    """Returns whether an event may report a failure of the response."""
    if not isinstance(chunk, dict):
        return True
    kind = _kind(chunk, name)
    if not kind or is_error_type(kind) or chunk.get("object") == "error":
        return True
    # A tool that the provider runs may fail (`response.mcp_call.failed`) without a failure of the response.
    return bool(chunk.get("error")) and kind.count(".") < 2


def _kind(chunk: dict[str, Any], name: str) -> str:
    """Returns the type of an event, which some servers send only as the name of the SSE event."""
    kind = chunk.get("type")
    return kind if kind and isinstance(kind, str) else name


def _searches(response: dict[str, Any]) -> int:
    """Returns the searches that the provider counts, or those in the output. Opening a page is none."""
    usage = response.get("tool_usage")
    counted = nested_count(usage, "web_search", "num_requests") if isinstance(usage, dict) else None
    if counted is not None:
        return counted
    searches = 0
    for raw in objects(response.get("output")):
        if raw.get("type") == _SEARCH:
            action = raw.get("action")
            searches += not isinstance(action, dict) or action.get("type", "search") == "search"
    return searches


def _item_kind(raw: dict[str, Any]) -> str:
    """Returns the type of an item, which some servers leave out. Of all items, only messages have a role."""
    kind = raw.get("type")
    if isinstance(kind, str):
        if kind == "message":  # nearly all
            return kind
        is_said = raw.get("role") == "assistant" and "content" in raw and not kind.endswith(_UNSAID)
        is_text = is_said or kind in ("text", "output_text")
        return "message" if is_text else kind
    return "message" if raw.get("role") else "function_call" if raw.get("name") and "arguments" in raw else ""


def _part_kind(raw: dict[str, Any], item_kind: str) -> str:
    """Returns the type of a part of an item. A part of an unknown type has the type of its text."""
    kind = raw.get("type")
    if isinstance(kind, str):
        if kind == "output_text":  # nearly all; a look-up in the dict would compute the hash of the chunk's text first
            return "output_text"
        if kind in _PARTS:
            return kind
    return next((part for part, (_, name, item) in _PARTS.items() if item == item_kind and name in raw), "")


def _status(response: dict[str, Any], event_status: str) -> str:
    """Returns the status of a response; its event's status if it has none."""
    status = label(response.get("status"))
    return status if status in _STATUSES else event_status


def _sound(chunk: dict[str, Any]) -> list[Event]:
    sound = label(chunk.get("delta"))
    return [{"type": "audio.delta", "audio": {"chunk": sound}}] if sound else []


def _image(data: str, raw: dict[str, Any], *, partial: bool = False) -> list[Event]:
    if not data:
        return []
    kind = label(raw.get("output_format"))
    kind = kind or next((kind for head, kind in _IMAGE_HEADS.items() if data.startswith(head)), "png")
    image: dict[str, Any] = {"data": data, "media_type": f"image/{kind}"}
    return [{"type": "image", "image": image | {"partial": True} if partial else image}]


def _match_rest(item: _Item, whole: list[tuple[int, str, dict[str, Any]]], parts: list[_Part | None]) -> None:
    """Matches the parts of a whole item with the parts that deltas carried under other indices.

    Parts of one kind are matched in order: first parts whose text has the prefix, then parts whose text differs because
    the item's end has rewritten it.

    Args:
        item: The item, some of whose parts are not matched yet.
        whole: The parts of the item: index, kind and JSON object.
        parts: The part for each entry of `whole`, or None if it has no match. Each match replaces a None.
    """
    matched = set(parts)
    delivered = {key: part for key, part in item.parts.items() if part.is_delivered and part not in matched}
    for by_prefix in (True, False):
        unmatched: dict[str, deque[tuple[str, int]]] = {}
        for key in delivered:
            unmatched.setdefault(key[0], deque()).append(key)
        for at, (_, kind, raw) in enumerate(whole):
            keys = unmatched.get(kind)
            if parts[at] is None and keys:
                text = label(raw.get(_PARTS[kind][1]))
                if not by_prefix or text.startswith(delivered[keys[0]].prefix):
                    parts[at] = delivered.pop(keys.popleft())
