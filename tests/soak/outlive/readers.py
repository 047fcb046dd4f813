"""The readers of the soak: clients that follow a stream by its id, in every format, and what they were sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random
from typing import Any, Final, NamedTuple

from tests.soak.client import Connection, CutError, Reply, SilenceError

BACK: Final = 0.2
"""The longest wait of a client before it comes back, in seconds."""
FORMATS: Final = ("gai", "gai ndjson", "openai", "completions", "anthropic", "responses", "simple", "vercel", "agui")
"""What readers ask for: each format whose frames have words, in SSE; `gai` in NDJSON too."""
BY_NUMBER: Final = "responses number"
"""What a reader asks for that names the `sequence_number` which it has, of a response in the background."""


class Route(NamedTuple):
    """Where streams begin.

    Attributes:
        path: Its path.
        form: The format of its answers.
        asking: Returns a request with a prompt, without its model.
    """

    path: str
    form: str
    asking: Callable[[str], dict[str, Any]]


def _messages_of(tag: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": tag}], "stream": True, "max_tokens": 1000}


ROUTES: Final = (
    Route("/api/v1/stream", "gai", lambda tag: {"query": tag, "resumable": True}),
    Route("/v1/chat/completions", "openai", _messages_of),
    Route("/v1/completions", "completions", lambda tag: {"prompt": tag, "stream": True}),
    Route("/v1/messages", "anthropic", _messages_of),
    Route("/v1/responses", "responses", lambda tag: {"input": tag, "stream": True, "background": True}),
)
"""As many as have no common divisor with `FORMATS`: each meets each."""
BEHIND: Final = (
    "log_behind",
    "the log has not reached the event that this client has seen",
    "this client has seen events that the log has lost: ask for all of it",
)
"""The reason of an error, or its text in formats without one, that a client gets who has what the log has not."""


class Reader:
    """One client of a stream, which comes back after each cut with the number of its last event.

    Args:
        host: Of all servers.
        form: One of `FORMATS`.
        random: Of its waits.
        secret: Of its key. Empty: it has none.

    Attributes:
        text: What it has now.
        ends: The ends that it was sent.
        errors: The reasons of errors that it was sent.
        cuts: How often its connection was cut.
        gaps: How often it was sent that something is void.
        retries: How often it was told when to come back.
        faults: What no reader may be sent, in words.
        is_unknown: Whether it was told that there is no such stream.
        stream_id: The stream. Empty until it is known.
    """

    def __init__(self, host: str, form: str, random: Random, secret: str = "") -> None:
        self.form, _, self._framing = form.partition(" ")
        self.text = ""
        self.ends = 0
        self.errors: list[str] = []
        self.cuts = self.gaps = self.retries = 0
        self.faults: list[str] = []
        self.is_unknown = False
        self.stream_id = ""
        self._host = host
        self._random = random
        self._key = bearer(secret)
        self._last = 0
        self._line = b""
        self._rest = b""

    @property
    def name(self) -> str:
        """Its form."""
        return f"{self.form} {self._framing}".strip()

    async def start(self, path: str, body: Mapping[str, Any], key: str) -> None:
        """Begins a stream, and reads it to its end. Asks again with its key as long as it does not know the id."""
        while not self.ends and not self.stream_id and not self.faults:
            await self._read("POST", path, body, {"idempotency-key": key})
        if self.stream_id:
            await self.follow(self.stream_id)

    async def follow(self, stream_id: str) -> None:
        """Reads a stream to its end."""
        self.stream_id = stream_id
        if self.name == BY_NUMBER:
            await self._follow_by_number(stream_id)
            return
        framing = f"&framing={self._framing}" if self._framing else ""
        while not self.ends and not self.faults:
            after = f"&after={stream_id}.{self._last}" if self._last else ""
            await self._read("GET", f"/api/v1/streams/{stream_id}?format={self.form}{framing}{after}", None, {})

    async def _follow_by_number(self, stream_id: str) -> None:
        while not self.ends and not self.faults:
            after = f"&starting_after={self._last - 1}" if self._last else ""  # they begin with 0
            await self._read("GET", f"/v1/responses/resp_{stream_id}?stream=true{after}", None, {})

    async def _read(self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]) -> None:
        connection: Connection | None = None
        self._rest = b""
        try:
            connection = await Connection.open(self._host)
            reply = await connection.ask(method, path, body, {**headers, **self._key})
            if reply.status == 503:
                await reply.rest()
                raise CutError("busy")
            await self._take(reply)
            if not self.ends:
                self.faults.append(f"{reply.status} without an end")
        except CutError:
            self.cuts += 1
            await asyncio.sleep(self._random.uniform(0, BACK))
        except SilenceError as silence:
            self.faults.append(f"silence: {silence}")
        finally:
            if connection is not None:
                connection.close()

    async def _take(self, reply: Reply) -> None:
        if reply.status != 200:
            body = await reply.rest()
            self.is_unknown = reply.status == 404 or b"this idempotency key is no longer kept" in body
            self.faults.append(f"status {reply.status}: {body[:200]!r}")
            return
        while not reply.ended:
            self._feed(await reply.read())

    def _feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"id: ") and self.name != BY_NUMBER:
                self._number(line[4:].decode())
            elif line.startswith(b"retry: "):
                self.retries += 1
            elif line.startswith((b"data: ", b"{")):
                self._event(line.removeprefix(b"data: "))

    def _number(self, name: str) -> None:
        stream_id, _, number = name.rpartition(".")
        self.stream_id = self.stream_id or stream_id
        if int(number) <= self._last:
            self.faults.append(f"event {number} after {self._last}")
        self._last = int(number)

    def _event(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.ends += self.form in ("openai", "completions", "simple")
            return
        event = json.loads(data)
        if self.name == BY_NUMBER:
            self._number(f"{self.stream_id}.{event['sequence_number'] + 1}")
        if self.form == "gai":
            self._native(event)
        else:
            kind, value = _READ[self.form](event)
            if kind == "text":
                self.text += value
            elif kind == "end":
                self.ends += 1
            elif kind == "error":
                self.errors.append(value)
                self.ends += 1

    def _native(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if self._framing and "seq" in event:
            self._number(f"{self.stream_id or event.get('stream_id', '')}.{event['seq']}")
        if kind == "text.delta":
            self.text += event["text"]
        elif kind == "stream.gap":
            self.gaps += 1
            self.text = event["text"]
        elif kind == "error":
            self.errors.append(event["error"].get("reason") or event["error"]["code"])
        elif kind == "done":
            self.ends += 1


_Read = tuple[str, str]
_NONE: Final = ("", "")


def _chat(event: dict[str, Any]) -> _Read:
    if "error" in event:
        return "error", _reason(event["error"])
    return "text", "".join(each["delta"].get("content") or "" for each in event["choices"])


def _completions(event: dict[str, Any]) -> _Read:
    if "error" in event:
        return "error", _reason(event["error"])
    return "text", "".join(each.get("text") or "" for each in event["choices"])


def _messages(event: dict[str, Any]) -> _Read:
    if event["type"] == "content_block_delta":
        return "text", event["delta"].get("text", "")
    if event["type"] == "error":
        return "error", _reason(event["error"])
    return ("end", "") if event["type"] == "message_stop" else _NONE


def _responses(event: dict[str, Any]) -> _Read:
    if event["type"] == "response.output_text.delta":
        return "text", event["delta"]
    if event["type"] == "error":
        return "error", _reason(event)
    if event["type"] == "response.failed":
        return "error", _reason(event["response"]["error"])
    return ("end", "") if event["type"] == "response.completed" else _NONE


def _simple(event: dict[str, Any]) -> _Read:
    return ("error", event["error"]) if "error" in event else ("text", event["content"])


def _vercel(event: dict[str, Any]) -> _Read:
    if event["type"] == "text-delta":
        return "text", event["delta"]
    if event["type"] == "error":
        return "error", event["errorText"]
    return ("end", "") if event["type"] == "finish" else _NONE


def _agui(event: dict[str, Any]) -> _Read:
    if event["type"] == "TEXT_MESSAGE_CONTENT":
        return "text", event["delta"]
    if event["type"] == "RUN_ERROR":
        return "error", event["message"]
    return ("end", "") if event["type"] == "RUN_FINISHED" else _NONE


_READ: Final = {
    "openai": _chat, "completions": _completions, "anthropic": _messages, "responses": _responses, "simple": _simple,
    "vercel": _vercel, "agui": _agui,
}  # fmt: skip


def bearer(secret: str) -> dict[str, str]:
    """Returns the headers that name a key. Empty without a secret."""
    return {"authorization": f"Bearer {secret}"} if secret else {}


def _reason(error: Mapping[str, Any]) -> str:
    with suppress(KeyError, TypeError):
        return str(error["reason"])
    return str(error.get("message"))
