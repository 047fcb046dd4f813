"""Cohere Chat, version 2: `https://api.cohere.com/v2/chat`.

Source: the Cohere SDK 7.3 and Cohere's API reference.

    message-start → tool-plan-delta* → (content-start → content-delta* → content-end)* →
    (tool-call-start → tool-call-delta* → tool-call-end)* → (citation-start → citation-end)* → message-end

What is unusual:

* Some compatible servers send the events of version 1 (`event_type`), or a text outside its block.
* `message-end` is the end mark; a `[DONE]` may follow it. Its `finish_reason` may be a failure: ERROR or TIMEOUT.
* `tool_plan`, the model's plan before it calls tools, is reasoning, and so are blocks of type `thinking`.
* `delta.message` holds one content block, tool call or citation, never a list. A call is complete at its
  `tool-call-end`; its arguments may be pretty-printed.
* A citation's span counts the characters of the block `content_index`. A citation of the plan or of a thought gets no
  span.
* Usage is always sent: `tokens` counts the tokens used, `billed_units` the tokens that are paid for.
* No event names the model.
* Status 498 means a token of the prompt or the answer that is deny-listed, or, by its message, an API token of ours
  that is not valid.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from msgspec import UNSET
from orjson import Fragment

from gai_fast.core.json.chunks import count, label, member, nested_count, objects, parse_chunk, text_of
from gai_fast.core.requests.reading import turns
from gai_fast.core.requests.shapes import RequestShape, chat_shape
from gai_fast.model.errors import Code, Error, Malformed
from gai_fast.model.events import Event
from gai_fast.model.request import (
    AssistantMessage,
    FilePart,
    ImagePart,
    Message,
    NamedTool,
    Reasoning,
    ReasoningPart,
    Request,
    ResponseFormat,
    TextPart,
    ToolCallPart,
    ToolMessage,
    UserMessage,
)
from gai_fast.providers.answers.adapter import ProviderAdapter
from gai_fast.providers.answers.events import UNREADABLE, argument_piece, citation, counted_usage, reasoning
from gai_fast.providers.answers.failures import failure_of
from gai_fast.providers.answers.finish_words import COMPLETE
from gai_fast.providers.answers.limits import LIMITS
from gai_fast.providers.answers.tool_calls import ToolCall, ToolCalls, function_of, listed_calls
from gai_fast.providers.chat.mends import ChatPairs, NoPrefill
from gai_fast.providers.chat.rules import ChatRules
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.empty_messages import NoEmptyMessages
from gai_fast.providers.requests.parts import earlier_function_call, file_text, function_tool, image_url
from gai_fast.providers.requests.routes import COHERE_ROUTES
from gai_fast.providers.requests.rules import MemberRule
from gai_fast.providers.requests.target import Target
from gai_fast.providers.requests.tool_names import OPENAI_NAMES
from gai_fast.runtime.breathing import breathe

_TOOL_CHOICES: Final = {"required": "REQUIRED", "none": "NONE"}
_NO_RESULT: Final = "{}"
"""The result of a tool that returned nothing. The API reference requires a JSON object's text."""
_BLOCKED: Final = 498
_OF_OUR_KEY: Final = re.compile(r"\bapi\b|\bkey\b|expired|auth", re.I)
_END: Final = "[DONE]"


# ---- requests --------------------------------------------------------------------------------------------------------


class Cohere(API):
    """`base_url` is the host alone, as in Cohere's SDK, which appends `/v2`."""

    provider = "cohere"
    routes = COHERE_ROUTES
    base_url = "https://api.cohere.com"
    key_variable = "COHERE_API_KEY"
    path = "/v2/chat"
    models_path = "/v1/models"
    lacks = frozenset({"metadata"})
    knobs: ClassVar = {
        "top_k": "k",
        "frequency_penalty": "frequency_penalty",
        "presence_penalty": "presence_penalty",
    }
    tool_names = OPENAI_NAMES
    needs_user = True
    says_all = True
    rules: ClassVar = ChatRules(
        "cohere",
        "cohere 7.3.0, 2026-11-25",
        members={
            "temperature": MemberRule(least=0, most=1),
            "p": MemberRule(least=0.01, most=0.99, asked="top_p"),
            "k": MemberRule(least=0, most=500, asked="top_k"),
            "frequency_penalty": MemberRule(least=0, most=1),
            "presence_penalty": MemberRule(least=0, most=1),
            "stop_sequences": MemberRule(most_items=5, asked="stop"),
        },
        mends=[ChatPairs("cohere", results_last=True), NoEmptyMessages(), NoPrefill("cohere")],
        keeps=frozenset(("thinking",)),
    )

    def adapter(self, model: str | None = None) -> CohereAdapter:
        return CohereAdapter(self, model)

    def shape_of(self, body: Mapping[str, Any]) -> RequestShape:
        return chat_shape(body.get("messages"))

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes, now_ms: int | None = None) -> Error:
        error = super().decode_error(status, headers, body, now_ms)
        if status == _BLOCKED:  # other providers use it for lack of capacity
            code: Code = "unauthorized" if _OF_OUR_KEY.search(error.message) else "content_filtered"
            return Error(code, error.message, phase=error.phase, provider=self.provider, details=error.details)
        return error

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        documents: list[dict[str, Any]] = []
        messages: list[dict[str, Any]] = []
        paths: list[str] = []
        for where, message in turns(request):
            breathe()
            if self._is_silent(message):
                target.changes.drop_message(where)
                continue
            written = self._message(where, message, target, documents)
            if written["role"] == "user" and not written["content"] and not documents:
                target.changes.drop_message(where)  # all that it held was left out
                continue
            messages.append(written)
            paths.append(where)
        target.changes.follow(paths)
        fields: dict[str, Any] = {
            "model": target.model,
            "messages": messages,
            "stream": True,
            "documents": documents or UNSET,
            "tools": [function_tool(tool, has_strict=False) for tool in request.tools] or UNSET,
            "strict_tools": any(tool.strict is True for tool in request.tools) or UNSET,
            "max_tokens": request.max_tokens,
            "stop_sequences": request.stop or UNSET,
            "temperature": request.temperature,
            "p": request.top_p,
            "seed": request.seed,
        }
        if isinstance(request.tool_choice, NamedTool):
            self.leave_out("tool_choice", target, "a tool by its name")
        elif request.tool_choice in _TOOL_CHOICES:
            fields["tool_choice"] = _TOOL_CHOICES[request.tool_choice]
        if request.response_format:
            fields["response_format"] = _response_format(request.response_format)
        if request.reasoning:
            fields["thinking"] = _thinking(request.reasoning)
            if fields["thinking"] is not UNSET and self.facts(target).never_thinks:
                if fields["thinking"]["type"] == "enabled":
                    self.leave_out("reasoning", target, "this model does not think")
                fields["thinking"] = UNSET
            if fields["thinking"] is not UNSET and request.reasoning.effort not in (UNSET, "none"):
                target.changes.adjust("reasoning.effort", fields["thinking"]["type"])  # the API has no efforts
            if request.reasoning.summary and request.reasoning.summary != "auto":
                self.leave_out("reasoning.summary", target)
        body = {name: value for name, value in fields.items() if value is not UNSET}
        self.add_knobs(body, request, target)
        return body

    def _message(self, where: str, message: Message, target: Target, documents: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns one message. Adds its files to `documents`, a member next to the messages."""
        if isinstance(message, AssistantMessage):
            return self._assistant(where, message, target)
        whole: dict[str, Any] = {"role": message.__struct_config__.tag}
        if isinstance(message, ToolMessage):
            whole["tool_call_id"] = message.call_id
            self.hide_failure(where, message, target)
        if isinstance(message.content, str):
            return self._with_result({**whole, "content": message.content}, where, target)
        parts: list[dict[str, Any]] = []
        given: Iterable[Any] = message.content
        for at, part in enumerate(given):
            if isinstance(part, TextPart):
                parts.append({"type": "text", "text": part.text})
            elif isinstance(part, ImagePart) and isinstance(message, UserMessage):
                if self.is_blind(f"{where}.content[{at}]", target):
                    continue
                parts.append({"type": "image_url", "image_url": {"url": image_url(part)}})
            elif isinstance(part, FilePart) and part.data and part.media_type.startswith("text/"):
                documents.append(_document(part))
            else:
                only_its_type = isinstance(part, FilePart)
                self.leave_out_part(f"{where}.content[{at}]", part, message, target, only_its_type=only_its_type)
        content: Any = parts or ""
        if len(parts) == 1 and parts[0]["type"] == "text":
            content = parts[0]["text"]  # in the same bytes, whether the client has it as a text or as a part
        return self._with_result({**whole, "content": content}, where, target)

    def _with_result(self, message: dict[str, Any], where: str, target: Target) -> dict[str, Any]:
        """Returns a message with a placeholder for an empty tool result, which the API refuses."""
        content = message["content"]
        if message["role"] != "tool" or (content if isinstance(content, str) else any(p["text"] for p in content)):
            return message
        target.changes.adjust(f"{where}.content", _NO_RESULT)
        return {**message, "content": _NO_RESULT}

    def _assistant(self, where: str, message: AssistantMessage, target: Target) -> dict[str, Any]:
        """Returns an assistant message. Its reasoning is the plan if there are calls, else it is blocks.

        The model reads both forms alike.
        """
        parts = [TextPart(text=message.content)] if isinstance(message.content, str) else message.content
        thoughts: list[str] = []
        content: list[dict[str, Any]] = []
        calls: list[dict[str, Any]] = []
        for at, part in enumerate(parts):
            if isinstance(part, TextPart):
                content += [{"type": "text", "text": part.text}] if part.text else []
            elif isinstance(part, ReasoningPart):
                thoughts += [part.text] if part.text and part.provider in (UNSET, self.provider) else []
            elif isinstance(part, ToolCallPart):
                calls.append(earlier_function_call(part))
            else:
                self.leave_out_part(f"{where}.content[{at}]", part, message, target)
        whole: dict[str, Any] = {"role": "assistant"}
        if calls:
            whole |= {"tool_plan": "".join(thoughts)} if thoughts else {}
            whole["tool_calls"] = calls
        elif thoughts and not self.facts(target).never_thinks:
            content[:0] = [{"type": "thinking", "thinking": thought} for thought in thoughts]
        return whole | {"content": content or ""} if content or not calls else whole


def _document(part: FilePart) -> dict[str, Any]:
    """Returns a text file as a document that the model may cite."""
    return {"data": ({"title": part.filename} if part.filename else {}) | {"text": file_text(part)}}


def _response_format(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.type == "text":
        return {"type": "text"}
    schema = {"json_schema": Fragment(bytes(wanted.schema))} if wanted.type == "json_schema" and wanted.schema else {}
    return {"type": "json_object"} | schema


def _thinking(wanted: Reasoning) -> Any:
    """Returns the `thinking` member: on with a budget, on, or off. Of the efforts `none` and `minimal` mean off."""
    if wanted.max_tokens is not UNSET:
        if not wanted.max_tokens:
            return {"type": "disabled"}
        return {"type": "enabled", "token_budget": wanted.max_tokens}
    if wanted.effort is UNSET:
        return UNSET
    return {"type": "disabled" if wanted.effort in ("none", "minimal") else "enabled"}


# ---- responses -------------------------------------------------------------------------------------------------------

_STEADY: Final = frozenset({"content-delta", "tool-plan-delta", "tool-call-delta", "content-end", "citation-end"})
"""Events that do not change the meaning of the deltas after them."""


class CohereAdapter(ProviderAdapter):
    """Reads the events of a message."""

    text_members = frozenset({"text", "thinking", "tool_plan", "arguments"})
    content_members = frozenset({"delta", "message"})

    def __init__(self, api: API, model: str | None = None) -> None:
        super().__init__(api, model)
        self._calls = ToolCalls(self.room)
        self._billed: dict[str, int] = {}
        self._open: dict[int | None, ToolCall] = {}
        """The open calls, by index."""
        self._begins: dict[int | None, int] = {}
        """Code points of the response's text before each content block."""
        self._characters = 0
        self._reason = ""

    def receive(self, name: str, data: str) -> list[Event]:
        if data.startswith(_END):
            return []
        if name == "error":
            raise self.error_event(data)
        chunk = self.checked(parse_chunk(data))
        kind = chunk.get("type") or chunk.get("event_type")
        if not isinstance(kind, str) or not kind:
            kind = name
        kind = kind.replace("_", "-")
        if not kind and "delta" in chunk:
            raise Malformed("an event without a type")
        self.copyable = kind in _STEADY
        events = self._read(kind, chunk)
        return events if self.started or not events else self.start(None, None) + events

    def _read(self, kind: str, chunk: dict[str, Any]) -> list[Event]:
        delta, index = member(chunk, "delta"), count(chunk.get("index"))
        message = member(delta, "message")
        match kind:
            case "content-delta" if message.get("content"):
                return self._content(message["content"])
            case "content-delta" | "text-generation":  # of compatible servers, and of version 1
                return self._content(_other_content(chunk))
            case "tool-plan-delta":
                return reasoning(message.get("tool_plan"))
            case "tool-call-delta":
                call = self._open.get(index) or next(reversed(self._open.values()), None)
                return [{**UNREADABLE}] if call is None else self._calls.add(call, _function(message)[1])
            case "content-start":
                return self._begin(index, message.get("content") or _other_content(chunk))
            case "tool-call-start":
                return self._call(index, message)
            case "tool-call-end":
                return self._close(index)
            case "citation-start":
                return self._cited([member(message, "citations")])
            case "tool-calls-generation":
                events: list[Event] = []
                for at, raw in enumerate(listed_calls(chunk.get("tool_calls"))):
                    function = {"name": raw.get("name"), "arguments": raw.get("parameters")}
                    events += self._call(at, {"tool_calls": {**raw, "function": function}}) + self._close(at)
                return events
            case "message-start" | "stream-start":
                return self.start(label(chunk.get("id") or chunk.get("generation_id")), None)
            case "message-end" | "stream-end":
                self.ended = True
                if kind == "message-end":
                    self._end(delta)
                    return []
                whole = member(chunk, "response")
                self._end({**chunk, "usage": whole.get("meta")})
                return [] if self._characters else self._content(whole.get("text"))
        return []

    def receive_text(self, index: int | None, text: str) -> Event | None:
        if not self.started:
            return None
        self._characters += len(text)
        return {"type": "text.delta", "text": text}

    def receive_whole(self, answer: Any, text: str = "") -> list[Event]:
        if not isinstance(answer, dict) or not (isinstance(answer.get("message"), dict) or "text" in answer):
            raise Malformed("an answer without a message")
        message = member(answer, "message")
        plan, events = reasoning(message.get("tool_plan")), self.start(label(answer.get("id")), None)
        content = message.get("content") or message.get("text") or answer.get("text") or ()
        said: list[Event] = []
        for index, block in enumerate([content] if isinstance(content, (str, dict)) else content):
            said += self._begin(index, block)
        events += said if plan and plan[0] in said else plan + said  # some servers have the plan as a thought, too
        for index, call in enumerate(listed_calls(message.get("tool_calls"))):
            events += self._call(index, {"tool_calls": call}) + self._close(index)
        events += self._cited(objects(message.get("citations")))
        self._end(answer)
        self.ended = True
        return events

    def finish(self) -> list[Event]:
        if not self.ended:
            raise self.truncated()
        reason = self._calls.outcome(self.api.finish_words, self._reason)
        if reason in COMPLETE and any(call.is_cut_off for call in self._open.values()):
            raise self.truncated()
        events = self.start(None, None)
        if reason in COMPLETE:
            events += self._calls.close_all()
        return [*events, self.end(reason, self._reason)]

    def billed(self, usage: dict[str, Any]) -> dict[str, Any]:
        return {**usage, **self._billed}

    def copied(self, event: Event, characters: int, text: str) -> None:
        if event["type"] == "text.delta":
            self._characters += characters
        elif event["type"] == "tool.call.delta":
            self._calls.copied(event["index"], text)

    def _begin(self, index: int | None, content: Any) -> list[Event]:
        """Opens a content block, and reads the content that it has at its start."""
        if index not in self._begins:
            self.room.take(0, 2)
        self._begins[index] = self._characters
        return self._content(content)

    def _content(self, content: Any) -> list[Event]:
        if not isinstance(content, dict):
            if isinstance(content, list):
                return [event for block in content for event in self._content(block)]
            content = {"text": content}
        events, text = reasoning(content.get("thinking")), text_of(content.get("text"))
        if text:
            self._characters += len(text)
            events.append({"type": "text.delta", "text": text})
        return events

    def _call(self, index: int | None, message: dict[str, Any]) -> list[Event]:
        raw, (name, arguments) = _raw_call(message), _function(message)
        call, events = self._calls.open(label(raw.get("id")), name)
        self._open[index] = call
        return events + self._calls.add(call, arguments)

    def _close(self, index: int | None) -> list[Event]:
        call = self._open.pop(index, None)
        if call is None and index is None and self._open:
            call = self._open.popitem()[1]
        if call is None:
            return []
        # Arguments that are not JSON may have been cut off by `max_tokens`; only a later event has the reason.
        return self._calls.close(call, cut_off=bool(call.arguments.strip()))

    def _cited(self, citations: Iterable[dict[str, Any]]) -> list[Event]:
        cited = [
            _source(source) | self._span(raw) for raw in citations for source in objects(raw.get("sources")) or [{}]
        ]
        cited = [one for one in cited if one]
        return [{"type": "citations", "citations": cited}] if cited else []

    def _span(self, raw: dict[str, Any]) -> dict[str, int]:
        """Returns the span of a citation in the response's text, empty if it has none."""
        first, last = count(raw.get("start")), count(raw.get("end"))
        if raw.get("type") not in (None, "TEXT_CONTENT") or first is None or not last:
            return {}
        begin = self._begins.get(count(raw.get("content_index")), 0)
        return {"start": begin + first, "end": begin + last}

    def _end(self, delta: dict[str, Any]) -> None:
        """Reads the finish reason and the usage.

        Raises:
            Error: The response failed.
        """
        usage = delta.get("usage")
        if isinstance(usage, dict):
            billed_input = nested_count(usage, "billed_units", "input_tokens")
            billed_output = nested_count(usage, "billed_units", "output_tokens")
            self._billed = counted_usage(billed_input, billed_output)
            kind = "tokens" if usage.get("tokens") else "billed_units"
            input_tokens = nested_count(usage, kind, "input_tokens")
            output_tokens = nested_count(usage, kind, "output_tokens")
            self.usage = counted_usage(
                billed_input if input_tokens is None else input_tokens,
                billed_output if output_tokens is None else output_tokens,
                cached=count(usage.get("cached_tokens")),
                reasoning=nested_count(usage, kind, "reasoning_tokens"),
            )
        self._reason = label(delta.get("finish_reason"))[: LIMITS.kept_word]
        error = delta.get("error")
        if error:
            word = label(delta.get("error_type")) or self._reason
            raise self.error(failure_of({"type": word.lower(), "message": error}))
        self.check_word(self._reason)


def _other_content(chunk: dict[str, Any]) -> Any:
    """Returns the content of a delta from the places where compatible servers put it: a block, or its text."""
    given, message = chunk.get("delta"), member(chunk, "message")
    delta = member(chunk, "delta")
    places = (
        message.get("content"),
        delta.get("content"),
        member(delta, "message").get("text"),
        delta.get("message") if isinstance(delta.get("message"), str) else None,
        delta.get("text"),
        chunk.get("content"),
        chunk.get("text"),
        given if isinstance(given, str) else None,
    )
    return next((place for place in places if place), None)


def _raw_call(message: dict[str, Any]) -> dict[str, Any]:
    """Returns the call that a message holds, which some servers put in a list."""
    return next(iter(listed_calls(message.get("tool_calls"))), {})


def _function(message: dict[str, Any]) -> tuple[str, str]:
    """Returns name and arguments of the call that a message holds."""
    function = function_of(_raw_call(message))
    return label(function.get("name")), argument_piece(function.get("arguments"))


def _source(source: dict[str, Any]) -> dict[str, Any]:
    """Reads a source: a document of the request, or the output of a tool."""
    about = member(source, "document") or member(source, "tool_output")
    return citation(about.get("url") or source.get("id"), about.get("title"))


APIS: Final[dict[str, API]] = {"": Cohere()}
