"""`server/requests/kinds/`: a request is read once, whatever its gates do; tests/integration has its answers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gai_fast.core.requests.stored_ids import StoredId
from gai_fast.formats import FORMATS, get_format
from gai_fast.model.errors import Error
from gai_fast.model.request import CheckedBody
from gai_fast.model.settings import KeySettings, ModelSettings, Settings, UpstreamSettings
from gai_fast.net.engine.engine import Engine
from gai_fast.server.requests.gates import go_on
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.kinds import dialect, native
from gai_fast.server.requests.kinds.dialect import DialectPassage
from gai_fast.server.requests.kinds.stream_routes import StreamRoutes
from gai_fast.server.requests.passage import Passage
from gai_fast.server.requests.stream_passage import PassageHome
from tests.limits import LIMITS
from tests.unit.server.incoming_requests import http, incoming
from tests.unit.server.requests.test_stream_response import FakeConnection

UPSTREAM = UpstreamSettings("up", "openai", "http://127.0.0.1:9/v1")
SETTINGS = Settings(upstreams={"up": UPSTREAM}, models={"m": ModelSettings("m", UPSTREAM, "x")})
NATIVE = b'{"query": "a", "extra": {"file_id": "file-1"}}'
CHAT = b'{"model": "m", "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]}'


@pytest.fixture
async def routes() -> AsyncIterator[StreamRoutes]:
    engine = Engine(SETTINGS, asyncio.get_running_loop())
    yield StreamRoutes(engine)
    await engine.close()


def asked(body: bytes, format: str) -> Incoming:
    request = http("POST", "/", {"host": "127.0.0.1", "content-type": "application/json"}, client=FakeConnection())
    request.body = body
    made = incoming(request, format=format)
    made.http.set_key(KeySettings("ann", ()))
    return made


@pytest.mark.interpreted
@pytest.mark.parametrize(
    ("handler", "body", "format", "parser"),
    [
        (StreamRoutes.native, NATIVE, "gai", "parse_request"),
        (StreamRoutes.start, NATIVE, "gai", "parse_request"),
        (StreamRoutes.dialect, CHAT, "openai", "parse_object"),
    ],
)
async def test_a_request_that_names_ids_is_parsed_once(
    routes: StreamRoutes,
    handler: Callable[[StreamRoutes, Incoming], Passage],
    body: bytes,
    format: str,
    parser: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = dialect if parser == "parse_object" else native
    parse, parsed = getattr(module, parser), []

    def counting(text: bytes) -> object:
        parsed.append(text)
        return parse(text)

    monkeypatch.setattr(module, parser, counting)
    passage = handler(routes, asked(body, format))
    left = iter(routes.gates.of(frozenset(("named ids", "admission"))))
    wait = go_on(passage, left)
    assert wait is not None
    assert [each.identifier for each in passage.named] == ["file-1"]
    with pytest.raises(Error, match="file-1"):
        await wait()
    await routes.gates._engine.store.ids.add("ann", ["file-1"])
    assert await wait() is None
    assert go_on(passage, left) is None
    passage.leave()
    assert len(parsed) == 1
    assert passage.stream_id


async def test_without_keys_nothing_is_checked(routes: StreamRoutes) -> None:
    made = asked(NATIVE, "gai")
    made.http.set_key(None)
    passage = routes.native(made)
    assert go_on(passage, iter(routes.gates.of(frozenset(("named ids", "admission"))))) is None
    assert passage.named == ()
    assert StoredId("file_id", "file-1") not in passage.named


def test_dialects_of_the_native_routes_have_nothing_that_is_left_out_for_everybody() -> None:
    """So `on_unsupported` decides there as on a dialect's own route, whose specs ask `without_refusal`."""
    shared = [form for form in map(get_format, FORMATS) if form.shares_native_routes]
    assert {form.name for form in shared} == {"vercel", "agui"}
    for form in shared:
        lost = ["store", "tools[0]", "forwardedProps.x", "messages[0].parts[0]"]
        assert form.without_refusal({"tools": [{"type": "tool_search_tool_regex"}]}, lost) == []


ATTRIBUTED = (
    b'{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "system": ['
    b'{"type": "text", "text": "x-anthropic-billing-header: a"}, {"type": "text", "text": "You help."}]}'
)


@pytest.mark.parametrize(("attribution", "texts"), [("auto", 1), ("cut", 1), ("keep", 2)])
async def test_a_large_request_is_translated_once_before_it_is_planned(attribution: Any, texts: int) -> None:
    """What is read beside the loop is what is sent, with or without the client's attribution."""
    upstream = dataclasses.replace(UPSTREAM, attribution=attribution)
    settings = Settings(upstreams={"up": upstream}, models={"m": ModelSettings("m", upstream, "x")})
    engine = Engine(settings, asyncio.get_running_loop())
    body = CheckedBody(ATTRIBUTED)
    body.containers = LIMITS.turn_containers + 1
    request = asked(body, "anthropic")
    request.http.set_key(None)
    passage = DialectPassage(request, PassageHome(engine))
    passage.read()
    assert passage.rest is not None
    passage.rest()
    read = passage._asked
    passage.plan()
    await engine.close()
    given = read.attributed if attribution == "keep" else read.native
    assert (read.native is None, read.attributed is None) == (attribution == "keep", attribution != "keep")
    assert isinstance(given, tuple)
    assert passage.spec is not None
    assert passage.spec.request is given[0]
    assert len(given[0].messages[0].content) == texts
