"""The clients of the runs: each has one, comes back after each cut, and decides what its run asks for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple

from tests.soak.client import Connection, CutError, Reply
from tests.soak.kill_runs.plans import Place, RunPlan, place_of

BACK: Final = 0.2
"""The longest wait of a client before it comes back, in seconds."""
_DECIDED_IN: Final = 0.6
"""The longest time that a person takes, in seconds."""
_STATUS_OF_ENDS: Final = (404, 502)


class Got(NamedTuple):
    """A response that has ended.

    Attributes:
        status: Its status.
        headers: Its headers.
        body: Its body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Told:
    """What a client has been told of its run. Times are monotonic seconds.

    Attributes:
        stream_id: The stream. Empty until it is known.
        known: When its stream was known. 0 before.
        events: The numbered events that it has, by number: what a gap voids it has no more.
        seen: Each result that it has seen: the call's id and the event.
        ends: The ends that it has seen: `finish` or the reason of an error.
        ended: When it has seen the first one. 0 before.
        lost: The streams that it was told of, and which are unknown: when each was known. 0 for one that it was not
            told of, and whose key is not free.
        cuts: How often it was cut off.
        decided: When each decision that counted was sent.
        answers: The statuses of decisions, 0 for a cut, and when each came.
        faults: What no client may be told, in words.
    """

    stream_id: str = ""
    known: float = 0.0
    events: dict[int, dict[str, Any]] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    ended: float = 0.0
    lost: list[float] = field(default_factory=list)
    cuts: int = 0
    decided: dict[Place, float] = field(default_factory=dict)
    answers: list[tuple[int, float]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


async def fetch(host: str, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Got:
    """Returns a whole response.

    Raises:
        CutError: The server has closed before its end.
        SilenceError: Nothing came for long.
    """
    connection = await Connection.open(host)
    try:
        reply = await connection.ask(method, path, body, headers or {})
        return Got(reply.status, reply.headers, await reply.rest())
    finally:
        connection.close()


class RunClient:
    """The client of one run.

    Args:
        plan: The run.
        host: Returns a server that runs.
        random: Of its waits.
        is_kept: Whether the store outlives a worker. If not, an unknown stream is the end.

    Attributes:
        told: What it has been told so far.
    """

    def __init__(self, plan: RunPlan, host: Callable[[], str], random: Random, *, is_kept: bool) -> None:
        self.plan = plan
        self.told = Told()
        self._host = host
        self._random = random
        self._is_kept = is_kept
        self._key = plan.tag
        self._last = 0
        self._rest = b""
        self._calls: dict[str, Place] = {}
        self._people: dict[str, asyncio.Task[None]] = {}  # by approval

    async def run(self) -> None:
        """Asks for the run, and reads it to its end."""
        try:
            while not self.told.ends and not self.told.faults:
                try:
                    await (self._ask_whole() if self.plan.form == "whole" else self._read_on())
                except CutError:
                    self.told.cuts += 1
                    await self._pause()
        finally:
            for person in self._people.values():
                person.cancel()
            await asyncio.gather(*self._people.values(), return_exceptions=True)

    async def _pause(self) -> None:
        await asyncio.sleep(self._random.uniform(0, BACK))

    def _asking(self, **more: Any) -> tuple[dict[str, Any], dict[str, str]]:
        return {"model": "m", "query": self.plan.tag, **more}, {"idempotency-key": self._key}

    # -- a whole answer --

    async def _ask_whole(self) -> None:
        body, headers = self._asking(stream=False)
        answer = await fetch(self._host(), "POST", "/api/v1/stream", body, headers)
        if answer.status == 503:
            await self._pause()
        elif answer.status == 200:
            self.told.stream_id = answer.headers["x-gai-stream-id"]
            self._end("finish")
        else:
            self._refused(answer.status, answer.body)

    # -- a stream --

    async def kept(self) -> Got:
        """Asks once more: for all that is kept of the stream, or with the key of the whole answer."""
        if self.plan.form != "whole":
            return await self._until_answered("GET", f"/api/v1/streams/{self.told.stream_id}")
        body, headers = self._asking(stream=False)
        return await self._until_answered("POST", "/api/v1/stream", body, headers)

    async def _until_answered(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Got:
        while True:
            try:
                answer = await fetch(self._host(), method, path, body, headers)
                if answer.status != 503:
                    return answer
            except CutError:
                pass
            await self._pause()

    async def _read_on(self) -> None:
        if not self.told.stream_id and self.plan.form == "start":
            body, headers = self._asking()
            answer = await fetch(self._host(), "POST", "/api/v1/streams", body, headers | {"x-gai-approvals": "ask"})
            if answer.status == 202:
                self._know(json.loads(answer.body)["id"])
            elif answer.status != 503:
                self._refused(answer.status, answer.body)
            else:
                await self._pause()
            return
        connection = await Connection.open(self._host())
        try:
            if self.told.stream_id:
                after = f"?after={self.told.stream_id}.{self._last}" if self._last else ""
                reply = await connection.ask("GET", f"/api/v1/streams/{self.told.stream_id}{after}")
            else:
                body, headers = self._asking(resumable=True)
                reply = await connection.ask("POST", "/api/v1/stream", body, headers | {"x-gai-approvals": "ask"})
            await self._take(reply)
        finally:
            connection.close()

    async def _take(self, reply: Reply) -> None:
        if reply.status == 503:
            await reply.rest()
            await self._pause()
        elif reply.status == 404 and self._is_kept:
            await reply.rest()
            self.told.lost.append(self.told.known)  # its key is free
            self.told.stream_id, self._last = "", 0
            self.told.seen.clear()
            self.told.events.clear()
        elif reply.status != 200:
            self._refused(reply.status, await reply.rest())
        else:
            self._rest = b""
            while not reply.ended:
                self._feed(await reply.read())

    def _refused(self, status: int, body: bytes) -> None:
        if status in _STATUS_OF_ENDS and not self._is_kept:
            self._end(f"status {status}")
        elif status == 409 and b'"idempotency_expired"' in body and not self.told.stream_id:
            self.told.lost.append(0.0)
            self._key += "-again"  # as it is told
        else:
            self.told.faults.append(f"status {status}: {body[:300]!r}")

    def _know(self, stream_id: str) -> None:
        if stream_id != self.told.stream_id:
            self.told.stream_id, self.told.known = stream_id, time.monotonic()

    def _feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"id: "):
                name, _, number = line[4:].decode().rpartition(".")
                self._know(name)
                if int(number) <= self._last:
                    self.told.faults.append(f"event {number} after {self._last}")
                self._last = int(number)
            elif line.startswith(b"data: "):
                self._event(json.loads(line[6:]))

    def _event(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "stream.gap":
            self.told.events = {number: each for number, each in self.told.events.items() if number < event["from"]}
        if "seq" in event:
            self.told.events[event["seq"]] = event
        if kind == "tool.call":
            self._calls[event["call_id"]] = place_of(event["tool_call"]["input"])
        elif kind == "tool.result":
            self.told.seen.append((event["call_id"], event))
        elif kind == "approval.required":
            approval = event["approval"]
            if approval["id"] not in self._people:
                deciding = self._decide(self._calls[event["call_id"]], approval)
                self._people[approval["id"]] = asyncio.create_task(deciding)
        elif kind == "finish":
            self._end("finish")
        elif kind == "error":
            self._end(str(event["error"].get("reason") or event["error"]["code"]))

    def _end(self, what: str) -> None:
        self.told.ends.append(what)
        self.told.ended = self.told.ended or time.monotonic()

    async def _decide(self, place: Place, approval: Mapping[str, Any]) -> None:
        """Decides as the plan has it, by whichever server answers."""
        decision = "deny" if place in self.plan.denied else "approve"
        body = {"decision": decision, "digest": approval["digest"], "reason": "no"}
        path = f"/api/v1/streams/{self.told.stream_id}/approvals/{approval['id']}"
        await asyncio.sleep(self._random.uniform(0, _DECIDED_IN))
        self.told.decided.setdefault(place, time.monotonic())  # a decision without an answer may count
        while True:
            try:
                answer = await fetch(self._host(), "POST", path, body)
            except CutError:
                answer = None
            self.told.answers.append((0 if answer is None else answer.status, round(time.monotonic(), 3)))
            is_over = (200, 409) if self._is_kept else (200, 409, *_STATUS_OF_ENDS)
            if answer is not None and answer.status in is_over:
                return
            if answer is not None and answer.status not in (404, 503):
                self.told.faults.append(f"a decision: status {answer.status}: {answer.body[:300]!r}")
                return
            await self._pause()
