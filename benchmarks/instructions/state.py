"""Counts what kept responses add to requests: `gai-fast serve` with `memory://`, from socket to socket.

A request that is kept is compared with one that is not, a turn of a chain with the same conversation sent whole, and a
turn over a WebSocket with a POST. Each pair is counted in one run of one server.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.instructions.bounds import Ratio
from benchmarks.instructions.cases import ANSWERS, named
from benchmarks.instructions.path import BODY_END, RESPONSES, UPSTREAMS, Server, Upstream, answer_of
from benchmarks.websocket import handshake, message

CHAT: Final = "openai-compatible"
ANTHROPIC: Final = "anthropic"
PASSED: Final = "openai:responses"
FEW: Final = 100
MANY: Final = 1000
"""Deltas of an answer that comes at once."""
TURNS: Final = 200
"""Turns of a chain."""
WARM_UP: Final = 20
REQUESTS: Final = 10
ROUNDS: Final = 3
"""As in `path.py`. The cheapest round counts."""
PARTS: Final = ("kept", "chains", "sockets")
"""What is counted apart."""
_DIGITS: Final = 48 * b"0"
"""The digits of an upstream's ids, which are others in each of its answers, as OpenAI's are."""
_ITEM: Final = b"msg_" + _DIGITS
_COMPLETED: Final = b'{"type":"response.completed"'
_DATA: Final = b"data: "


def measure_state(folder: Path, parts: Sequence[str] = ()) -> dict[str, Ratio]:
    """Returns the instructions of each pair.

    Args:
        folder: An empty folder.
        parts: Which of `PARTS` are counted; empty for all.

    Raises:
        RuntimeError: As `measure_path`.
    """
    with ExitStack() as stack:
        server = _Responses(stack, folder, {CHAT, ANTHROPIC, PASSED})
        counts = {"kept": server.kept, "chains": server.chain, "sockets": server.socket}
        return {name: ratio for part in parts or PARTS for provider in _NAMES for name, ratio in counts[part](provider)}


class _Responses(Server):
    """A server that is asked for responses."""

    _answers = 0

    def kept(self, provider: str) -> Iterator[tuple[str, Ratio]]:
        """Yields what an answer that is kept costs beside one that is not."""
        for count, most in ((FEW, 1.15), (MANY, 1.5)):
            pieces = _answer(provider, count)
            yield (
                f"kept, {_NAMES[provider]}, {count} deltas",
                Ratio(
                    self._posted(_body(provider), pieces),
                    self._posted(_body(provider, store=False), pieces),
                    most,
                ),
            )

    def chain(self, provider: str) -> Iterator[tuple[str, Ratio]]:
        """Yields what a turn of a chain costs beside the same conversation sent whole."""
        items: list[Any] = []
        parent = None
        with self.connected() as client:
            for turn in range(TURNS):
                asked = f"And number {turn}?"
                request = _post(_body(provider, input=asked, previous_response_id=parent))
                answer = self._asked(client, request, _answer(provider, 5), _is_whole)
                data = next(line for line in answer.split(b"\n") if line.startswith(_DATA + _COMPLETED))
                response = json.loads(data.removeprefix(_DATA))["response"]
                parent = response["id"]
                items += [{"role": "user", "content": asked}, *response["output"]]
        pieces = _answer(provider, FEW)
        new = {"role": "user", "content": "hi"}
        yield (
            f"turn {TURNS + 1} of a chain, {_NAMES[provider]}",
            Ratio(
                self._posted(_body(provider, input=[new], previous_response_id=parent), pieces),
                self._posted(_body(provider, input=[*items, new]), pieces),
                1.25,
            ),
        )

    def socket(self, provider: str) -> Iterator[tuple[str, Ratio]]:
        """Yields what a turn over a WebSocket costs beside a POST, and an event beside one of SSE."""
        few, many = (_answer(provider, count) for count in (FEW, MANY))
        body = _body(provider)
        posted, posted_many = self._posted(body, few), self._posted(body, many)
        created, created_many = self._created(body, few), self._created(body, many)
        yield f"turn over a socket, {_NAMES[provider]}, {FEW} deltas", Ratio(created, posted, 1.25)
        more = MANY - FEW
        yield (
            f"event over a socket, {_NAMES[provider]}",
            Ratio((created_many - created) / more, (posted_many - posted) / more, 1.3),
        )

    def _posted(self, body: Mapping[str, Any], pieces: list[bytes]) -> float:
        with self.connected() as client:
            return self._counted(client, _post(body), pieces, _is_whole)

    def _created(self, body: Mapping[str, Any], pieces: list[bytes]) -> float:
        with self.connected() as client:
            client.sendall(handshake(RESPONSES, "127.0.0.1", ""))
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += self.receive(client)
            create = message({"type": "response.create", **body})
            return self._counted(client, create, pieces, _has_completed)

    def _counted(
        self, client: socket.socket, request: bytes, pieces: list[bytes], is_whole: Callable[[bytes], bool]
    ) -> float:
        """Returns the instructions of one request."""
        for _ in range(WARM_UP):
            self._asked(client, request, pieces, is_whole)
        self.begin()
        self._asked(client, request, pieces, is_whole)
        self.counted()
        counts = []
        for _ in range(ROUNDS):
            for _ in range(REQUESTS):
                self._asked(client, request, pieces, is_whole)
            counts.append(self.counted().without_libc)
        return min(counts) / REQUESTS

    def _asked(
        self, client: socket.socket, request: bytes, pieces: list[bytes], is_whole: Callable[[bytes], bool]
    ) -> bytes:
        """Returns the answer to a request.

        Raises:
            RuntimeError: It is not complete.
        """
        client.sendall(request)
        upstream, answer = self.asked_upstream(client), b""
        self._answers += 1
        for piece in pieces:
            upstream.sendall(piece.replace(_DIGITS, b"%048x" % self._answers))
        while not is_whole(answer):
            answer += self.receive(client)
        if _COMPLETED not in answer:
            raise RuntimeError(f"the answer is not what it must be:\n{answer[:2000].decode(errors='replace')}")
        return answer


def _is_whole(answer: bytes) -> bool:
    """Returns whether a response is complete."""
    return answer.endswith(BODY_END)


def _has_completed(messages: bytes) -> bool:
    """Returns whether the last message of a turn has come whole."""
    at = 0
    while at + 10 <= len(messages):
        size = messages[at + 1]
        wide = {126: 2, 127: 8}.get(size, 0)
        begin = at + 2 + wide
        at = begin + (int.from_bytes(messages[at + 2 : begin]) if wide else size)
        if messages.startswith(_COMPLETED, begin):
            return at <= len(messages)
    return False


def _body(provider: str, **more: Any) -> dict[str, Any]:
    named = {name: value for name, value in more.items() if value is not None}
    return {"model": provider.replace(":", "-"), "stream": True, "input": "hi", **named}


def _post(asked: Mapping[str, Any]) -> bytes:
    body = json.dumps(asked).encode()
    head = f"POST {RESPONSES} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return b"%bContent-Length: %d\r\n\r\n%b" % (head.encode(), len(body), body)


def _object(status: str, output: str, usage: str) -> str:
    """Returns a `response` object with the members that OpenAI sends."""
    return (
        f'{{"id":"resp_{_DIGITS.decode()}","object":"response","created_at":1763600000,"status":"{status}","background":false,'
        '"error":null,"incomplete_details":null,"instructions":null,"max_output_tokens":null,"max_tool_calls":null,'
        f'"model":"gpt-5-mini-2025-08-07","output":[{output}],"parallel_tool_calls":true,"previous_response_id":null,'
        '"prompt_cache_key":null,"reasoning":{"effort":"medium","summary":null},"safety_identifier":null,'
        '"service_tier":"auto","store":true,"temperature":1.0,"text":{"format":{"type":"text"},"verbosity":"medium"},'
        '"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":1.0,"truncation":"disabled",'
        f'"usage":{usage},"user":null,"metadata":{{}}}}'
    )


def _passed_delta(text: str, number: str) -> bytes:
    return UPSTREAMS[PASSED].delta(text, number).replace(b"msg_1", _ITEM)


def _passed_opening() -> bytes:
    begun = f'"response":{_object("in_progress", "", "null")}'
    opening = ANSWERS[PASSED][0].partition(b"\n\n")[2].replace(b"msg_1", _ITEM)
    return (
        named("response.created", f'{begun},"sequence_number":0')
        + named("response.in_progress", f'{begun},"sequence_number":1')
        + opening
    )


def _passed_closing(text: str) -> bytes:
    rest, _, _ = UPSTREAMS[PASSED].closing(text).partition(b"event: response.completed\n")
    part = f'{{"type":"output_text","annotations":[],"logprobs":[],"text":"{text}"}}'
    item = f'{{"id":"msg_1","type":"message","status":"completed","content":[{part}],"role":"assistant"}}'
    usage = (
        '{"input_tokens":9,"input_tokens_details":{"cached_tokens":0},"output_tokens":10,'
        '"output_tokens_details":{"reasoning_tokens":0},"total_tokens":19}'
    )
    ended = f'"response":{_object("completed", item, usage)},"sequence_number":204'
    return (rest + named("response.completed", ended)).replace(b"msg_1", _ITEM)


_NAMES: Final = {CHAT: "chat", ANTHROPIC: "Anthropic", PASSED: "passed"}
_PASSED: Final = Upstream(_passed_opening(), _passed_delta, _passed_closing)


def _answer(provider: str, count: int) -> list[bytes]:
    return answer_of(_PASSED if provider == PASSED else UPSTREAMS[provider], count)
