"""Recorded answers through a running gateway: run as a script, since one process has one implementation.

An upstream replays the recorded bytes over a socket, head and body cut anywhere; the gateway is asked for them over
`POST /api/v1/stream`, as SSE and as NDJSON. What it answers must be what `gai_fast.decode` makes of the same bytes, but
for what a server may add or change; each of these stands below, and nothing else differs.

    python -m tests.corpus.served

prints a JSON array: the implementation, and for each recording that is not exact the first thing that is wrong with it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

import uvloop

import gai_fast
from gai_fast.model.errors import CLASSES
from gai_fast.model.settings import Secret, ServerSettings, Settings, UpstreamSettings
from gai_fast.server.serving import start
from tests.corpus.recordings import RECORDED, judge_module, name_of, recordings_of
from tests.integration.gateway import Gateway, Net, Peer, Response, run
from tests.wire import chunk

KEY = "sk-canary-0123456789"
ASKED = "asked-for"
"""The start of the id that is asked for. A recorded limit sets a model aside, so each answer has its own."""

FRAMINGS = {"sse": "text/event-stream", "ndjson": "application/x-ndjson"}
REFUSED = {"upstream_credentials": "`api_key`", "upstream_billing": "billing"}
"""By reason: the setting that the message must name."""
_CLOSES = b"Connection: close"
ENVELOPE = {"schema": "gai.events.v1", "ts": 1}


class Wrong(Exception):
    """A difference between a server's stream and `decode`."""


def wrong_unless(is_right: object, *about: object) -> None:
    if not is_right:
        raise Wrong(" ".join(map(repr, about)))


# ---- the upstream ----------------------------------------------------------------------------------------------------


class Replay:
    """An upstream that answers every request with one recording."""

    def __init__(self) -> None:
        self.recording: Any = None

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            answer = whole_answer(self.recording)
            # One piece goes out per turn of the loop, which the gateway shares: so it reads them one by one.
            for piece in judge_module().pieces(answer, "random:served", self.recording.name):
                await peer.send(piece)
            if await closed_after(peer, answer):
                return


async def closed_after(peer: Peer, answer: bytes) -> bool:
    """Closes the connection if nothing else ends the answer's body. Returns whether it did."""
    if _CLOSES not in answer:
        return False
    peer.writer.write_eof()
    await peer.until_gone()
    return True


def whole_answer(recording: Any) -> bytes:
    """Returns the recorded status, headers and body in HTTP/1.1; chunks, its length or the connection end a body."""
    dice = random.Random(recording.name)
    body: bytes = recording.body
    lines = [f"HTTP/1.1 {recording.status} Recorded"]
    lines += [f"{name}: {value}" for name, value in recording.headers.items() if isinstance(value, str)]
    framing = dice.random()
    if framing < 0.25:
        lines.append(f"Content-Length: {len(body)}")
    elif framing < 0.5:
        lines.append(_CLOSES.decode())
    else:
        lines.append("Transfer-Encoding: chunked")
        edges = sorted(dice.sample(range(1, len(body)), min(20, len(body) - 1)))
        pieces = (body[begin:end] for begin, end in zip([0, *edges], [*edges, len(body)], strict=True))
        body = b"".join(map(chunk, pieces)) + b"0\r\n\r\n"
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


# ---- what a server adds and changes ----------------------------------------------------------------------------------


def is_incomplete(usage: Mapping[str, Any]) -> bool:
    """Returns whether a provider has not measured its tokens: a count is missing, or no output is counted."""
    return "total_tokens" not in usage or not usage.get("output_tokens")


def own_events(response: Response, framing: str, upstream: str, decoded: list[Any]) -> list[Any]:
    """Returns the events of `decode`, from a server's stream: without its permitted additions.

    Raises:
        Wrong: What is taken away is not what it must be.
    """
    events = response.events
    # §5 "full has schema, ts, trace_id, request_id on every event; compact on the first only … NDJSON defaults to full"
    for number, event in enumerate(events[:-1]):
        if framing == "ndjson" or number == 0:
            wrong_unless(event.pop("schema") == "gai.events.v1", "schema", event)
            wrong_unless(type(event.pop("ts")) is int, "ts", event)
            wrong_unless(event.pop("request_id") == response.headers["x-request-id"], "request_id", event)
    # §6 "Before the response head is sent, an error has its real status": what is in a stream begins with `start`.
    begin, end, result = events[0], events[-2], decoded[-2]
    wrong_unless(begin["type"] == "start", "an error in place of a stream needs its status", begin)
    # §5 `start`: `stream_id`, `provider_metadata {id, upstream}`; §4 "sent as x-gai-stream-id"
    wrong_unless(begin.pop("stream_id") == response.headers["x-gai-stream-id"], "stream_id", begin)
    wrong_unless(begin["provider_metadata"].pop("upstream") == upstream, "upstream", begin)
    if not begin["provider_metadata"]:
        del begin["provider_metadata"]
    # §5 `start`: "`model` (as the provider reports it, else the `id` asked for)"; `decode` asks for none.
    for event, said in ((begin, decoded[0]), (end, result)):
        if event.get("model", "").startswith(ASKED) and "model" not in said:
            del event["model"]
    # §5 "`cost {amount, currency}` where a price is known": here the provider's own figure, which `decode` has not.
    cost = (end.get("usage") or {}).pop("cost", None)
    if cost is not None:
        amount = cost.pop("amount")
        wrong_unless(cost == {"currency": "USD"} and isinstance(amount, float) and amount >= 0, "cost", amount, cost)
    # §5 "`source` (`counted` | `estimated` | `partial`) only where the provider did not say"
    partial = (end.get("usage") or {}).get("source") == "partial"
    if partial and "usage" in result:
        # §5 "Ends", §4 partial usage: at least what was delivered, by length, which `decode` does not estimate.
        wrong_unless(end["usage"]["output_tokens"] >= result["usage"].get("output_tokens", 0), "usage", end["usage"])
        for key in ("output_tokens", "total_tokens"):
            end["usage"][key] = result["usage"].get(key)
        end["usage"] = {key: value for key, value in end["usage"].items() if key in result["usage"]}
    if "usage" in result and is_incomplete(result["usage"]) and (end.get("usage") or {}).get("source") == "estimated":
        # A count that the provider did not measure is estimated; what it did measure stays.
        measured = {key: count for key, count in result["usage"].items() if count and key != "total_tokens"}
        wrong_unless(measured.items() <= end["usage"].items(), "usage", end["usage"])
        end["usage"] = result["usage"]
    if "usage" in end and "usage" not in result:
        usage = end.pop("usage")
        sources = ("counted", "estimated") if end["type"] == "finish" else ("partial",)
        wrong_unless(list(usage) == ["input_tokens", "output_tokens", "total_tokens", "source"], "usage", usage)
        wrong_unless(usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], "usage", usage)
        wrong_unless(usage["source"] in sources, "usage", usage)
    if end["type"] == "error":
        end["error"] = own_error(end["error"], result, upstream)
    return events


def own_error(served: dict[str, Any], decoded: dict[str, Any], upstream: str) -> dict[str, Any]:
    """Returns the events of `decode`, from the error that a server's client gets.

    Raises:
        Wrong: The upstream refused the gateway, and the client's error does not say so as it should.
    """
    error: dict[str, Any] = decoded["error"]
    # §6 "an upstream that refuses our credentials or account reaches a client as `provider_unavailable`, reason
    # `upstream_credentials` or `upstream_billing` …, `temporary: false`, naming the upstream and the setting; in the
    # library's `decode` it keeps the provider's meaning (`unauthorized`, `forbidden`)"
    if error["code"] not in ("unauthorized", "forbidden") or served.get("reason") not in REFUSED:
        return served
    result = {key: served[key] for key in ("code", "temporary", "phase")}
    promised = {"code": "provider_unavailable", "temporary": False, "phase": error["phase"]}
    wrong_unless(result == promised, served)
    wrong_unless(repr(upstream) in served["message"], "the upstream is not named", served)
    wrong_unless(REFUSED[served["reason"]] in served["message"], "the setting is not named", served)
    return error


def own_refusal(response: Response, upstream: str, decoded: list[Any]) -> list[Any]:
    """Returns the events of `decode`, from an answer that is an error instead of a stream.

    Raises:
        Wrong: Its status, its headers or its moment are not what they should be.
    """
    *before, end, done = decoded
    served = dict(response.error)
    wrong_unless(end["type"] == "error", "refused what is no error", response.status, served)
    # §6 "Before the response head is sent, an error has its real status": nobody gets what came before it.
    begun = [event["type"] for event in before if event["type"].endswith(".delta")]
    wrong_unless(not begun, "its head was due before", begun)
    # §6 "Body: {"error": {…, "request_id"}}"
    wrong_unless(served.pop("request_id") == response.headers["x-request-id"], "request_id", served)
    wrong_unless("x-gai-stream-id" in response.headers, "x-gai-stream-id", response.headers)
    # §6, the table of codes
    statuses = {CLASSES[served["code"]].default_status}
    if served["code"] == "invalid_request":
        statuses |= {405, 406, 409, 411, 413, 414, 415, 417, 422, 426, 431, 501, 505}
    if served.get("reason") in REFUSED:
        statuses = {502}
    wrong_unless(response.status in statuses, "status", response.status, served)
    # §4 "`x-should-retry` (`true` exactly where `temporary` is)"; §6 "an upstream's `internal`: without"
    retry = None if served["code"] == "internal" else str(served["temporary"]).lower()
    wrong_unless(response.headers.get("x-should-retry") == retry, "x-should-retry", response.headers, served)
    # §4 "`retry-after` and `retry-after-ms` on retryable errors"
    wait = str(served["retry_after_ms"]) if "retry_after_ms" in served else None
    wrong_unless(response.headers.get("retry-after-ms") == wait, "retry-after-ms", response.headers, served)
    return [*before, {**end, "error": own_error(served, end, upstream)}, done]


# ---- one recording ---------------------------------------------------------------------------------------------------


def decoded_here(recording: Any) -> list[Any]:
    """Returns the library's events for the same bytes, without its own ids and time."""
    events: list[Any] = list(
        gai_fast.decode(name_of(recording), [recording.body], status=recording.status, headers=recording.headers)
    )
    for key in ("schema", "ts", "request_id"):
        del events[0][key]
    return events


async def compare(gateway: Gateway, recording: Any, framing: str) -> None:
    """Asks the gateway for one recording.

    Raises:
        Wrong: The answer is not what it must be.
    """
    upstream = upstream_of(recording)
    body = {"query": "Tell me a story", "model": f"{upstream}/{ASKED}-{framing}-{recording.name}"}
    response = await gateway.ask("POST", "/api/v1/stream", body, {"accept": FRAMINGS[framing]})
    wrong_unless(response.ended, "the response has no proper end")
    wrong_unless(KEY.encode() not in response.body, "the response holds the key")
    decoded = decoded_here(recording)
    if response.status == 200:
        wrong_unless(response.headers["content-type"].startswith(FRAMINGS[framing]), response.headers)
        events = own_events(response, framing, upstream, decoded)
    else:
        wrong_unless(response.headers["content-type"].startswith("application/json"), response.headers)
        events = own_refusal(response, upstream, decoded)
    for number, (event, want) in enumerate(zip(events, decoded, strict=False)):
        # As text: key order counts, and 1 is not 1.0.
        wrong_unless(json.dumps(event) == json.dumps(want), f"event {number} is", event, "and should be", want)
    wrong_unless(len(events) == len(decoded), "events", len(events), "of", len(decoded))
    judged = list(judged_differences(recording, events))
    wrong_unless(not judged, *judged)


def judged_differences(recording: Any, events: list[Any]) -> Iterator[Any]:
    """Yields the findings of the corpus' own judge in the events of a server."""
    judge = judge_module()
    first = {**ENVELOPE, **events[0]}
    events = [{key: first[key] for key in judge.KEYS if key in first}, *events[1:]]
    result = gai_fast.collect(iter(events))
    found = judge.differences(judge.wanted(recording), events, result, recording.body, recording.status)
    yield from ((where, *judge.shown(right, came)) for where, right, came in found)


def upstream_of(recording: Any) -> str:
    """Returns the name of the upstream that replays recordings of this API."""
    return name_of(recording).replace(":", "-")


def settings_for(recordings: list[Any], url: str) -> Settings:
    """Returns a configuration with an upstream for each API; clients get each failure as it came."""
    apis = {upstream_of(recording): name_of(recording) for recording in recordings}
    upstreams = {
        name: UpstreamSettings(name, api, url, Secret(KEY), retries=0, breaker=None) for name, api in apis.items()
    }
    return Settings(server=ServerSettings(port=0), upstreams=upstreams)


COMPARED: dict[str, int] = {}
"""The number of compared recordings of each provider."""


def differences(provider: str) -> dict[str, str]:
    """Returns the recordings of a provider that are not exact, with the first thing that is wrong with each."""
    found: dict[str, str] = {}

    async def scenario(net: Net) -> None:
        replay = Replay()
        upstream = await net.upstream(replay)
        recordings = recordings_of(provider)
        running = await start(settings_for(recordings, upstream.url))
        net.stack.push_async_callback(running.close)
        gateway = Gateway(net, running)
        net.gateways.append(gateway)
        for recording in recordings:
            replay.recording = recording
            for framing in FRAMINGS:
                try:
                    await compare(gateway, recording, framing)
                except Wrong as wrong:
                    found.setdefault(recording.name, f"{framing}: {wrong}")
            COMPARED[provider] = COMPARED.get(provider, 0) + 1
        net.warned("refuses our")  # some recordings are of a refused key or account

    run(uvloop.new_event_loop, scenario)
    return found


if __name__ == "__main__":
    wrong = {name: what for provider in RECORDED for name, what in differences(provider).items()}
    print(json.dumps([gai_fast.IMPLEMENTATION, COMPARED, wrong]))
