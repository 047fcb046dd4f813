"""`gai_fast/integrations/_handlers.py`: from a request to the source of its response."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.config import read
from gai_fast.integrations._handlers import call, source_of
from gai_fast.library.gateway import Gateway
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.settings import ModelSettings, Settings, StreamSettings, UpstreamSettings

ID = "s" * 22


class Asked:
    """A gateway that notes what it is asked."""

    is_open = True
    settings = None

    def stream(self, request: Any) -> Any:
        return "stream", request

    def follow(self, stream_id: str, after: Any = None) -> Any:
        return "follow", stream_id, after

    async def __aenter__(self) -> Any:
        raise AssertionError("it is open")


async def test_prepare_may_be_sync_or_async() -> None:
    async def prepare(request: Any) -> Any:
        return request + 1

    assert await call(prepare, 1) == 2
    assert await call(lambda request: request + 1, 1) == 2


def test_a_request_starts_a_stream_and_one_with_a_place_follows_it() -> None:
    request = {"query": "Hi", "request_id": "r"}
    assert source_of(Asked(), request, {}, "sse", {}) == (("stream", request), "sse", StreamSettings(), False, "r")
    source = source_of(Asked(), request, {"last-event-id": f"{ID}.7"}, "ndjson", {"retry": 7})
    assert source == (("follow", ID, 7), "ndjson", StreamSettings(retry=7), True, None)


@pytest.mark.parametrize(
    ("given", "sent", "named"),
    [
        ({}, {"x-request-id": "sent"}, "sent"),
        ({"request_id": "given"}, {"x-request-id": "sent"}, "given"),
        ({}, {"x-request-id": "not one\x7f"}, None),
        ({"request_id": "not\r\none: either"}, {"x-request-id": "sent"}, None),
        ({}, {}, None),
        ({"request_id": 7}, {}, None),
    ],
)
async def test_the_head_and_the_events_have_one_request_id(
    given: dict[str, Any], sent: dict[str, str], named: str | None
) -> None:
    async with Gateway(read(None, environ={}).settings) as gateway:
        source = source_of(gateway, {"query": "Hi", "model": "demo", **given}, sent, "ndjson", {})
        body = source.body(sent)
        refused = await body.begin()
        assert (refused is not None) == (given == {"request_id": 7})
        result = refused.headers if refused else body.headers
        first = json.loads(refused.body if refused else await anext(aiter(body)))
        await body.close()
    sent_id = dict(result)["x-request-id"]
    assert sent_id == (named or sent_id)
    assert sent_id.isprintable()
    assert sent_id == (first["error"] if refused else first)["request_id"]


@pytest.mark.parametrize("place", ["", ID, f"{ID}.", f"{ID}.-1", f"{ID}.1 ", "short.1", f"{ID}.{'9' * 16}"])
def test_a_place_that_is_none_is_refused(place: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        source_of(Asked(), {}, {"last-event-id": place}, "sse", {})
    assert caught.value.reason == "last_event_id"


@pytest.mark.parametrize("text", ['{"temperature": NaN}', f'{{"metadata": {"[" * 300}{"]" * 300}}}'])
def test_a_body_that_is_passed_on_may_be_no_json(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not JSON") as caught:
        source_of(Asked(), json.loads(text), {}, "sse", {})
    assert caught.value.reason == "json"


def test_prepare_must_give_a_request() -> None:
    with pytest.raises(TypeError, match="this is str"):
        source_of(Asked(), "Hi", {}, "sse", {})


@pytest.mark.parametrize(
    ("request_", "heartbeat"), [({"model": "m"}, 5), ({}, 5), ({"model": "unknown"}, 3), ({"model": 7}, 5)]
)
def test_the_settings_of_the_model_are_the_defaults(request_: Any, heartbeat: float) -> None:
    upstream = UpstreamSettings("demo", "demo", "")
    models = {"m": ModelSettings("m", upstream, "m", StreamSettings(heartbeat=5, retry=1))}
    settings = Settings(stream=StreamSettings(heartbeat=3, retry=1), upstreams={"demo": upstream}, models=models)
    source = source_of(Gateway(settings), request_, {}, "sse", {"retry": 7})
    assert (source.stream.heartbeat, source.stream.retry) == (heartbeat, 7)
