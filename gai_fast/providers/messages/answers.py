"""Reads responses of Anthropic's Messages API: events of content blocks by index.

    message_start → (content_block_start → content_block_delta* → content_block_stop)* → message_delta+ → message_stop

`ping`, `error` and unknown events may occur anywhere. What is unusual:

* A call is complete when its block is closed.
* The usage in `message_start` counts the input. Each `message_delta` overwrites the members that it has with totals,
  except if all of its counts of the input are zero. `input_tokens` does not include cached tokens. Compactions are
  charged as well, and only `iterations` has them.
* A signature replaces the previous signature of its block. Citations arrive before their text, so they become an event
  when their block closes and the span is known.
* A refusal may have no content block at all.
* Faulty proxies do not close a block before they begin another one of its index, or begin it twice.
* Faulty proxies send `message_start` twice. A repeated message is ignored. Another message within the first is a
  failure, because the two cannot be separated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from gai_fast.core.json.chunks import (
    count,
    inner_text,
    label,
    member,
    members,
    nested_count,
    objects,
    parse_chunk,
    text_of,
)
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.errors import Malformed
from gai_fast.model.events import Event
from gai_fast.model.limits import SHARED
from gai_fast.model.upstream_errors import UpstreamFailure
from gai_fast.providers.answers.adapter import ProviderAdapter
from gai_fast.providers.answers.events import (
    UNREADABLE,
    argument_piece,
    citation,
    counted_usage,
    parse_arguments,
    provider_block,
    reasoning,
    server_tool,
)
from gai_fast.providers.answers.failures import is_error_type
from gai_fast.providers.answers.finish_words import COMPLETE
from gai_fast.providers.answers.limits import LIMITS
from gai_fast.providers.answers.room import too_many
from gai_fast.providers.answers.tool_calls import ToolCall, ToolCalls
from gai_fast.providers.requests.api import API

_EXPECTED: Final[Event] = {"type": "text.delta", "text": ""}
_FOREIGN_END: Final = "[DONE]"
"""The end mark of other dialects, which some proxies send. It does not mean that the message is complete."""


class _Block:
    """One open content block.

    Attributes:
        begin: Code points of the response's text before the block.
        server_tool: The id of the run of a server tool; empty for other blocks.
        given: JSON text of the input in `content_block_start`.
        pieces: Fragments of the input of a server tool.
        whole: The block itself, with exact integers, if it has no shared form.
        held: Bytes of the response's room that the block has taken.
    """

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.call: ToolCall | None = None
        self.server_tool = ""
        self.given = ""
        self.pieces: list[str] = []
        self.signature = ""
        self.citations: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.whole: dict[str, Any] | None = None
        self.held = 0


_DELTAS: Final = {
    "text": "text_delta",
    "thinking": "thinking_delta",
    "partial_json": "input_json_delta",
    "signature": "signature_delta",
    "citation": "citations_delta",
}
"""The type of a delta for the member that holds its content."""
_KINDS: Final = frozenset((*_DELTAS.values(), "compaction_delta"))

_SHARED_KINDS: Final = frozenset({"", "text", "output_text", "thinking", "redacted_thinking", "tool_use"})
"""The blocks that the events of other providers express, too. A block without a type is text."""
_STORED: Final[tuple[str, ...]] = ("container", "thread")
"""Members that name what Anthropic stores for later requests."""
_COUNTED: Final = frozenset(
    (
        "input_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "cache_creation",
        "output_tokens",
        "output_tokens_details",
        "server_tool_use",
    )
)
"""The members of `usage` that are kept."""
_OF_INPUT: Final = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_COMPACTED: Final[tuple[str, ...]] = (
    "input_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
)
"""The counts of a compaction."""
_WRITTEN_1H: Final = "ephemeral_1h_input_tokens"


class AnthropicAdapter(ProviderAdapter):
    """Reads the events of a message."""

    # `partial_json` is missing: the meaning of a fragment depends on the state of its block.
    text_members = frozenset({"text", "thinking"})
    content_members = frozenset({"delta", "content_block", "content"})

    def __init__(self, api: API, model: str | None = None) -> None:
        super().__init__(api, model)
        self._identifier = ""
        self._blocks: dict[int, _Block] = {}
        self._last = -1
        """The index of the block that was opened or changed last. Texts change no block: they may be copied, unread."""
        self._has_content = False
        self._announced: list[Any] = []
        """Blocks that an event of the message itself had; read at the end if no event of a block has come."""
        self._calls = ToolCalls(self.room)
        self._server_tools: dict[str, str] = {}
        """Names of the tools that the provider runs, by the id of the run."""
        self._characters = 0
        self._counts: dict[str, int] = {}
        self._details: dict[str, Any] = {}
        """The usage's objects of further counts."""
        self._has_early_output = False
        """Whether the only count of the output is of its first tokens: `message_start` counts one or eight."""
        self._compacted: dict[str, int] = {}
        """The usage of the answer's compactions."""
        self._reason = ""
        self._stop = ""
        """The stop sequence that ended the answer."""
        self._container: dict[str, Any] = {}

    def receive(self, name: str, data: str) -> list[Event]:
        self.is_plain = False
        if name == "error":
            raise self.error_event(data)
        if data.startswith(_FOREIGN_END):
            return []
        chunk = self.checked(parse_chunk(data))
        kind = chunk.get("type")
        if not isinstance(kind, str) or not kind:
            kind = name
        if not kind:
            raise Malformed("an event without a type")
        # `content_block_start` may hold text as well, but is not copyable: it opens a block.
        self.copyable = kind in ("content_block_delta", "ping")
        events = self._read(kind, chunk, data)
        return events if self.started or not events else self.start(None, None) + events

    def receive_text(self, index: int | None, text: str) -> Event | None:
        if index is None or index < 0 or not (self.started and self._has_content):
            return None
        self._characters += len(text)
        return {"type": "text.delta", "text": text}

    def may_hold_text(self, chunk: dict[str, Any]) -> bool:
        block = chunk.get("content_block")
        is_of_tool = isinstance(block, dict) and "tool" in str(block.get("type"))
        return not is_of_tool and super().may_hold_text(chunk)

    def failure(self, chunk: Any, name: str = "") -> UpstreamFailure | None:
        failure = self.api.read_failure(chunk)
        return None if failure is None or _is_aside(chunk) else failure

    def _read(self, kind: str, chunk: dict[str, Any], data: str) -> list[Event]:
        match kind:
            case "content_block_delta":
                delta = chunk.get("delta", chunk)  # some servers have its members beside the type
                return self._delta(self._index(chunk), {"text": delta} if isinstance(delta, str) else delta)
            case "content_block_start":
                block = member(chunk, "content_block")
                given = next(members(data, "content_block", "input"), "") if block.get("input") else ""
                whole = None
                if label(block.get("type")) not in _SHARED_KINDS:
                    whole = _exact(next(members(data, "content_block"), ""))
                return self._open(self._index(chunk, begins=True), block, given, whole)
            case "content_block_stop":
                return self._close(self._index(chunk))
            case "message_start":
                self._announce(member(chunk, "message"))
                return self._begin(member(chunk, "message"), is_early=True)
            case "message_delta":
                self._count(chunk.get("usage"))
                self._announce(member(chunk, "delta"))
                return self._end(member(chunk, "delta"))
            case "message_stop":
                self._announce(member(chunk, "message"))
                self.ended = True
            case "message" if isinstance(chunk.get("content"), (list, str)):  # the whole message as one event
                if not self._has_content:
                    return self.receive_whole(chunk, data)
                self._count(chunk.get("usage"))
                return self._end(chunk)
        return []

    def _announce(self, message: dict[str, Any]) -> None:
        """Keeps the content that an event of the message itself has, which is elsewhere empty."""
        content = message.get("content") or message.get("text")
        if content and not self._has_content and not self._announced:
            self._announced = content if isinstance(content, list) else [content]
            self.room.take(len(encode_json(self._announced)))

    def receive_whole(self, answer: Any, text: str = "") -> list[Event]:
        if isinstance(answer, dict) and "content" not in answer:
            answer = member(answer, "message")
        if not isinstance(answer, dict) or not isinstance(answer.get("content"), (list, str, dict)):
            raise Malformed("an answer without content")
        events = self._begin(answer) + self._blocks_of(answer["content"], text)
        self.ended = True
        return events + self._end(answer)

    def _blocks_of(self, content: Any, text: str = "") -> list[Event]:
        """Reads whole blocks. A text or one block in place of a list is as a list of it.

        Args:
            content: The blocks.
            text: The JSON text of the message; empty if there is none.
        """
        events: list[Event] = []
        inputs = members(text, "content", "input") if text else iter(())
        listed = content if isinstance(content, list) else [content]
        blocks = [{"type": "text", "text": each} if isinstance(each, str) else each for each in listed]
        for index, block in enumerate(objects(blocks)):
            given = next(inputs, "") or encode_json(block["input"]).decode() if "input" in block else ""
            given = "" if given == "null" else given
            whole = None if label(block.get("type")) in _SHARED_KINDS else block
            events += self._open(index, block, given, whole) + self._close(index)
        return events

    def finish(self) -> list[Event]:
        if not self._reason and not self.ended:
            raise self.truncated()
        self.check_word(self._reason)
        reason = self._calls.outcome(self.api.finish_words, self._reason)
        if reason in COMPLETE and self._blocks and _has_broken_call(self._blocks.values()):
            raise self.truncated()
        events = self.start(None, None)
        if not self._has_content:
            events += self._blocks_of(self._announced)
        events += self.abort()  # signatures and citations of blocks that are still open
        if reason in COMPLETE:
            events += self._calls.close_all()
        end = self.end(reason, self._reason)
        metadata: dict[str, Any] = {"stop_sequence": self._stop} if self._stop else {}
        if self._container:
            metadata["container"] = self._container
        if metadata:
            end["provider_metadata"] = metadata
        return [*events, end]

    def word(self) -> str:
        return self._reason

    def billed(self, usage: dict[str, Any]) -> dict[str, Any]:
        compacted = self._compacted
        return usage | {name: usage.get(name, 0) + more for name, more in compacted.items()} if compacted else usage

    def abort(self) -> list[Event]:
        # A call whose block is still open was cut off, even if its text looks complete.
        return [event for index, block in self._blocks.items() for event in self._closing_events(index, block)]

    def expected(self) -> Event | None:
        return _EXPECTED if self.started and self._has_content else None

    def copied(self, event: Event, characters: int, text: str) -> None:
        if event["type"] == "text.delta":
            self._characters += characters

    # -- the message --

    def _begin(self, message: dict[str, Any], *, is_early: bool = False) -> list[Event]:
        """Reads `message_start`, or the same members of a whole response.

        Args:
            message: The message.
            is_early: Whether the answer has only begun.
        """
        identifier, model = label(message.get("id")), label(message.get("model"))
        if self._has_content and identifier != self._identifier:
            raise self.spliced()
        if not self._has_content:
            if identifier != self._identifier:
                self.keep_id(identifier)  # a later request may continue its thread
            self._identifier = identifier
            self._count(message.get("usage"), is_early=is_early)
        return self.start(identifier, model)

    def _end(self, delta: dict[str, Any]) -> list[Event]:
        """Reads the stop reason. The last reason holds."""
        self._reason = label(delta.get("stop_reason"))[: LIMITS.kept_word] or self._reason
        self._stop = label(delta.get("stop_sequence"))[: SHARED.stop_sequence] or self._stop
        self.is_complete = bool(self._reason)
        if self._has_early_output and self.is_complete:
            self._counts.pop("output_tokens", None)  # the final count is missing
            self._total()
        for name in _STORED:
            if name in delta:
                self.keep_ids({name: delta[name]})
        container = member(delta, "container")
        if container and container != self._container:
            self.room.take(len(encode_json(container)))
            self._container = container
        category = label(member(delta, "stop_details").get("category"))
        return [{"type": "safety", "safety": {"category": category, "action": "refused"}}] if category else []

    def _count(self, usage: Any, *, is_early: bool = False) -> None:
        """Reads totals. Members that can be read overwrite earlier values.

        Args:
            usage: The provider's usage object.
            is_early: As for `_begin`.
        """
        if not isinstance(usage, dict) or not usage:
            return
        counts = self._counts
        has_input = usage.get("input_tokens") or usage.get("cache_read_input_tokens")
        has_input = has_input or usage.get("cache_creation_input_tokens")
        for key, counted in usage.items():
            if key not in _COUNTED:
                continue
            if isinstance(counted, dict):
                self._details[key] = counted
            elif (number := count(counted)) is not None:
                if has_input or key not in _OF_INPUT:
                    counts[key] = number
                else:
                    counts.setdefault(key, number)
                if key == "output_tokens":
                    self._has_early_output = is_early
        iterations = usage.get("iterations")
        if isinstance(iterations, list):
            self._compacted = _compaction_counts(iterations)
        self._total()

    def _total(self) -> None:
        """Sets the usage and the searches from the counts."""
        counts, details = self._counts, self._details
        input_tokens = counts.get("input_tokens")
        cached = counts.get("cache_read_input_tokens", 0)
        written = counts.get("cache_creation_input_tokens", 0)
        self.usage = counted_usage(
            None if input_tokens is None else input_tokens + cached + written,
            counts.get("output_tokens"),
            cached=cached,
            written=written,
            written_1h=nested_count(details, "cache_creation", _WRITTEN_1H) if written else 0,
            reasoning=nested_count(details, "output_tokens_details", "thinking_tokens"),
        )
        searches = self._counted_searches()
        self.searches = self.searches if searches is None else searches

    def _counted_searches(self) -> int | None:
        return nested_count(self._details, "server_tool_use", "web_search_requests")

    # -- blocks --

    def _index(self, chunk: dict[str, Any], *, begins: bool = False) -> int:
        """Returns the index of an event's block. An event without a readable index belongs to the last block.

        Args:
            chunk: The event.
            begins: Whether the event begins a block.
        """
        index = count(chunk.get("index"))
        return max(self._last + begins, 0) if index is None else index

    def _block(self, index: int) -> _Block:
        """Returns the block of an index, opened if it is not there yet."""
        self._last = index
        block = self._blocks.get(index)
        if block is None:
            if len(self._blocks) >= LIMITS.content_blocks:
                raise too_many("content_blocks", LIMITS.content_blocks)
            block = self._blocks[index] = _Block(self._characters)
        return block

    def _open(self, index: int, raw: dict[str, Any], given: str, whole: dict[str, Any] | None) -> list[Event]:
        """Opens a block, and reads the content that it has at its start.

        Args:
            index: Its position in the message.
            raw: The raw block.
            given: JSON text of its input, empty if the block has none at its start.
            whole: The block with exact integers, if it has no shared form and could be read.
        """
        self._has_content = True
        former = self._blocks.get(index)
        identifier = label(raw.get("id"))
        if former is not None and identifier:
            begun_as = former.server_tool if former.call is None else former.call.call_id
            if begun_as == identifier:
                return []  # the event is repeated
        events = self._close(index)  # some proxies do not close blocks
        block, kind = self._block(index), label(raw.get("type"))
        if kind in ("text", "output_text") or (not kind and "text" in raw):
            for source in objects(raw.get("citations")):
                self._cite(block, source)
            return events + self._text(inner_text(raw.get("text") or raw.get("content")))
        if kind == "thinking":
            self._sign(block, raw.get("signature"))
            return events + reasoning(raw.get("thinking") or raw.get("text"))
        if kind == "redacted_thinking" and label(raw.get("data")):
            data = label(raw["data"])
            return [*events, {"type": "reasoning.signature", "block": index, "signature": data, "redacted": True}]
        if given not in ("", "{}"):
            self._take(block, len(given))
            block.given = given
        self.keep_ids(whole)
        if whole is not None and kind.endswith("tool_result"):  # complete from the start
            events += provider_block(self.api.provider, whole, index)
        elif whole is not None:
            self._take(block, len(encode_json(whole)))
            block.whole = whole
        if kind == "tool_use":
            seed = f"{self._identifier} {index}"
            block.call, begun = self._calls.open(label(raw.get("id")), label(raw.get("name")), seed)
            return events + begun
        if kind.endswith("tool_use"):
            block.server_tool, name = label(raw.get("id")), label(raw.get("name"))
            if self._server_tools.get(block.server_tool) != name:
                self.room.take(len(block.server_tool) + len(name), 2)
                self._server_tools[block.server_tool] = name
        elif kind.endswith("tool_result"):
            identifier, output = label(raw.get("tool_use_id")), raw.get("content")
            self.keep_ids(output)
            failed = raw.get("is_error") or (isinstance(output, dict) and output.get("error_code"))
            name = self._server_tools.get(identifier, kind.removesuffix("_tool_result"))
            if name == "web_search" and not failed and not self._counted_searches():  # that comes at the end
                self.searches += 1
            events.append(server_tool(identifier, name, "failed" if failed else "completed", output=output))
        return events

    def _delta(self, index: int, delta: dict[str, Any]) -> list[Event]:
        self._has_content = True
        kind = delta.get("type")
        if not isinstance(kind, str) or kind not in _KINDS:
            kind = next((_DELTAS[name] for name in _DELTAS if name in delta), "")
            if not kind:
                return self._other_delta(delta)
        match kind:
            # A text delta changes no state of its block, so later text deltas may be copied.
            case "text_delta":
                self.is_plain = True
                return self._text(delta["text"] if "text" in delta else inner_text(delta))
            case "thinking_delta":
                return reasoning(delta["thinking"] if "thinking" in delta else inner_text(delta))
            case "input_json_delta":
                piece = argument_piece(delta.get("partial_json"))
                if piece and index not in self._blocks:
                    raise Malformed("a piece of a call that has not begun")
                block = self._block(index)
                if block.call is not None:
                    return self._calls.add(block.call, piece)
                self._take(block, len(piece))
                block.pieces.append(piece)
            case "compaction_delta":
                block = self._block(index)
                if block.whole is not None:
                    added = {key: value for key, value in delta.items() if key != "type"}
                    self._take(block, len(encode_json(added)))
                    block.whole |= added
            case "signature_delta":
                self._sign(self._block(index), delta.get("signature"))
            case "citations_delta":
                source = delta.get("citation")
                if not isinstance(source, dict):
                    return [{**UNREADABLE}]
                self._cite(self._block(index), source)
        return []

    def _other_delta(self, delta: dict[str, Any]) -> list[Event]:
        """Reads a delta without a type, or with another dialect's, whose text has another name."""
        thoughts = delta.get("reasoning") or delta.get("reasoning_content")
        if not thoughts and "text" not in str(delta.get("type", "text")):
            return []  # a content of a new kind is not text
        text = delta.get("content") or delta.get("delta") or delta.get("output_text")
        return reasoning(thoughts) if thoughts else self._text(inner_text(text))

    def _take(self, block: _Block, characters: int, pieces: int = 1) -> None:
        """Counts strings that a block holds until it is closed."""
        before = self.room.remaining
        self.room.take(characters, pieces)
        block.held += before - self.room.remaining

    def _sign(self, block: _Block, signature: Any) -> None:
        """Sets the signature of a block. Replaces an earlier signature."""
        signature = label(signature)
        self._take(block, len(signature) - len(block.signature), bool(signature) - bool(block.signature))
        block.signature = signature

    def _cite(self, block: _Block, raw: dict[str, Any]) -> None:
        """Keeps a citation until the end of its block, whose start and deltas may both have it."""
        source = _source(raw)
        self._take(block, sum(map(len, source.values())), 6)
        block.citations[tuple(source.items())] = source

    def _close(self, index: int) -> list[Event]:
        block = self._blocks.pop(index, None)
        if block is None:
            return []
        events = self._closing_events(index, block)
        self.room.give_back(block.held, 0)
        if block.call is not None:
            if not block.call.pieces and block.given:
                events += self._calls.add(block.call, block.given)
            # Arguments that are not JSON may have been cut off by `max_tokens`; only a later event has the reason.
            events += self._calls.close(block.call, cut_off=bool(block.call.arguments.strip()))
        if block.whole is not None:
            events += self._whole_block(index, block, block.whole)
        elif block.pieces and block.call is None and not block.server_tool:
            events.append({**UNREADABLE})  # the input of a block without a type
        if block.server_tool:
            arguments = "".join(block.pieces) or block.given
            events.append(server_tool(block.server_tool, self._server_tools[block.server_tool], "started", arguments))
        return events

    def _whole_block(self, index: int, block: _Block, whole: dict[str, Any]) -> list[Event]:
        """Returns the event of a complete block without a shared form; nothing if its input was cut off."""
        if block.pieces:
            try:
                whole["input"] = parse_arguments("".join(block.pieces) or "{}")
            except ValueError:
                return []
        if block.signature:
            whole["signature"] = block.signature
        return provider_block(self.api.provider, whole, index)

    def _closing_events(self, index: int, block: _Block) -> list[Event]:
        """Returns the signature and the citations of a block, which become events at its end."""
        events: list[Event] = []
        if block.signature and block.whole is None:
            events.append({"type": "reasoning.signature", "block": index, "signature": block.signature})
        if block.citations:
            # The citations apply to the text of the whole block.
            span = {"start": block.begin, "end": self._characters} if self._characters else {}
            events.append({"type": "citations", "citations": [source | span for source in block.citations.values()]})
        return events

    def _text(self, text: Any) -> list[Event]:
        text = text_of(text)
        self._characters += len(text)
        return [{"type": "text.delta", "text": text}] if text else []


def _has_broken_call(blocks: Iterable[_Block]) -> bool:
    """Returns whether a call among open blocks has a part of its arguments only."""
    return any(block.call is not None and block.call.is_cut_off for block in blocks)


def _compaction_counts(iterations: list[Any]) -> dict[str, int]:
    """Returns the usage of the compactions among iterations, empty if there is none.

    "A `compaction` entry's tokens are not included in the top-level `usage` fields" (anthropic-sdk-ruby,
    `BetaMessageDeltaUsage#iterations`). Other types are ignored: the top level includes those of type `message`.

    Args:
        iterations: The `iterations` of a usage.
    """
    sums = {**dict.fromkeys(_COMPACTED, 0), _WRITTEN_1H: 0}
    for iteration in objects(iterations[: LIMITS.content_blocks]):  # a compaction is a content block, too
        if iteration.get("type") == "compaction":
            for name in _COMPACTED:
                sums[name] += count(iteration.get(name)) or 0
            sums[_WRITTEN_1H] += nested_count(iteration, "cache_creation", _WRITTEN_1H) or 0
    into, cached, written, out, written_1h = (count(summed) or 0 for summed in sums.values())
    if not into + cached + written + out:
        return {}
    return counted_usage(into + cached + written, out, cached=cached, written=written, written_1h=written_1h)


def _exact(text: str) -> dict[str, Any] | None:
    """Returns a block with exact integers. None if it is nested too deep or is not an object."""
    try:
        block = parse_exact(text)
    except ValueError:
        return None
    return block if isinstance(block, dict) else None


def _source(raw: dict[str, Any]) -> dict[str, Any]:
    """Reads the source of a citation. The address of a document without a URL is its position in the request."""
    uri = raw.get("url") or raw.get("source") or raw.get("file_id")
    if not uri and "document_index" in raw:
        uri = f"document:{raw['document_index']}"
    source = citation(uri, raw.get("title") or raw.get("document_title"))
    cited = label(raw.get("cited_text"))
    return source | {"cited_text": cited} if source and cited else source


def _is_aside(chunk: Any) -> bool:
    """Returns whether an event that looks like an error has a type that is not an error. Such events are ignored."""
    if not isinstance(chunk, dict) or chunk.get("error") or chunk.get("object") == "error":
        return False
    return not is_error_type(str(chunk.get("type", "error")))
