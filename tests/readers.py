"""A small reader for each wire format: what its official client makes of a stream, and where it would give up.

The shapes are those that the clients' sources read; none of our encoders' code is used. A reader fails where the client
would raise, or would wait for an end: it asserts the order of frames, and that there is one end, after which nothing
comes. A format's reader leaves a member of `ClientState` alone where the format has no place for it (`LACKS`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

TOO_LONG: Final = "prompt is too long: "
"""How each message of a prompt that is too long begins in the Messages dialect, whatever the upstream says."""

COUNTS: Final = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_input_tokens", "reasoning_tokens")


@dataclass
class ClientState:
    """The state of a client at the end of a stream.

    Args:
        text: The visible text.
        refusal: The text of a refusal, where the format tells it apart.
        reasoning: The reasoning.
        calls: Name and text of the arguments of each call, by its id.
        finish_reason: In the words of `gai.events.v1`. None if the stream failed.
        usage: The counts above zero.
        error: The message of a failure.
    """

    text: str = ""
    refusal: str = ""
    reasoning: str = ""
    calls: dict[str, list[str]] = field(default_factory=dict)
    finish_reason: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    error: str | None = None

    def take(self, event: Mapping[str, Any]) -> None:
        """Notes a delta of `gai.events.v1`, and the beginning of a call."""
        kind = event["type"]
        if kind == "text.delta":
            self.text += event["text"]
        elif kind == "refusal.delta":
            self.refusal += event["text"]
        elif kind == "reasoning.delta":
            self.reasoning += event["text"]
        elif kind == "tool.call.start":
            self.calls[event["call_id"]] = [event["tool_call"].get("name", ""), ""]
        elif kind == "tool.call.delta":
            self.calls[event["call_id"]][1] += event["arguments"]

    def count(self, **counts: Any) -> None:
        """Notes usage."""
        self.usage = {name: counts[name] for name in COUNTS if counts.get(name)}


def frames(body: bytes) -> list[tuple[str, str]]:
    """Returns the SSE events of a body: name and data."""
    parts = body.decode().replace("\r\n", "\n").split("\n\n")
    assert parts.pop() == "", "the last frame is not complete"
    found = []
    for part in parts:
        lines = [line.partition(": ") for line in part.split("\n") if not line.startswith(":")]
        data = "\n".join(value for name, _, value in lines if name == "data")
        if data:
            found.append(("".join(value for name, _, value in lines if name == "event"), data))
    return found


def _objects(body: bytes, *, mark: bool) -> Iterable[dict[str, Any]]:
    """The objects of a stream of `data:` frames; `mark`: `[DONE]` is its last frame, unless it ends with an error."""
    found = [data for _, data in frames(body)]
    is_done = found[-1:] == ["[DONE]"]
    assert "[DONE]" not in found[:-1]
    objects = [json.loads(data) for data in (found[:-1] if is_done else found)]
    assert is_done == (mark and not any(map(_is_error, objects[-1:]))), found[-2:]
    return objects


def _is_error(value: Mapping[str, Any]) -> bool:
    return "error" in value or value.get("type") == "error"


# ---- the formats -----------------------------------------------------------------------------------------------------


def read_gai(body: bytes) -> ClientState:
    """`gai.events.v1`, as docs/events.md describes it."""
    state, events = ClientState(), [json.loads(data) for _, data in frames(body)]
    assert events[-1] == {"type": "done", "finished": events[-2]["type"] == "finish"}
    assert [event["type"] for event in events].count("done") == 1
    for event in events:
        kind = event["type"]
        if event.get("choice"):
            continue
        state.take(event)
        if kind in ("finish", "error", "usage"):
            state.finish_reason = event.get("finish_reason")
            state.error = event["error"]["message"] if kind == "error" else None
            if "usage" in event:
                state.count(**event["usage"])
    return state


def read_simple(body: bytes) -> ClientState:
    """Ten lines of JavaScript."""
    state = ClientState()
    for value in _objects(body, mark=True):
        state.text += value.get("content", "")
        state.error = value.get("error")
    return state


def read_chat(body: bytes) -> ClientState:
    """OpenAI's `ChatCompletionStream`: calls are joined by their index, the first fragment has id and name."""
    state, by_index = ClientState(), dict[int, str]()
    has_role = False
    for chunk in _objects(body, mark=True):
        if "error" in chunk:
            state.error = chunk["error"]["message"]
            break
        state.finish_reason = chunk.get("x_gai", {}).get("finish_reason") or state.finish_reason
        if chunk.get("usage"):
            count_chat(state, chunk["usage"])
        for choice in chunk["choices"]:
            if choice["index"]:
                continue
            delta = choice["delta"]
            has_role = has_role or delta.get("role") == "assistant"
            assert has_role, chunk
            state.text += delta.get("content") or ""
            state.refusal += delta.get("refusal") or ""
            state.reasoning += delta.get("reasoning_content") or delta.get("reasoning") or ""
            state.finish_reason = state.finish_reason or choice["finish_reason"]
            for call in delta.get("tool_calls") or ():
                if call["index"] not in by_index:
                    by_index[call["index"]] = call["id"]
                    state.calls[call["id"]] = [call["function"]["name"], ""]
                state.calls[by_index[call["index"]]][1] += call["function"].get("arguments") or ""
    assert (state.finish_reason is None) == (state.error is not None)
    return state


def count_chat(state: ClientState, usage: Mapping[str, Any]) -> None:
    """Notes the usage of OpenAI's chat dialect and of Completions."""
    prompt, completion = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    state.count(
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage["completion_tokens"],
        cached_input_tokens=prompt.get("cached_tokens"),
        cache_write_input_tokens=prompt.get("cache_write_tokens"),
        reasoning_tokens=completion.get("reasoning_tokens"),
    )


def read_completions(body: bytes) -> ClientState:
    """OpenAI's `Stream[Completion]`."""
    state = ClientState()
    for chunk in _objects(body, mark=True):
        if "error" in chunk:
            state.error = chunk["error"]["message"]
            break
        assert chunk["object"] == "text_completion"
        state.finish_reason = chunk.get("x_gai", {}).get("finish_reason") or state.finish_reason
        if chunk.get("usage"):
            count_chat(state, chunk["usage"])
        for choice in chunk["choices"]:
            if not choice["index"]:
                state.text += choice["text"]
                state.finish_reason = state.finish_reason or choice["finish_reason"]
    assert (state.finish_reason is None) == (state.error is not None)
    return state


STOP_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "pause",
}


def read_messages(body: bytes) -> ClientState:
    """Anthropic's `MessageStream`: a delta's index is a place in `content`; the input of a tool is JSON."""
    state, blocks, open_at = ClientState(), list[dict[str, Any]](), None
    events = [(name, json.loads(data)) for name, data in frames(body)]
    assert all(name == value["type"] for name, value in events)
    events = [(name, value) for name, value in events if name != "ping"]
    begin, end = events[0], events[-1]
    assert begin[0] in ("message_start", "error")
    assert end[0] in ("message_stop", "error")
    names = [name for name, _ in events]
    assert names.count("message_start") == (begin[0] == "message_start")
    assert (names.count("message_stop"), names.count("error")) in ((1, 0), (0, 1))
    for name, value in events:
        if name == "content_block_start":
            assert (value["index"], open_at) == (len(blocks), None)
            open_at = value["index"]
            blocks.append({**value["content_block"], "partial": ""})
        elif name == "content_block_stop":
            assert value["index"] == open_at
            open_at = None
        elif name == "content_block_delta":
            _add_delta(blocks[value["index"]], value["delta"])
        elif name == "message_delta":
            assert open_at is None
            aside = value.get("x_gai", {})
            state.finish_reason = aside.get("finish_reason") or STOP_REASONS[value["delta"]["stop_reason"]]
            count_messages(state, value["usage"])
        elif name == "error":
            state.error = value["error"]["message"].removeprefix(TOO_LONG)
    for block in blocks:
        state.text += block.get("text", "")
        state.reasoning += block.get("thinking", "")
        if block["type"] == "tool_use":
            state.calls[block["id"]] = [block["name"], block["partial"] or json.dumps(block["input"])]
    assert (state.finish_reason is None) == (state.error is not None)
    return state


def _add_delta(block: dict[str, Any], delta: Mapping[str, Any]) -> None:
    kinds = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
    if delta["type"] == "input_json_delta":
        block["partial"] += delta["partial_json"]
    elif delta["type"] == "citations_delta":
        assert block["type"] == "text"
    else:
        key = kinds[delta["type"]]
        block[key] += delta[key]


def count_messages(state: ClientState, usage: Mapping[str, Any]) -> None:
    """Notes the usage of Anthropic's Messages."""
    read, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
    state.count(
        input_tokens=usage["input_tokens"] + read + written,
        output_tokens=usage["output_tokens"],
        cached_input_tokens=read,
        cache_write_input_tokens=written,
        reasoning_tokens=usage.get("output_tokens_details", {}).get("thinking_tokens"),
    )


def read_ui_messages(body: bytes) -> ClientState:
    """Returns the AI SDK's `processUIMessageStream`: a delta without its start raises."""
    state, blocks = ClientState(), dict[str, str]()
    parts = list(_objects(body, mark=True))
    assert parts[0] == {"type": "start"} or _is_error(parts[0])
    for part in parts:
        kind = part["type"]
        assert kind != "reset-step", "the oldest clients do not know it"
        if kind in ("text-start", "reasoning-start"):
            blocks[part["id"]] = kind.removesuffix("-start")
        elif kind in ("text-delta", "reasoning-delta"):
            assert blocks[part["id"]] == kind.removesuffix("-delta")
            if kind == "text-delta":
                state.text += part["delta"]
            else:
                state.reasoning += part["delta"]
        elif kind in ("text-end", "reasoning-end"):
            assert blocks.pop(part["id"]) == kind.removesuffix("-end")
        elif kind == "tool-input-start" and not part.get("providerExecuted"):
            state.calls[part["toolCallId"]] = [part["toolName"], ""]
        elif kind == "tool-input-delta":
            state.calls[part["toolCallId"]][1] += part["inputTextDelta"]
        elif kind in ("tool-input-available", "tool-input-error") and not part.get("providerExecuted"):
            given = part["input"]
            state.calls[part["toolCallId"]] = [part["toolName"], given if isinstance(given, str) else json.dumps(given)]
        elif kind in ("finish", "message-metadata"):
            metadata = part["messageMetadata"]
            state.finish_reason = metadata.get("finish_reason")
            state.count(**metadata.get("usage", {}))
        elif kind == "error":
            state.error = part["errorText"]
    ends = [part["type"] for part in parts if part["type"] in ("finish", "abort", "error")]
    assert ends == [parts[-1]["type"]]
    assert not blocks
    return state


def read_run(body: bytes) -> ClientState:
    """AG-UI's `verifyEvents` and `defaultApplyEvents`."""
    state, open_now = ClientState(), dict[str, str]()
    events = list(_objects(body, mark=False))
    assert events[0]["type"] in ("RUN_STARTED", "RUN_ERROR")
    assert not any(event["type"] == "RUN_STARTED" for event in events[1:])
    for event in events:
        kind = event["type"]
        place = event.get("toolCallId") or event.get("messageId")
        what = kind.rpartition("_")[0]
        if kind in ("TEXT_MESSAGE_START", "REASONING_MESSAGE_START", "TOOL_CALL_START"):
            assert place not in open_now
            open_now[place] = what
            if what == "TOOL_CALL":
                state.calls[place] = [event["toolCallName"], ""]
        elif kind in ("TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT", "TOOL_CALL_ARGS"):
            assert open_now[place] == what
            if what == "TEXT_MESSAGE":
                state.text += event["delta"]
            elif what == "REASONING_MESSAGE":
                state.reasoning += event["delta"]
            else:
                state.calls[place][1] += event["delta"]
        elif kind in ("TEXT_MESSAGE_END", "REASONING_MESSAGE_END", "TOOL_CALL_END"):
            assert open_now.pop(place) == what
        elif kind in ("RUN_FINISHED", "RUN_ERROR"):
            state.finish_reason = event.get("result", {}).get("finish_reason")
            state.error = event.get("message")
            count_run(state, event)
    ends = [event["type"] for event in events if event["type"] in ("RUN_FINISHED", "RUN_ERROR")]
    assert ends == [events[-1]["type"]]
    assert not open_now
    return state


def count_run(state: ClientState, ended: Mapping[str, Any]) -> None:
    """Notes the usage of AG-UI."""
    for usage in ended.get("usage", ()):
        state.count(**{_snake(name): count for name, count in usage.items()})


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


_INCOMPLETE: Final = {"max_output_tokens": "length", "content_filter": "content_filter"}


def read_responses(body: bytes) -> ClientState:
    """OpenAI's `ResponseStream`: items are opened before their parts, and the last event has the whole response."""
    state, items = ClientState(), list[dict[str, Any]]()
    events = [(name, json.loads(data)) for name, data in frames(body)]
    assert all(name == value["type"] for name, value in events)
    assert [value["sequence_number"] for _, value in events] == list(range(len(events)))
    last = events[-1][1]
    ends = ("response.completed", "response.incomplete", "response.failed")
    assert [name for name, _ in events if name in ends] == [last["type"]]
    for name, value in events:
        if name == "response.output_item.added":
            assert value["output_index"] == len(items)
            items.append(value["item"])
            if value["item"]["type"] == "function_call":
                state.calls[value["item"]["call_id"]] = [value["item"]["name"], ""]
        elif name == "response.output_text.delta":
            state.text += value["delta"]
        elif name == "response.refusal.delta":
            state.refusal += value["delta"]
        elif name in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            state.reasoning += value["delta"]
        elif name == "response.function_call_arguments.delta":
            state.calls[items[value["output_index"]]["call_id"]][1] += value["delta"]
    response = last["response"]
    count_response(state, response.get("usage") or {})
    if last["type"] == "response.failed":
        state.error = response["error"]["message"]
        return state
    assert [item["type"] for item in response["output"]] == [item["type"] for item in items]
    state.finish_reason = response_end(state, response)
    return state


def response_end(state: ClientState, response: Mapping[str, Any]) -> str:
    """Returns the finish reason of a response; that calls are to be run, its items tell."""
    if "finish_reason" in response.get("x_gai", {}):
        return str(response["x_gai"]["finish_reason"])
    reason = (response.get("incomplete_details") or {}).get("reason")
    return _INCOMPLETE.get(reason, reason) or ("tool_calls" if state.calls else "stop")


def count_response(state: ClientState, usage: Mapping[str, Any]) -> None:
    """Notes the usage of OpenAI's Responses."""
    inputs, outputs = usage.get("input_tokens_details", {}), usage.get("output_tokens_details", {})
    state.count(
        input_tokens=usage.get("input_tokens"),
        output_tokens=usage.get("output_tokens"),
        cached_input_tokens=inputs.get("cached_tokens"),
        cache_write_input_tokens=inputs.get("cache_write_tokens"),
        reasoning_tokens=outputs.get("reasoning_tokens"),
    )


READERS: Final[Mapping[str, Callable[[bytes], ClientState]]] = {
    "gai": read_gai,
    "openai": read_chat,
    "responses": read_responses,
    "anthropic": read_messages,
    "vercel": read_ui_messages,
    "agui": read_run,
    "simple": read_simple,
    "completions": read_completions,
}

LACKS: Final[Mapping[str, frozenset[str]]] = {
    "simple": frozenset({"reasoning", "calls", "finish_reason", "usage"}),
    "completions": frozenset({"reasoning", "calls"}),
}
"""The members of `ClientState` that a format has no place for."""

APART: Final = frozenset({"gai", "openai", "responses"})
"""The formats that tell a refusal apart from text."""

COUNTS_FAILED: Final = frozenset({"gai", "responses", "vercel", "agui"})
"""The formats that tell the usage of an answer that failed."""
