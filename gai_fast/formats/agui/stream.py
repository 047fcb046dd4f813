"""AG-UI 1.0: writes events as the events of a run.

The events are those of the protocol's `schema.json`. Its client checks their order: `RUN_STARTED` comes first, and
`RUN_FINISHED` comes after the end of every message, reasoning and call.

| event | AG-UI |
|---|---|
| `start` | `RUN_STARTED` |
| `text.delta` `refusal.delta` | `TEXT_MESSAGE_START`, `TEXT_MESSAGE_CONTENT`, `TEXT_MESSAGE_END`; no probabilities |
| `reasoning.delta` | three events of `REASONING_MESSAGE`, between `REASONING_START` and `REASONING_END` |
| `reasoning.signature` | `REASONING_ENCRYPTED_VALUE` of its reasoning or call |
| `tool.call.start` `tool.call.delta` `tool.call` | `TOOL_CALL_START`, `TOOL_CALL_ARGS`, `TOOL_CALL_END` |
| `tool.result` | `TOOL_CALL_RESULT` |
| `citations` `server_tool` `image` `audio.delta` | `CUSTOM` with the event's type as name, and its payload |
| `provider.block` | `CUSTOM` with the event's type as name, and its `provider` and `block` |
| `json.snapshot` `safety` | `CUSTOM` with the event's type as name, and its payload |
| `tool.progress` `approval.required` `approval.decided` | `CUSTOM`, with the id of the call in its payload |
| `step.start` | `STEP_STARTED`, by the step's number |
| `step.end` | `STEP_FINISHED`; `CUSTOM` if the step has no start |
| `step.reset` | none: a step with content is never asked again |
| `warning` | `CUSTOM`, with its reason; if it names a guard, with `reason` and `guard` |
| `usage` | `usage` of the end, if `finish` has no usage |
| `stream.reset` | none: an answer with content is never restarted |
| `stream.gap` | none: a follower that lacks events is sent an error |
| `finish` | `RUN_FINISHED`, with `usage`, `finish_reason` and `usage_source` as result; `outcome` if cancelled |
| `error` | `RUN_ERROR` |
| `done` | none: `RUN_FINISHED` and `RUN_ERROR` are ends |

Choices beyond the first are left out. A tool that the provider runs is not written as a call: a client would run it,
and send it back; a call that the gateway makes has its `TOOL_CALL_RESULT`. A call that was cut off gets a
`TOOL_CALL_END` too, and an open step a `STEP_FINISHED`, before `RUN_FINISHED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple

from gai_fast.core.requests.signatures import seal
from gai_fast.formats._base import Framing, StreamContext, block_members, result_text
from gai_fast.formats._blocks import BlockEncoder
from gai_fast.formats._openai import argument_text
from gai_fast.kernels import encode_json, escape
from gai_fast.model.events import Event

PROTOCOL: Final = "1.0"

# Events without an AG-UI equivalent, and the payload's key.
_CUSTOM: Final = {
    "audio.delta": "audio",
    "citations": "citations",
    "image": "image",
    "json.snapshot": "json",
    "safety": "safety",
    "server_tool": "server_tool",
}

_OF_CALL: Final = ("call_id", "progress", "total", "text", "approval")
"""What events about a call of the gateway hold besides its result."""

_COUNTS: Final = {
    "input_tokens": "inputTokens",
    "output_tokens": "outputTokens",
    "total_tokens": "totalTokens",
    "reasoning_tokens": "reasoningTokens",
    "cached_input_tokens": "cachedInputTokens",
    "cache_write_input_tokens": "cacheWriteInputTokens",
}


class Run(NamedTuple):
    """The client's ids for a run.

    Args:
        thread_id: The id of the conversation.
        run_id: The id of the run.
    """

    thread_id: str
    run_id: str

    def members(self) -> dict[str, str]:
        """Returns the members of an event about the run."""
        return {"threadId": self.thread_id, "runId": self.run_id}


def token_usage(usage: Mapping[str, Any] | None, provider: str | None, model: str | None) -> list[dict[str, Any]]:
    """Returns the usage of a run: one entry, or none if nothing was counted."""
    if not usage:
        return []
    names = {"provider": provider, "model": model}
    counts = {name: usage[key] for key, name in _COUNTS.items() if key in usage}
    return [{name: value for name, value in names.items() if value} | counts]


def usage_source(usage: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the member of a run's `result` that says who counted its tokens; empty if it was the provider."""
    return {"usage_source": usage["source"]} if usage and "source" in usage else {}


class RunEvents(BlockEncoder):
    """Events → events of a run.

    Args:
        framing: `sse`.
        context: The stream.
        run: The client's ids of the run.
    """

    __slots__ = (
        "_calls",
        "_message_id",
        "_messages",
        "_model",
        "_open_calls",
        "_parent",
        "_provider",
        "_run",
        "_started",
        "_step",
        "_stream_id",
        "_usage",
        "_waiting",
        "_with_arguments",
    )

    blocks: ClassVar[Mapping[str, str]] = {
        "text.delta": "TEXT_MESSAGE",
        "refusal.delta": "TEXT_MESSAGE",
        "reasoning.delta": "REASONING_MESSAGE",
    }

    def __init__(self, framing: Framing, context: StreamContext, run: Run) -> None:
        super().__init__(framing, context)
        self._run = run
        self._stream_id = context.stream_id
        self._model = context.model
        self._started = False
        self._provider: str | None = None
        self._message_id = ""
        self._messages = 0
        self._parent = ""
        """The id of the calls' parent message: the last text message, or a new message without text."""
        self._calls: set[str] = set()
        self._open_calls: dict[str, None] = {}
        self._with_arguments: set[str] = set()
        self._step = ""
        """The name of the open step; empty if none is open."""
        self._waiting: dict[str, dict[str, str]] = {}
        """Signatures of calls that have not started."""
        self._usage: Mapping[str, Any] | None = None

    def _accepts_arguments(self, call_id: str) -> bool:
        return call_id in self._with_arguments

    def _write(self, kind: str, members: Mapping[str, Any]) -> None:
        self._frame(encode_json({"type": kind, **members}))

    # -- messages --

    def _new_id(self) -> str:
        self._messages += 1
        return f"{self._stream_id}-{self._messages}"

    def _begin(self, block: str) -> None:
        """Opens a message of this kind unless it is open, and ends any other."""
        if self._block == block:
            return
        self._end_block()
        self._block = block
        self._message_id = self._new_id()
        if block == "TEXT_MESSAGE":
            self._parent = self._message_id
            role = "assistant"
        else:
            self._write("REASONING_START", {"messageId": self._message_id})
            role = "reasoning"
        self._write(f"{block}_START", {"messageId": self._message_id, "role": role})
        place = escape(self._message_id)
        self._head = b'%b{"type":"%b_CONTENT","messageId":%b,"delta":' % (self._lead, block.encode(), place)

    def _end_block(self) -> None:
        if not self._block:
            return
        place = {"messageId": self._message_id}
        self._write(f"{self._block}_END", place)
        if self._block == "REASONING_MESSAGE":
            self._write("REASONING_END", place)
        self._block = ""

    # -- events --

    def _start(self, event: Event) -> None:
        self._provider = event.get("provider")
        self._model = event.get("model", self._model)
        if self._started:
            return  # the client has the start of an earlier attempt
        self._started = True
        self._write("RUN_STARTED", {**self._run.members(), "protocolVersion": PROTOCOL})

    def _signature(self, event: Event) -> None:
        value = {"encryptedValue": seal(event["signature"], self._provider, redacted=event.get("redacted"))}
        if "call_id" in event:
            self._waiting[event["call_id"]] = value
            if event["call_id"] in self._calls:
                self._sign_call(event["call_id"])
            return
        if event.get("redacted"):
            self._end_block()
        self._begin("REASONING_MESSAGE")
        place = {"subtype": "message", "entityId": self._message_id}
        self._write("REASONING_ENCRYPTED_VALUE", {**place, **value})
        self._end_block()

    def _sign_call(self, call_id: str) -> None:
        """Writes the stored signature of a call that has started, if there is one."""
        value = self._waiting.pop(call_id, None)
        if value is not None:
            self._write("REASONING_ENCRYPTED_VALUE", {"subtype": "tool-call", "entityId": call_id, **value})

    def _call_start(self, event: Event) -> None:
        call_id = event["call_id"]
        self._end_block()
        self._calls.add(call_id)
        self._open_calls[call_id] = None
        if not self._parent:
            self._parent = self._new_id()
        members = {"toolCallName": event["tool_call"].get("name", ""), "parentMessageId": self._parent}
        self._write("TOOL_CALL_START", {"toolCallId": call_id, **members})
        self._sign_call(call_id)

    def _call_arguments(self, event: Event) -> None:
        if event["call_id"] not in self._calls:  # a processor may have dropped its start
            return
        if event.get("arguments", "").strip():
            self._with_arguments.add(event["call_id"])
        self._write_arguments(event)

    def _argument_head(self, event: Event) -> bytes:
        return b'{"type":"TOOL_CALL_ARGS","toolCallId":%b,"delta":' % escape(event["call_id"])

    def _call(self, event: Event) -> None:
        call_id = event["call_id"]
        if call_id not in self._calls:
            self._call_start(event)
        if call_id not in self._with_arguments:
            self._call_arguments({**event, "arguments": argument_text(event["tool_call"].get("input", {}))})
        if "signature" in event:
            self._signature(event)
        self._end_call(call_id)

    def _end_call(self, call_id: str) -> None:
        if call_id in self._open_calls:
            del self._open_calls[call_id]
            self._write("TOOL_CALL_END", {"toolCallId": call_id})

    def _result(self, event: Event) -> None:
        members = {"toolCallId": event.get("call_id", ""), "content": result_text(event)}
        self._write("TOOL_CALL_RESULT", {"messageId": self._new_id(), **members})

    def _of_call(self, event: Event) -> None:
        value = {key: event[key] for key in _OF_CALL if key in event}
        self._write("CUSTOM", {"name": event["type"], "value": value})

    def _step_start(self, event: Event) -> None:
        """Begins a turn of the model. Its text and calls are those of a new message."""
        self._end_parts()
        self._provider = event.get("provider", self._provider)
        self._model = event.get("model", self._model)
        self._parent = ""
        self._step = str(event.get("step", ""))
        self._write("STEP_STARTED", {"stepName": self._step})

    def _step_end(self, event: Event) -> None:
        if self._step:
            self._end_parts()
        else:
            self._write("CUSTOM", {"name": event["type"], "value": event.get("step")})

    def _custom(self, event: Event) -> None:
        kind = event["type"]
        value = event.get(_CUSTOM[kind])
        self._write("CUSTOM", {"name": kind, "value": value})

    def _warning(self, event: Event) -> None:
        value = {"reason": event["reason"], "guard": event["guard"]} if "guard" in event else event.get("reason")
        self._write("CUSTOM", {"name": event["type"], "value": value})

    def _provider_block(self, event: Event) -> None:
        self._write("CUSTOM", {"name": event["type"], "value": block_members(event)})

    def _counted(self, event: Event) -> None:
        self._usage = event["usage"]

    def _end_parts(self) -> None:
        """Ends the open message, all open calls and the open step."""
        self._end_block()
        for call_id in list(self._open_calls):
            self._end_call(call_id)
        if self._step:
            self._write("STEP_FINISHED", {"stepName": self._step})
            self._step = ""

    def _ended(self, event: Event) -> dict[str, Any]:
        """Ends all that is open; returns the run's `usage` member."""
        self._end_parts()
        usage = token_usage(event.get("usage", self._usage), self._provider, self._model)
        return {"usage": usage} if usage else {}

    def _finish(self, event: Event) -> None:
        usage = self._ended(event)
        reason = event.get("finish_reason", "stop")
        outcome = {"outcome": {"type": "cancelled"}} if reason == "cancelled" else {}
        result = {"finish_reason": reason, **usage_source(event.get("usage", self._usage))}
        if "steps" in event:
            result["steps"] = event["steps"]
        end = {**self._run.members(), "result": result, **outcome, **usage}
        self._write("RUN_FINISHED", end)

    def _error(self, event: Event) -> None:
        usage = self._ended(event)
        error = event["error"]
        self._write("RUN_ERROR", {"message": error["message"], "code": error["code"], **usage})


RunEvents.writers = {
    "start": RunEvents._start,
    **dict.fromkeys(RunEvents.blocks, RunEvents._text),
    "reasoning.signature": RunEvents._signature,
    "tool.call.start": RunEvents._call_start,
    "tool.call.delta": RunEvents._call_arguments,
    "tool.call": RunEvents._call,
    "tool.result": RunEvents._result,
    **dict.fromkeys(_CUSTOM, RunEvents._custom),
    "provider.block": RunEvents._provider_block,
    "warning": RunEvents._warning,
    **dict.fromkeys(("tool.progress", "approval.required", "approval.decided"), RunEvents._of_call),
    "step.start": RunEvents._step_start,
    "step.end": RunEvents._step_end,
    "usage": RunEvents._counted,
    "finish": RunEvents._finish,
    "error": RunEvents._error,
}
