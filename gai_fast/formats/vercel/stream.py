"""The UI message stream of Vercel's AI SDK: events as parts.

The parts are those of the SDK's `ui-message-chunks.ts`. Its clients check them strictly: an unknown type ends the
stream in every version; an unknown key ends it in versions before 5.0.217, 6.0.231 and 7.0.31. So the default is the
parts of 5.0.0 with exactly its keys; `?ui=6` and `?ui=7` add the parts and keys of those versions.

| event | parts |
|---|---|
| `start` | `start` and `start-step`; no `messageId`, which would rename the message that an answer continues |
| `text.delta` `refusal.delta` | `text-start`, `text-delta`, `text-end`; no probabilities |
| `reasoning.delta` | `reasoning-start`, `reasoning-delta`, `reasoning-end` |
| `reasoning.signature` | `providerMetadata.gai` of the `reasoning-end`, or of its call's `tool-input-available` |
| `tool.call.start` `tool.call.delta` | `tool-input-start`, `tool-input-delta` |
| `tool.call` | `tool-input-available`; from 6 on `tool-input-error` if the arguments are not JSON |
| `tool.result` | `tool-output-available`, `tool-output-error`; `data-tool-result` if the stream lacks the call |
| `tool.progress` | none: a preliminary output is a key of later versions |
| `server_tool` | the parts of a tool with `providerExecuted`; `tool-output-error` if the tool failed |
| `citations` | one `source-url` each, `source-document` if there is no URL; offsets are left out |
| `image` | `file` with a `data:` URL; a partial one is left out |
| `audio.delta` | `data-audio`, transient |
| `provider.block` | `data-provider-block`, which a page sends back |
| `json.snapshot` | `data-json`; each one replaces the previous one |
| `safety` | `data-safety` |
| `warning` | `data-warning`, transient |
| `usage` | `messageMetadata` of the end, if `finish` has no usage |
| `approval.required` | 6 and 7: `tool-approval-request`; `data-approval` |
| `approval.decided` | 7: `tool-approval-response`; `data-approval` |
| `step.start` | `start-step`, unless the step is open |
| `step.end` | `finish-step`, and `start-step` before the next part |
| `step.reset` | 7: `reset-step`; 5 and 6: none, a step with content is never asked again |
| `stream.reset` | 7: `reset-step` in the first step; 5 and 6: none, an answer with content is never restarted |
| `stream.gap` | none: a follower that lacks events is sent an error |
| `finish` | `finish-step` and `finish`, from 6 on with `finishReason`; `abort` if the answer was cancelled |
| `error` | `message-metadata` with the usage so far, if there is any, and `error` |
| `done` | `[DONE]` after a `finish`; nothing after an `error` |

Choices beyond the first are left out. `reset-step` drops one step only: the client would keep the earlier steps. So a
`stream.reset` after the first step cuts the response off.

The parts of a call that the gateway makes have `providerExecuted`, so that no page makes it, and `dynamic`: the page
does not know the tool. `data-approval` has the digest, which a decision by `POST` must name. A page of 6 or 7 answers
in its next request: a response ends where its run waits (`rest`), and the next one goes on (`go_on`) with the outputs
of calls whose inputs were in the response before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from gai_fast.core.sinks import Inexpressible
from gai_fast.formats._base import Framing, StreamContext, block_members, result_text, warning_members
from gai_fast.formats._blocks import BlockEncoder
from gai_fast.kernels import encode_json, escape
from gai_fast.model.errors import Error
from gai_fast.model.events import Event, JSONText
from gai_fast.model.limits import SHARED

OLDEST: Final = 5
"""The SDK version whose parts are the default."""
RESETS: Final = 7
"""The first version with `reset-step`."""

_FINISH_REASONS: Final = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": "tool-calls",
}

_NOT_JSON: Final = "The model's arguments are not JSON"
BY_GATEWAY: Final[Mapping[str, Any]] = {"providerExecuted": True, "dynamic": True}
"""The keys of the parts of a call that the gateway makes."""
_NO_KEYS: Final[Mapping[str, Any]] = {}


def signature_metadata(signed: Mapping[str, Any], provider: str | None) -> dict[str, Any]:
    """Returns the `providerMetadata` that carries a signature to the client and back.

    Args:
        signed: An event or a part of a message. Has `signature`, and `redacted` if the block has only a signature.
        provider: The provider that made the signature.
    """
    own: dict[str, Any] = {"signature": signed["signature"]}
    if signed.get("redacted"):
        own["redacted"] = True
    if provider:
        own["provider"] = provider
    return {"gai": own}


def message_metadata(usage: Mapping[str, Any] | None, finish_reason: str | None) -> dict[str, Any]:
    """Returns the `messageMetadata` of an answer."""
    found: dict[str, Any] = {}
    if usage:
        found["usage"] = usage
    if finish_reason:
        found["finish_reason"] = finish_reason
    return found


def source_part(citation: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Returns the part for a citation.

    Args:
        citation: The citation of an event.
        number: The citation's position in the answer, from 1.
    """
    identifier = f"source-{number}"
    title = citation.get("title")
    if "uri" in citation:
        titled = {"title": title} if title else {}
        return {"type": "source-url", "sourceId": identifier, "url": citation["uri"], **titled}
    return {"type": "source-document", "sourceId": identifier, "mediaType": "text/plain", "title": title or "Source"}


def file_part(image: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part for a whole image."""
    media_type = image.get("media_type", "image/png")
    return {"type": "file", "url": f"data:{media_type};base64,{image.get('data', '')}", "mediaType": media_type}


def server_tool_id(tool: Mapping[str, Any]) -> str:
    """Returns the `toolCallId` of a tool that the provider runs."""
    identifier: str = tool.get("id") or f"server-{tool.get('name', 'tool')}"
    return identifier


def failure_text(output: Any) -> str:
    """Returns the `errorText` for the output of a failed tool."""
    return output if isinstance(output, str) else encode_json(output).decode()


class Parts(BlockEncoder):
    """Events → parts.

    Args:
        framing: `sse`.
        context: The stream.
        version: The major version of the client's SDK.
    """

    __slots__ = (
        "_asked",
        "_block_id",
        "_blocks",
        "_calls",
        "_former_calls",
        "_in_step",
        "_provider",
        "_room",
        "_server_tools",
        "_signatures",
        "_sources",
        "_started",
        "_steps",
        "_usage",
        "_version",
    )

    blocks: ClassVar[Mapping[str, str]] = {
        "text.delta": "text",
        "refusal.delta": "text",
        "reasoning.delta": "reasoning",
    }

    def __init__(self, framing: Framing, context: StreamContext, version: int) -> None:
        super().__init__(framing, context)
        self._version = version
        self._block_id = b""
        self._blocks = 0
        self._started = False
        self._in_step = False
        self._steps = 0
        self._provider: str | None = None
        self._calls: dict[str, Mapping[str, Any]] = {}
        """For each call, by its id: the keys that mark its parts as the gateway's. Empty for the client's calls."""
        self._former_calls = 0  # how many there were before the step
        self._asked: dict[str, bool] = {}
        """For each call that the page was asked for, by its id: whether it was denied."""
        self._server_tools: dict[str, bool] = {}
        """For each tool that the provider runs, by its id: whether its input was sent."""
        self._room = SHARED.kept_answer
        self._signatures: dict[str, dict[str, Any]] = {}
        self._sources = 0
        self._usage: Mapping[str, Any] | None = None

    def _accepts_arguments(self, call_id: str) -> bool:
        return call_id in self._calls

    # -- steps and blocks --

    def _part(self, part: Mapping[str, Any]) -> None:
        self._frame(encode_json(part))

    def _begin(self, block: str = "") -> None:
        """Opens a step if none is open, and ends the open block if it is of another kind; opens this one.

        Args:
            block: The kind of the block; empty to end the open block only.
        """
        if block and self._block == block:
            return
        self._end_block()
        if not self._in_step:
            self._in_step = True
            self._steps += 1
            self._frame(b'{"type":"start-step"}')
        if block:
            self._block = block
            self._block_id = b'"%d"' % self._blocks
            self._blocks += 1
            self._frame(b'{"type":"%b-start","id":%b}' % (block.encode(), self._block_id))
            self._head = b'%b{"type":"%b-delta","id":%b,"delta":' % (self._lead, block.encode(), self._block_id)

    def _end_block(self, metadata: Mapping[str, Any] | None = None) -> None:
        if self._block:
            more = b',"providerMetadata":' + encode_json(metadata) if metadata else b""
            self._frame(b'{"type":"%b-end","id":%b%b}' % (self._block.encode(), self._block_id, more))
            self._block = ""

    # -- events --

    def _start(self, event: Event) -> None:
        self._provider = event.get("provider")
        if not self._started:
            self._started = True
            self._frame(b'{"type":"start"}')
        self._begin()

    def _signature(self, event: Event) -> None:
        metadata = signature_metadata(event, self._provider)
        if "call_id" in event:
            self._signatures[event["call_id"]] = metadata
            return
        if event.get("redacted") or self._block != "reasoning":
            self._begin()
            self._begin("reasoning")
        self._end_block(metadata)

    def _call_start(self, event: Event) -> None:
        self._begin()
        own = self._note_call(event)
        name = event["tool_call"].get("name", "")
        self._part({"type": "tool-input-start", "toolCallId": event["call_id"], "toolName": name, **own})

    def _note_call(self, event: Event) -> Mapping[str, Any]:
        """Notes a call of the stream. Returns the keys that mark its parts as the gateway's, if it is."""
        own = self._calls[event["call_id"]] = BY_GATEWAY if "executed_by" in event else _NO_KEYS
        return own

    def _call_arguments(self, event: Event) -> None:
        if event["call_id"] in self._calls:  # a processor may have dropped its start
            self._write_arguments(event)

    def _argument_head(self, event: Event) -> bytes:
        return b'{"type":"tool-input-delta","toolCallId":%b,"inputTextDelta":' % escape(event["call_id"])

    def _call(self, event: Event) -> None:
        self._begin()
        call_id, call = event["call_id"], event["tool_call"]
        own = self._note_call(event)
        value = call.get("input", {})
        part = {"type": "tool-input-available", "toolCallId": call_id, "toolName": call.get("name", ""), "input": value}
        if "signature" in event:
            self._signature(event)
        metadata = self._signatures.pop(call_id, None)
        if metadata is not None:
            part["providerMetadata"] = metadata
        is_json = not isinstance(value, str) or isinstance(value, JSONText)
        if not is_json and self._version > OLDEST:
            part |= {"type": "tool-input-error", "errorText": _NOT_JSON}
        self._part({**part, **own})

    def _result(self, event: Event) -> None:
        call_id, output = event.get("call_id", ""), event.get("tool_result")
        if call_id not in self._calls:
            self._data("tool-result", {"call_id": call_id, "tool_result": output})
            return
        self._begin()
        own = self._calls[call_id]
        if event.get("is_error") and self._asked.get(call_id):
            self._part({"type": "tool-output-denied", "toolCallId": call_id})
        elif event.get("is_error"):
            self._part({"type": "tool-output-error", "toolCallId": call_id, "errorText": result_text(event), **own})
        else:
            output = event.get("parts", output)
            self._part({"type": "tool-output-available", "toolCallId": call_id, "output": output, **own})

    def _approval(self, event: Event) -> None:
        approval, call_id = event["approval"], event["call_id"]
        if self._version > OLDEST and call_id in self._calls:
            if event["type"] == "approval.required":
                self._asked[call_id] = False
                self._part({"type": "tool-approval-request", "approvalId": approval["id"], "toolCallId": call_id})
            elif call_id in self._asked:
                self._decided(call_id, approval)
        self._data("approval", {"call_id": call_id, **approval}, id=approval["id"])

    def _decided(self, call_id: str, approval: Mapping[str, Any]) -> None:
        is_approved = approval.get("decision") == "approve"
        self._asked[call_id] = not is_approved
        if self._version >= RESETS:
            reason = {"reason": approval["reason"]} if approval.get("reason") else {}
            own = {"approvalId": approval["id"], "approved": is_approved, **reason}
            self._part({"type": "tool-approval-response", **own})

    def _server_tool(self, event: Event) -> None:
        self._begin()
        tool = event["server_tool"]
        identifier = server_tool_id(tool)
        if identifier not in self._server_tools:
            self._take_room(len(identifier))
        place = {"toolCallId": identifier}
        named = {**place, "toolName": tool.get("name", "")}
        is_over = tool.get("status") in ("completed", "failed")
        # Some providers send a tool's input only with its end.
        if not self._server_tools.get(identifier):
            if "input" in tool or is_over:
                given = {"input": tool.get("input", {}), "providerExecuted": True}
                self._part({"type": "tool-input-available", **named, **given})
            elif identifier not in self._server_tools:
                self._part({"type": "tool-input-start", **named, "providerExecuted": True})
            self._server_tools[identifier] = "input" in tool or is_over
        if tool.get("status") == "completed":
            output = tool.get("output")
            self._part({"type": "tool-output-available", **place, "output": output, "providerExecuted": True})
        elif tool.get("status") == "failed":
            text = failure_text(tool.get("output"))
            self._part({"type": "tool-output-error", **place, "errorText": text, "providerExecuted": True})

    def _take_room(self, size: int) -> None:
        self._room -= size + SHARED.kept_piece
        if self._room < 0:
            what = f"the ids of its tools are larger than {SHARED.kept_answer} characters, which this format must keep"
            raise Error("provider_unavailable", what, reason="answer_too_large")

    def _citations(self, event: Event) -> None:
        for citation in event["citations"]:
            self._sources += 1
            self._part(source_part(citation, self._sources))

    def _image(self, event: Event) -> None:
        image = event["image"]
        if not image.get("partial"):
            self._begin()
            self._part(file_part(image))

    def _audio(self, event: Event) -> None:
        self._data("audio", event["audio"], transient=True)

    def _provider_block(self, event: Event) -> None:
        self._begin()  # the text after the block is a separate part
        self._data("provider-block", block_members(event))

    def _json(self, event: Event) -> None:
        self._data("json", event.get("json"), id="json")

    def _safety(self, event: Event) -> None:
        self._data("safety", event["safety"])

    def _warning(self, event: Event) -> None:
        self._data("warning", warning_members(event), transient=True)

    def _data(self, name: str, data: Any, **more: Any) -> None:
        self._part({"type": f"data-{name}", "data": data, **more})

    def _counted(self, event: Event) -> None:
        self._usage = event["usage"]

    def _step_end(self, event: Event) -> None:
        if self._in_step:
            self._end_block()
            self._in_step = False
            self._frame(b'{"type":"finish-step"}')

    def _step(self, event: Event) -> None:
        self._provider = event.get("provider", self._provider)
        self._begin()
        self._former_calls = len(self._calls)

    def _step_reset(self, event: Event) -> None:
        self._block = ""
        for call_id in list(self._calls)[self._former_calls :]:
            del self._calls[call_id]
            self._signatures.pop(call_id, None)
        if self._version >= RESETS:
            self._begin()
            self._frame(b'{"type":"reset-step"}')

    def _reset(self, event: Event) -> None:
        if self._steps > 1:
            raise Inexpressible
        self._steps = int(self._in_step)
        self._block = ""
        self._calls.clear()
        self._former_calls = 0
        self._server_tools.clear()
        self._signatures.clear()
        self._usage = None
        if self._version >= RESETS:
            self._frame(b'{"type":"reset-step"}')

    def _finish(self, event: Event) -> None:
        reason = event.get("finish_reason", "stop")
        metadata = message_metadata(event.get("usage", self._usage), reason)
        if reason == "cancelled":
            self._end_block()
            self._part({"type": "message-metadata", "messageMetadata": metadata})
            self._frame(b'{"type":"abort"}')
            return
        self._step_end(event)
        end: dict[str, Any] = {"type": "finish"}
        if self._version > OLDEST:
            end["finishReason"] = _FINISH_REASONS.get(reason, "other")
        self._part({**end, "messageMetadata": metadata})

    def rest(self) -> None:
        """Works as `RestingEncoder.rest`."""
        self._finish({"type": "finish", "finish_reason": "tool_calls"})
        self._frame(b"[DONE]")

    def go_on(self) -> None:
        """Works as `RestingEncoder.go_on`."""
        self._frame(b'{"type":"start"}')

    def _error(self, event: Event) -> None:
        self._end_block()
        usage = event.get("usage", self._usage)
        if usage:
            self._part({"type": "message-metadata", "messageMetadata": message_metadata(usage, None)})
        self._frame(b'{"type":"error","errorText":%b}' % escape(event["error"]["message"]))

    def _done(self, event: Event) -> None:
        if event["finished"]:
            self._frame(b"[DONE]")


Parts.writers = {
    "start": Parts._start,
    **dict.fromkeys(Parts.blocks, Parts._text),
    "reasoning.signature": Parts._signature,
    "tool.call.start": Parts._call_start,
    "tool.call.delta": Parts._call_arguments,
    "tool.call": Parts._call,
    "tool.result": Parts._result,
    "server_tool": Parts._server_tool,
    "citations": Parts._citations,
    "image": Parts._image,
    "audio.delta": Parts._audio,
    "json.snapshot": Parts._json,
    "provider.block": Parts._provider_block,
    "safety": Parts._safety,
    "warning": Parts._warning,
    "usage": Parts._counted,
    **dict.fromkeys(("approval.required", "approval.decided"), Parts._approval),
    "step.start": Parts._step,
    "step.end": Parts._step_end,
    "step.reset": Parts._step_reset,
    "stream.reset": Parts._reset,
    "finish": Parts._finish,
    "error": Parts._error,
    "done": Parts._done,
}
