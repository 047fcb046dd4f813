"""An upstream of four dialects that thinks, calls a tool, compacts and knows what it was told; its gateway."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from gai_fast.server.serving import start
from tests.integration.gateway import DONE, LAST_CHUNK, SSE_HEAD, Gateway, Net, Peer, delta, settings_for
from tests.wire import chunk

MODELS = {
    "m": "/v1/chat/completions",
    "claude": "/v1/messages",
    "gemini": "/v1beta/models/mock:streamGenerateContent?alt=sse",
    "native/gpt-x": "/v1/responses",
}
"""The models of `talking`, and the paths of their requests: one of each dialect."""
NAME, RESULT = "Ada", "42 fathoms"
TOOL = "depth"
"""The tool that is called where it is offered and its result is not known."""
THOUGHT, SIGNATURE = "They want something.", "c2lnbmVk"
NOT_FOUND = json.dumps(
    {
        "error": {
            "message": "Previous response not found.",
            "type": "invalid_request_error",
            "param": "previous_response_id",
            "code": "previous_response_not_found",
        }
    }
).encode()
"""What OpenAI answers where it keeps no such response; this upstream keeps none."""


class Talker:
    """Answers with a call, or with what it knows: of the name and the tool's result, what stands in the conversation.

    Attributes:
        asked: The paths and bodies of the requests.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            body = json.loads(await peer.request())
            path = peer.head.split(b" ")[1].decode()
            self.asked.append((path, body))
            said, number = json.dumps(body), len(self.asked)
            if path.endswith("/compact"):
                await peer.answer("200 OK", json.dumps(_compaction(said)).encode(), "content-type: application/json")
                continue
            if body.get("previous_response_id"):
                await peer.answer("400 Bad Request", NOT_FOUND, "content-type: application/json")
                continue
            calls = f'"name": "{TOOL}"' in said and RESULT not in said
            text = "I know " + (" and ".join(word for word in (NAME, RESULT) if word in said) or "nothing")
            if path.endswith("/completions"):
                frames = _chat(text, calls, number)
            elif path.endswith("/messages"):
                frames = _messages(text, calls, number)
            elif path.endswith("/responses"):
                frames = _responses(text, calls, number, body)
                if not body.get("stream"):
                    whole = json.dumps(json.loads(frames[-1].partition(b"data: ")[2])["response"]).encode()
                    await peer.answer("200 OK", whole, "content-type: application/json")
                    continue
            else:
                frames = _gemini(text, calls)
            await peer.send(SSE_HEAD, *map(chunk, frames), LAST_CHUNK)


def _chat(text: str, calls: bool, number: int) -> list[bytes]:
    call = {"index": 0, "id": f"call_{number}", "type": "function", "function": {"name": TOOL, "arguments": "{}"}}
    said = delta("", delta={"tool_calls": [call]}) if calls else delta(text)
    end = delta("", delta={}, finish_reason="tool_calls" if calls else "stop")
    return [delta("", delta={"reasoning_content": THOUGHT}), said, end, DONE]


def _messages(text: str, calls: bool, number: int) -> list[bytes]:
    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    thought = [{"type": "thinking_delta", "thinking": THOUGHT}, {"type": "signature_delta", "signature": SIGNATURE}]
    block: dict[str, Any] = {"type": "text", "text": ""}
    said: dict[str, Any] = {"type": "text_delta", "text": text}
    if calls:
        block = {"type": "tool_use", "id": f"toolu_{number}", "name": TOOL, "input": {}}
        said = {"type": "input_json_delta", "partial_json": "{}"}
    start = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": "c", "content": []}
    used = {"input_tokens": 3, "output_tokens": 1}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {**start, "usage": used}}]
    for index, (begun, deltas) in enumerate([(thinking, thought), (block, [said])]):
        events.append({"type": "content_block_start", "index": index, "content_block": begun})
        events += [{"type": "content_block_delta", "index": index, "delta": each} for each in deltas]
        events.append({"type": "content_block_stop", "index": index})
    reason = {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}
    events.append({"type": "message_delta", "delta": reason, "usage": {"output_tokens": 5}})
    return [_frame(each) for each in (*events, {"type": "message_stop"})]


def _gemini(text: str, calls: bool) -> list[bytes]:
    said: dict[str, Any] = {"text": text}
    if calls:
        said = {"functionCall": {"name": TOOL, "args": {}}, "thoughtSignature": SIGNATURE}
    content = {"role": "model", "parts": [{"text": THOUGHT, "thought": True}, said]}
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 5, "totalTokenCount": 8}
    answer = {"candidates": [{"content": content, "finishReason": "STOP", "index": 0}], "usageMetadata": usage}
    return [b"data: " + json.dumps(answer).encode() + b"\r\n\r\n"]


def _responses(text: str, calls: bool, number: int, body: dict[str, Any]) -> list[bytes]:
    summary = {"type": "summary_text", "text": THOUGHT}
    sealed = {"encrypted_content": SIGNATURE} if "reasoning.encrypted_content" in body.get("include", ()) else {}
    thought = {"id": f"rs_{number}", "type": "reasoning", "summary": [summary], **sealed}
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {"id": f"msg_{number}", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    call = {"id": f"fc_{number}", "type": "function_call", "status": "completed"}
    said = {**call, "call_id": f"call_{number}", "name": TOOL, "arguments": "{}"} if calls else message
    opened = {**said, "status": "in_progress", **({"arguments": ""} if calls else {"content": []})}
    at = {"item_id": said["id"], "output_index": 1}
    in_text = {**at, "content_index": 0}
    kind = "response.function_call_arguments"
    middle: list[dict[str, Any]] = [{"type": f"{kind}.delta", **at, "delta": "{}"}]
    middle.append({"type": f"{kind}.done", **at, "name": TOOL, "arguments": "{}"})
    if not calls:
        middle = [
            {"type": "response.content_part.added", **in_text, "part": {**part, "text": ""}},
            {"type": "response.output_text.delta", **in_text, "delta": text, "logprobs": []},
            {"type": "response.output_text.done", **in_text, "text": text, "logprobs": []},
            {"type": "response.content_part.done", **in_text, "part": part},
        ]
    of_summary = {"item_id": thought["id"], "output_index": 0, "summary_index": 0}
    response = _response(f"resp_{number}", body)
    begun = {**response, "status": "in_progress", "completed_at": None, "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {**thought, "summary": []}},
        {"type": "response.reasoning_summary_part.added", **of_summary, "part": {**summary, "text": ""}},
        {"type": "response.reasoning_summary_text.delta", **of_summary, "delta": THOUGHT},
        {"type": "response.reasoning_summary_text.done", **of_summary, "text": THOUGHT},
        {"type": "response.reasoning_summary_part.done", **of_summary, "part": summary},
        {"type": "response.output_item.done", "output_index": 0, "item": thought},
        {"type": "response.output_item.added", "output_index": 1, "item": opened},
        *middle,
        {"type": "response.output_item.done", "output_index": 1, "item": said},
        {"type": "response.completed", "response": {**response, "output": [thought, said]}},
    ]
    return [_frame({**each, "sequence_number": at}) for at, each in enumerate(events)]


def _response(identifier: str, body: dict[str, Any]) -> dict[str, Any]:
    """The object of a response as OpenAI has it, before its output."""
    none = ["error", "incomplete_details", "instructions", "max_output_tokens", "max_tool_calls"]
    none += ["previous_response_id", "prompt_cache_key", "safety_identifier", "user"]
    return {
        **dict.fromkeys(none),
        **dict.fromkeys(("created_at", "completed_at"), 1_700_000_000),
        **dict.fromkeys(("frequency_penalty", "presence_penalty"), 0.0),
        **dict.fromkeys(("temperature", "top_p"), 1.0),
        "id": identifier,
        "object": "response",
        "status": "completed",
        "background": False,
        "metadata": {},
        "model": body["model"],
        "output": [],
        "parallel_tool_calls": True,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": body.get("store", True),
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 3,
            "output_tokens": 5,
            "total_tokens": 8,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 2},
        },
    }


def _compaction(said: str) -> dict[str, Any]:
    """What is left of a conversation: what the upstream knows of it, which no one else can read."""
    known = NAME if NAME in said else ""
    usage = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
    details = {
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    item = {"id": "cmp_1", "type": "compaction", "encrypted_content": known}
    compaction = {"id": "resp_cmp_1", "object": "response.compaction", "created_at": 1_700_000_000}
    return {**compaction, "output": [item], "usage": {**usage, **details}}


def _frame(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode())


async def talking(net: Net, **options: Any) -> tuple[Gateway, Talker]:
    """Starts a talker, and a gateway whose `MODELS` it is."""
    talker = Talker()
    url = (await net.upstream(talker)).url
    settings = settings_for(url, **options)
    google = dataclasses.replace(settings.upstreams["up"], name="google", provider="gemini", base_url=url)
    gemini = dataclasses.replace(settings.models["m"], name="gemini", upstream=google)
    running = await start(
        dataclasses.replace(
            settings,
            upstreams={**settings.upstreams, "google": google},
            models={**settings.models, "gemini": gemini},
        )
    )
    net.stack.push_async_callback(running.close)
    net.gateways.append(Gateway(net, running))
    return net.gateways[-1], talker
