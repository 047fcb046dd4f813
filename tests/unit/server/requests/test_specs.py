"""The way from a request to a spec, and which streams are durable."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, Literal

import pytest

from gai_fast.core.session import NamedSession, session_digest
from gai_fast.formats import get_format
from gai_fast.model.errors import Error
from gai_fast.model.request import Request
from gai_fast.model.settings import ANONYMOUS, ModelSettings, Settings, StreamSettings, UpstreamSettings
from gai_fast.net.attempts.spec import StreamSpec
from gai_fast.net.engine.engine import Engine
from gai_fast.server.admission.negotiation import Negotiated
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.specs import SpecBuilder
from tests.guarding import Guarding, Stopping
from tests.unit.server.incoming_requests import http, incoming

OnDisconnect = Literal["auto", "cancel", "detach", "drain"]

SSE = Negotiated(get_format("gai"), "sse", None)
RESPONSES = Negotiated(get_format("responses"), "sse", None)
CHAT = UpstreamSettings("chat", "openai-compatible", "http://127.0.0.1:9/v1")
NATIVE = UpstreamSettings("native", "openai-compatible:responses", "http://127.0.0.1:9/v1")


def builder(on_disconnect: OnDisconnect = "auto") -> SpecBuilder:
    stream = StreamSettings(on_disconnect=on_disconnect, on_unsupported="drop")
    models = {name: ModelSettings(name, upstream, "x", stream) for name, upstream in (("m", CHAT), ("native", NATIVE))}
    settings = Settings(upstreams={"chat": CHAT, "native": NATIVE}, models=models)
    return SpecBuilder(Engine(settings, asyncio.get_running_loop()))


def of_alice(model: str) -> Guarding:
    """Guards what alice asks a model for."""
    return Guarding(lambda stream: Stopping("x") if (stream.model, stream.caller) == (model, "alice") else None)


def posted(format: str = "gai") -> Incoming:
    made = incoming(http("POST", "/", {"host": "127.0.0.1"}), "")
    made.format = get_format(format)
    return made


def responses(made: SpecBuilder, *, is_durable: bool = False, **members: Any) -> StreamSpec:
    asked = get_format("responses").read_request({"model": "m", "input": "hi", "stream": True, **members})
    return made.of_dialect(posted("responses"), asked, RESPONSES, is_durable=is_durable)[0]


@pytest.mark.parametrize(
    ("is_durable", "on_disconnect", "is_logged"),
    [(False, "auto", False), (True, "auto", True), (False, "cancel", False), (False, "detach", True)],
)
async def test_a_stream_is_durable_where_its_request_or_its_model_says_so(
    is_durable: bool, on_disconnect: OnDisconnect, is_logged: bool
) -> None:
    made = builder(on_disconnect)
    spec, context = made.native(posted(), Request(query="hi", model="m"), SSE, is_durable=is_durable)
    assert (spec.log_header is not None, context.ids) == (is_logged, is_logged)
    assert (responses(made, is_durable=is_durable).log_header is not None) == is_logged


async def test_an_answer_in_the_background_is_durable_and_goes_on_to_its_end() -> None:
    spec = responses(builder(), background=True)
    assert spec.log_header is not None
    assert spec.model.stream.on_disconnect == "drain"
    assert responses(builder("cancel"), background=True).model.stream.on_disconnect == "cancel"


async def test_a_whole_answer_is_kept_for_a_key_alone() -> None:
    made = builder("detach")
    request = Request(query="hi", model="m", stream=False)
    assert made.native(posted(), request, SSE, is_durable=False)[0].log_header is None
    header = made.native(posted(), request, SSE, is_durable=True)[0].log_header
    assert header is not None
    assert header.framing == "json"


async def test_a_spec_has_the_session_that_its_client_has_named() -> None:
    made = builder()
    assert responses(made, prompt_cache_key="main").session == NamedSession("main", session_digest("main", ANONYMOUS))
    assert (
        responses(made, model="native", prompt_cache_key="main").session
        == responses(made, prompt_cache_key="main").session
    )
    named = incoming(http("POST", "/", {"host": "127.0.0.1", "x-session-id": "main"}), "")
    spec = made.native(named, Request(query="hi", model="m"), SSE, is_durable=False)[0]
    assert spec.session == NamedSession("main", session_digest("main", ANONYMOUS))
    assert made.native(posted(), Request(query="hi", model="m"), SSE, is_durable=False)[0].session is None


async def test_a_body_passes_where_the_upstream_speaks_its_dialect() -> None:
    spec = responses(builder(), model="native", previous_response_id="resp_1")
    assert isinstance(spec.request, dict)
    assert spec.request["previous_response_id"] == "resp_1"
    assert spec.frames is spec.output
    assert isinstance(responses(builder()).request, Request)


async def test_a_conversation_does_not_move_to_another_dialect() -> None:
    made = builder()
    spec = responses(made, model="native", previous_response_id="resp_1")
    with pytest.raises(Error) as refused:
        spec.to(made.settings.models["m"], has_begun=False)
    assert (refused.value.code, refused.value.reason) == ("unsupported", "conversation")


async def test_tokens_are_counted_by_one_model_alone() -> None:
    made = builder()
    upstream = UpstreamSettings("a", "anthropic", "http://127.0.0.1:9")
    model = ModelSettings("a", upstream, "x", StreamSettings())
    body = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}
    spec, _ = made.count(posted("anthropic"), body, model, None, "")
    assert (spec.counts, spec.hold, spec.request) == (True, True, body)
    with pytest.raises(Error, match="counts other tokens"):
        spec.to(dataclasses.replace(model, name="b"), has_begun=False)


def asking(format: str, caller: str) -> Incoming:
    made = posted(format)
    made.http.caller = caller
    return made


async def test_a_native_stream_is_guarded_by_the_model_that_was_asked_for_and_its_caller() -> None:
    made = builder()
    made._engine.guard_by(of_alice("m"))
    for model, caller, is_guarded in (("m", "alice", True), ("m", "bob", False), ("native", "alice", False)):
        request = Request(query="hi", model=model)
        spec, _ = made.native(asking("gai", caller), request, SSE, is_durable=False)
        assert (spec.chain is not None) is is_guarded
        other = spec.to(made.settings.models["native"], has_begun=False)
        assert other.chain is spec.chain, "a fallback keeps the guards"


@pytest.mark.parametrize("caller", ["alice", "bob"])
@pytest.mark.parametrize("asked", ["m", "native"])
@pytest.mark.parametrize("guarded", ["m", "native"])
async def test_a_guarded_stream_is_written_anew_and_a_fallback_too(caller: str, asked: str, guarded: str) -> None:
    made = builder()
    made._engine.guard_by(of_alice(guarded))
    body = {"model": asked, "input": "hi", "stream": True}
    request = get_format("responses").read_request(body)
    spec, _ = made.of_dialect(asking("responses", caller), request, RESPONSES, is_durable=False)
    is_guarded = caller == "alice" and asked == guarded
    assert (spec.chain is not None) is is_guarded
    assert (spec.frames is None) is (is_guarded or asked == "m")
    fallback = spec.to(made.settings.models["m" if asked == "native" else "native"], has_begun=False)
    assert (fallback.chain is not None) is is_guarded, "the guards are those of the name that was asked for"
    if is_guarded:
        assert fallback.frames is None
        assert fallback.chain is spec.chain


async def test_without_guards_and_processors_nothing_asks_for_a_chain() -> None:
    made = builder()
    assert not made._engine.has_processors
    guarding = of_alice("m")
    made._engine.guard_by(guarding)
    assert made._engine.has_processors
    made._engine.guard_by(None)
    assert not made._engine.has_processors
    made.native(asking("gai", "alice"), Request(query="hi", model="m"), SSE, is_durable=False)
    assert guarding.asked == []
