"""The same answers three ways: through the fast lane, on aiohttp alone, and mounted in somebody's application.

The route table with every status, requests that strain a parser (`http11_requests.json`), and what an EventSource and
the OpenAI SDK do. What is compared is the status, the headers but for dates and ids, and the shape of the body.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import openai
import pytest
from aiohttp import web

from gai_fast.cli.mock.command import Mock
from gai_fast.model.settings import KeySettings, key_digest
from gai_fast.server.application import build_application
from gai_fast.server.serving import start
from tests.integration.gateway import MESSAGES, QUERY, settings_for
from tests.steady import SteadyLoop
from tests.waiting import SECONDS

WAYS = ("lane", "off", "mounted")
PREFIX = "/gw"
CASES = json.loads((Path(__file__).parent / "http11_requests.json").read_text())["cases"]
SILENCE = 1.5
"""After so many seconds without a byte no further answer comes."""
AT_ONCE = 50
"""Cases under way; each has three connections."""
CHAT = {"model": "m", "messages": MESSAGES}
RESPONSE = {"model": "m", "input": "Tell me a story"}

# aiohttp's own, which its application's author decides about; those of one connection; and those of a moment.
IGNORED = {"server", "date", "connection", "keep-alive", "x-request-id", "request-id", "x-gai-stream-id"}


CHANGING = {"metrics", "created", "created_at", "completed_at", "item_id", "request_id", "id", "stream_id", "url"}
"""Members that differ from one answer to the next."""


class Site(NamedTuple):
    """A server, and what its paths begin with."""

    host: str
    prefix: str


class Answer(NamedTuple):
    """A response, but for what differs from one to the next."""

    status: int
    headers: dict[str, str]
    shape: Any
    is_ours: bool


def shape(value: Any) -> Any:
    """Returns the names and types in a value, and the texts that are not ids, times or counts."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items() if name not in CHANGING}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return value if isinstance(value, str | bool | None) else type(value).__name__


def shape_of(body: bytes, media_type: str) -> Any:
    if media_type.startswith("application/json"):
        return shape(json.loads(body))
    if media_type.startswith("text/event-stream"):
        lines = [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]
        return [line if line == "[DONE]" else shape(json.loads(line)) for line in lines]
    if media_type.startswith("application/x-ndjson"):
        return [shape(json.loads(line)) for line in body.decode().splitlines() if line]
    return "metrics" if b"gai_fast_" in body else body.decode("latin-1")


@asynccontextmanager
async def sites(**options: Any) -> AsyncIterator[dict[str, Site]]:
    """Yields the three ways, in front of one upstream."""
    async with Mock(deltas=3) as mock:
        running = []
        found = {}
        for way in ("lane", "off"):
            settings = settings_for(mock.url, demo=True, **{**options, "fast_lane": "auto" if way == "lane" else "off"})
            running.append(await start(settings))
            found[way] = Site(running[-1].url.removeprefix("http://"), "")
        outer = web.Application()
        outer.add_subapp(PREFIX, build_application(settings_for(mock.url, demo=True, **options)))
        runner = web.AppRunner(outer, shutdown_timeout=0.05, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        found["mounted"] = Site(f"{host}:{port}", PREFIX)
        try:
            yield found
        finally:
            await runner.cleanup()
            for each in running:
                await each.close()
            await asyncio.sleep(0.01)


def run(scenario: Callable[[dict[str, Site]], Any], **options: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(2 * SECONDS), sites(**options) as found:
            await scenario(found)

    with asyncio.Runner(loop_factory=SteadyLoop) as runner:
        runner.run(main())


# ---- one request -----------------------------------------------------------------------------------------------------


async def exchange(site: Site, data: bytes, *, is_head: bool = False, patience: float = SECONDS) -> list[Answer]:
    """The answers to what is sent on one connection, until it ends or is silent; `patience` is for the first."""
    host, port = site.host.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    answers: list[Answer] = []
    try:
        writer.write(data)
        while True:
            async with asyncio.timeout(SILENCE if answers else patience):
                answer = await read_answer(reader, is_head=is_head)
            if answer is None:
                break
            answers.append(answer)
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.transport.abort()
    return answers


async def read_answer(reader: asyncio.StreamReader, *, is_head: bool) -> Answer | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    status = int(first.split(" ")[1])
    body = b""
    if status >= 200 and status != 204 and not is_head:
        body = await read_body(reader, headers)
    kept = {name: value for name, value in headers.items() if name not in IGNORED}
    if kept.get("content-length") != "0":
        kept.pop("content-length", None)  # it tells the length of ids and times
    is_ours = "x-request-id" in headers or status == 100
    media_type = headers.get("content-type", "") if body and is_ours else ""
    return Answer(status, kept, shape_of(body, media_type), is_ours)


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    if headers.get("transfer-encoding") != "chunked":
        return await reader.read()
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


def request(site: Site, method: str, path: str, body: Any = None, **headers: str) -> bytes:
    names = {"host": site.host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    data = b""
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        names = {"content-type": "application/json", "content-length": str(len(data)), **names}
    lines = "".join(f"{name}: {value}\r\n" for name, value in names.items())
    return f"{method} {site.prefix}{path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + data


async def assert_same(found: dict[str, Site], method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """Asks all three ways; the answer that all of them give."""
    asked = [
        exchange(
            site, request(site, method, path, body, **{"connection": "close", **headers}), is_head=method == "HEAD"
        )
        for site in found.values()
    ]
    answers = [answers[0] for answers in await asyncio.gather(*asked)]
    for way, answer in zip(found, answers, strict=True):
        assert answer == answers[0], f"{method} {path} {headers}: {way} differs"
    return answers[0]


# ---- routes ----------------------------------------------------------------------------------------------------------

PATHS = (
    *("/", "/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/m", "/v1/models/nobody"),
    *("/playground/app.js", "/playground/none", "/v1/chat/completions", "/api/v1/stream", "/api/v1/streams"),
    *("/api/v1/streams/x", "/nothing", "/v1/nothing", "/healthz/", "//healthz", "/%68ealthz", "/v1//models"),
)


def test_every_path_answers_every_method_alike() -> None:
    async def scenario(found: dict[str, Site]) -> None:
        statuses = set()
        for path in PATHS:
            for method in "GET HEAD POST PUT DELETE OPTIONS TRACE".split():
                statuses.add((await assert_same(found, method, path)).status)
        assert statuses == {200, 204, 400, 404, 405, 415}

    run(scenario)


BODIES: dict[str, tuple[str, Any, dict[str, str], int]] = {
    "native": ("/api/v1/stream", {**QUERY, "model": "m"}, {}, 200),
    "native, NDJSON": ("/api/v1/stream", {**QUERY, "model": "m"}, {"accept": "application/x-ndjson"}, 200),
    "native, whole": ("/api/v1/stream", {**QUERY, "model": "m", "stream": False}, {}, 200),
    "native, resumable": ("/api/v1/stream", {**QUERY, "model": "m", "resumable": True}, {}, 200),
    "native in OpenAI's format": ("/api/v1/stream?format=openai", {**QUERY, "model": "m"}, {}, 200),
    "chat": ("/v1/chat/completions", {**CHAT, "stream": True}, {}, 200),
    "a response": ("/v1/responses", {**RESPONSE, "stream": True}, {}, 200),
    "a response, whole": ("/v1/responses", RESPONSE, {}, 200),
    "a response in the background": ("/v1/responses", {**RESPONSE, "background": True}, {}, 200),
    "no response": ("/v1/responses", {**RESPONSE, "input": [5]}, {}, 400),
    "no response to cancel": ("/v1/responses/resp_aaaaaaaaaaaaaaaaaaaaaa/cancel", {}, {}, 404),
    "chat, whole": ("/v1/chat/completions", CHAT, {}, 200),
    "messages": ("/v1/messages", {**CHAT, "stream": True}, {}, 200),
    "messages, whole": ("/v1/messages", CHAT, {}, 200),
    "messages passed through": ("/v1/messages", {**CHAT, "model": "claude", "max_tokens": 9, "stream": True}, {}, 200),
    "a key, messages": ("/v1/messages", {**CHAT, "stream": True}, {"idempotency_key": '"k"'}, 200),
    "messages, a header": ("/v1/messages", {**CHAT, "model": "claude"}, {"anthropic_version": "x"}, 400),
    "a count of tokens": ("/v1/messages/count_tokens", CHAT, {}, 200),
    "no JSON, messages": ("/v1/messages", b"{", {}, 400),
    "too large, messages": ("/v1/messages", b"x" * 3000, {}, 413),
    "no JSON": ("/api/v1/stream", b"{", {}, 400),
    "no JSON, chat": ("/v1/chat/completions", b"{", {}, 400),
    "an empty body": ("/api/v1/stream", b"", {}, 400),
    "no model": ("/v1/chat/completions", {**CHAT, "model": "nobody"}, {}, 404),
    "another media type": ("/v1/chat/completions", CHAT, {"content_type": "text/plain"}, 415),
    "a compressed body": ("/api/v1/stream", QUERY, {"content_encoding": "gzip"}, 415),
    "not acceptable": ("/api/v1/stream", QUERY, {"accept": "image/png"}, 406),
    "too large": ("/v1/chat/completions", b"x" * 3000, {}, 413),
    "an unknown host": ("/v1/chat/completions", CHAT, {"host": "evil.example"}, 403),
    "an invalid host": ("/api/v1/stream", QUERY, {"host": "a@b"}, 400),
    "an unknown expectation": ("/v1/chat/completions", CHAT, {"expect": "canary"}, 417),
    "a key": ("/v1/chat/completions", CHAT, {"idempotency_key": "k"}, 200),
    "a key of a stream": ("/v1/chat/completions", {**CHAT, "stream": True}, {"x_idempotency_key": '"k k"'}, 200),
    "a key of a stream for later": ("/api/v1/streams", QUERY, {"idempotency_key": "k"}, 202),
    "no key": ("/api/v1/stream", QUERY, {"idempotency_key": "k k"}, 400),
    "an odd query": ("/api/v1/stream?a=%ff", QUERY, {}, 400),
    "a stream for later": ("/api/v1/streams", QUERY, {}, 202),
}


@pytest.mark.parametrize("name", BODIES)
def test_every_body_is_answered_alike(name: str) -> None:
    path, body, headers, status = BODIES[name]

    async def scenario(found: dict[str, Site]) -> None:
        assert (await assert_same(found, "POST", path, body, **headers)).status == status

    run(scenario, max_body=2000)


def test_pages_and_preflights_are_answered_alike() -> None:
    async def scenario(found: dict[str, Site]) -> None:
        for origin, status in (("https://a.example", 204), ("https://b.example", 403)):
            asks = {"origin": origin, "access_control_request_method": "POST"}
            assert (await assert_same(found, "OPTIONS", "/api/v1/stream", **asks)).status == status
            asks["access_control_request_headers"] = "user-agent,x-mine,x-forwarded-for"
            answer = await assert_same(found, "OPTIONS", "/v1/chat/completions", **asks)
            if status == 204:
                assert answer.headers["access-control-allow-headers"] == "user-agent, x-mine"
                assert answer.headers["vary"] == "Origin, Access-Control-Request-Headers"
            answer = await assert_same(found, "POST", "/api/v1/stream", {**QUERY, "model": "m"}, origin=origin)
            assert ("access-control-allow-origin" in answer.headers) is (status == 204)

    run(scenario, cors_origins=("https://a.example",))


ALICE = "sk-alice-0123456789"
KEYS = (KeySettings("alice", (key_digest(ALICE),)), KeySettings("bob", (key_digest("sk-bob-0123456789"),)))


def test_a_caller_needs_a_key_alike() -> None:
    async def scenario(found: dict[str, Site]) -> None:
        stream = {**QUERY, "model": "m"}
        for path, body in (("/v1/chat/completions", CHAT), ("/api/v1/stream", stream), ("/api/v1/streams", QUERY)):
            whole = 202 if path == "/api/v1/streams" else 200
            for headers, status in (
                ({"authorization": f"Bearer {ALICE}"}, whole),
                ({"x_api_key": ALICE}, whole),
                ({"api_key": ALICE, "authorization": f"bearer {ALICE}"}, whole),
                ({}, 401),
                ({"authorization": "Bearer"}, 401),
                ({"authorization": f"Bearer  {ALICE}"}, whole),
                ({"authorization": "Basic YTpi"}, 401),
                ({"authorization": "Bearer ' OR 1=1--"}, 401),
                ({"authorization": f"Bearer {ALICE}\xe9"}, 401),
                ({"x_api_key": "x" * 6000}, 401),
                ({"x_api_key": "sk-bob-0123456789", "api_key": ALICE}, 401),
                ({"x_api_key": f"{ALICE}\r\nx-api-key: {ALICE}"}, 401),
            ):
                answer = await assert_same(found, "POST", path, body, **headers)
                assert answer.status == status, (path, headers)
                assert (answer.headers.get("www-authenticate") == "Bearer") is (status == 401)
                assert status != 401 or answer.shape["error"]["code"] == "unauthorized"
        for path, status in (("/v1/models", 401), (f"/v1/models?api_key={ALICE}", 401), ("/metrics", 401), ("/", 200)):
            assert (await assert_same(found, "GET", path)).status == status
        for path in ("/healthz", "/readyz", "/playground/app.js"):
            assert (await assert_same(found, "GET", path)).status == 200
        for path in ("/%76%31/models", "//v1/models", "/nothing"):
            assert (await assert_same(found, "GET", path)).status == 404

    run(scenario, keys=KEYS)


def test_a_body_without_a_key_is_not_waited_for() -> None:
    async def scenario(found: dict[str, Site]) -> None:
        for headers in ({}, {"expect": "100-continue"}):
            seen = []
            for site in found.values():
                names = {"host": site.host, "content-type": "application/json", "content-length": "900000", **headers}
                lines = "".join(f"{name}: {value}\r\n" for name, value in names.items())
                seen.append(
                    await exchange(site, f"POST {site.prefix}/api/v1/stream HTTP/1.1\r\n{lines}\r\n{{".encode())
                )
            assert [answer.status for answer in seen[0]] == [401]
            assert seen == [seen[0]] * len(WAYS)

    run(scenario, keys=KEYS)


def test_a_page_asks_without_a_key_whether_it_may_send_one() -> None:
    async def scenario(found: dict[str, Site]) -> None:
        page = {"origin": "https://a.example"}
        asks = {**page, "access_control_request_method": "POST", "access_control_request_headers": "authorization"}
        answer = await assert_same(found, "OPTIONS", "/api/v1/stream", **asks)
        assert answer.status == 204
        assert "authorization" in answer.headers["access-control-allow-headers"]
        refused = await assert_same(found, "POST", "/api/v1/stream", QUERY, **page)
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://a.example")
        assert (await assert_same(found, "OPTIONS", "/api/v1/stream", **page)).status == 401

    run(scenario, keys=KEYS, cors_origins=("https://a.example",))


@pytest.mark.parametrize(("limit", "status"), [("streams", 503), ("streams_per_caller", 429)])
def test_a_stream_above_a_limit_is_refused_alike(limit: str, status: int) -> None:
    async def scenario(found: dict[str, Site]) -> None:
        for path, body in (("/v1/chat/completions", CHAT), ("/api/v1/stream", {**QUERY, "model": "m"})):
            answer = await assert_same(found, "POST", path, body, authorization=f"Bearer {ALICE}")
            assert answer.status == status
            result = (answer.headers["retry-after"], answer.headers["x-should-retry"])
            assert result == ("1", "true")
        assert (await assert_same(found, "GET", "/v1/models", authorization=f"Bearer {ALICE}")).status == 200

    run(scenario, keys=KEYS, **{limit: 0})


def test_without_memory_no_stream_begins_alike() -> None:
    async def scenario(found: dict[str, Site]) -> None:
        body = {**QUERY, "model": "m"}
        for site in found.values():  # each server looks at its memory for the first time soon after its start
            ask = request(site, "POST", "/api/v1/stream", body, connection="close")
            while (await exchange(site, ask))[0].status == 200:
                pass
        answer = await assert_same(found, "POST", "/api/v1/stream", body)
        assert (answer.status, answer.shape["error"]["reason"]) == (503, "memory")
        assert (await assert_same(found, "GET", "/healthz")).status == 200

    run(scenario, memory_high_water=1)


def test_an_event_source_is_answered_alike() -> None:
    async def scenario(found: dict[str, Site]) -> None:
        for path, headers, status in (
            ("/api/v1/stream?q=hi&model=m", {}, 200),
            ("/api/v1/stream?q=hi&model=m", {"last_event_id": f"{'x' * 22}.3"}, 404),
            ("/api/v1/stream?q=hi&model=m", {"last_event_id": "x.3"}, 400),
            (f"/api/v1/streams/{'x' * 22}", {}, 404),
            ("/api/v1/stream?q=hi&model=m", {"sec_fetch_site": "cross-site"}, 403),
            ("/api/v1/stream?q=hi&model=m", {"origin": "http://evil.example"}, 403),
            ("/api/v1/stream", {}, 400),
        ):
            answer = await assert_same(found, "GET", path, accept="text/event-stream", **headers)
            assert answer.status == status
            if status == 200:  # an EventSource goes by the exact media type
                assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"

    run(scenario, allow_get_start=True)


def test_requests_one_after_the_other_on_one_connection_are_answered_alike() -> None:
    async def scenario(found: dict[str, Site]) -> None:
        several = []
        for site in found.values():
            asks = [
                request(site, "POST", "/api/v1/stream", {**QUERY, "model": "m"}),
                request(site, "GET", "/healthz"),
                request(site, "POST", "/v1/chat/completions", {**CHAT, "stream": True}),
                request(site, "POST", "/v1/chat/completions", CHAT, connection="close"),
            ]
            several.append(exchange(site, b"".join(asks)))
        lane, *others = await asyncio.gather(*several)
        assert [answer.status for answer in lane] == [200] * 4
        for answers in others:
            assert answers == lane

    run(scenario)


# ---- requests that strain a parser -----------------------------------------------------------------------------------


def raw(case: dict[str, Any], site: Site) -> bytes:
    text = "".join(part if isinstance(part, str) else part[0] * part[1] for part in case["request"])
    hostname, _, port = site.host.partition(":")
    for name, value in (("{HOST}", site.host), ("{PORT}", port), ("{HOSTNAME}", hostname)):
        text = text.replace(name, value)
    return text.encode("latin-1")


def test_requests_that_strain_a_parser_are_answered_as_they_must_be() -> None:
    async def scenario(found: dict[str, Site]) -> None:
        problems: list[str] = []
        gate = asyncio.Semaphore(AT_ONCE)
        # The application that it is mounted in has no time limits: it waits for the rest of a request for ever.
        patience = {"lane": SECONDS, "off": SECONDS, "mounted": 2 * SILENCE}

        async def one(case: dict[str, Any]) -> None:
            async with gate:
                is_head = raw(case, found["lane"]).startswith(b"HEAD ")
                lane, off, mounted = await asyncio.gather(
                    *(
                        exchange(site, raw(case, site), is_head=is_head, patience=patience[way])
                        for way, site in found.items()
                    )
                )
            statuses = [answer.status for answer in lane]
            if lane != off:
                problems.append(f"{case['id']}: {statuses} and without the lane {[answer.status for answer in off]}")
            if not all(answer.is_ours for answer in lane + off):
                problems.append(f"{case['id']}: {statuses}, in aiohttp's own words")
            if not is_legal(case, statuses):
                problems.append(f"{case['id']}: {statuses}, not {case['expected']}")
            if any(answer.status >= 500 and answer.status not in (501, 505) for answer in lane + off + mounted):
                problems.append(f"{case['id']}: a 5xx")

        await asyncio.gather(*map(one, CASES))
        assert not problems, "\n".join(problems)

    run(scenario, header_timeout=0.5, body_timeout=0.5)


def is_legal(case: dict[str, Any], statuses: list[int]) -> bool:
    """Whether these are statuses that the case allows; `/` takes only GET here, so any other method is a 405."""
    expected, first = case["expected"], statuses[0] if statuses else None
    if first is None:
        return bool(case["close_ok"]) or "close" in expected or "timeout" in expected
    if expected == "Exact(400)":
        return first == 400
    if expected == "Range2xx":
        return 200 <= first < 300 or first == 405
    if expected.startswith("!"):
        return first != int(expected[1:])
    result = {int(code) for code in re.findall(r"\b[1-5][0-9]{2}\b", expected)}
    return first in result or 200 <= first < 300 or first in (400, 403, 404, 405, 408, 413, 415, 505)


# ---- an SDK ----------------------------------------------------------------------------------------------------------


def test_the_openai_sdk_gets_the_same_answers() -> None:
    async def scenario(found: dict[str, Site]) -> None:
        seen = []
        for site in found.values():
            async with openai.AsyncOpenAI(base_url=f"http://{site.host}{site.prefix}/v1", api_key="none") as client:
                models = [model.id async for model in client.models.list()]
                stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
                whole = await client.chat.completions.create(model="m", messages=MESSAGES)
                with pytest.raises(openai.NotFoundError) as caught:
                    await client.chat.completions.create(model="nobody", messages=MESSAGES)
                seen.append((models, text, whole.choices[0].message.content, caught.value.code))
        assert seen[0][1]
        assert seen == [seen[0]] * len(WAYS)

    run(scenario)
