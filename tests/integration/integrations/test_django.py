"""`gai_fast/integrations/django.py`: what is Django's own."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

import gai_fast
from tests.integration.gateway import Net, on_both_loops, on_uvloop, settings_for
from tests.integration.integrations.stacks import Site, configure_django, serve
from tests.waiting import until

pytest.importorskip("django")
from gai_fast.integrations import django as integration

configure_django()


async def texts() -> AsyncIterator[str]:
    yield "Hello"


@pytest.mark.parametrize("name", ["write_timeout", "commit_after", "compression"])
def test_what_a_response_cannot_do_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"no keyword '{name}'"):
        integration.sse_response(texts(), **{name: 1})
    if name == "write_timeout":
        with pytest.raises(TypeError, match="no keyword"):
            integration.sse_handler(gai_fast.Gateway(), lambda request: {}, **{name: 1})


def test_a_view_that_resumes_is_a_handler() -> None:
    with pytest.raises(TypeError, match="`sse_handler`"):
        integration.sse_response(texts(), request=None)


def test_an_error_of_a_view_is_a_response_with_its_status() -> None:
    from django.test import RequestFactory

    error = gai_fast.RateLimited(message="slow down", retry_after_ms=1500)
    response = integration.error_response(error, request=RequestFactory().get("/", headers={"X-Request-ID": "mine"}))
    assert (response.status_code, response["retry-after"], response["x-request-id"]) == (429, "2", "mine")
    assert response["content-type"] == "application/json"
    assert json.loads(response.content)["error"]["code"] == "rate_limited"
    assert json.loads(integration.error_response(error).content)["error"]["request_id"]


def test_a_source_is_an_async_iterable_or_an_iterator() -> None:
    with pytest.raises(TypeError, match="this is list"):
        integration.ndjson_response([])


@on_both_loops
async def test_the_first_requests_open_the_gateway_once(net: Net) -> None:
    upstream = await net.mock(deltas=8)
    gateway = gai_fast.Gateway(settings_for(upstream.url))
    thread: list[str] = []

    def prepare(request: Any) -> Any:
        thread.append(threading.current_thread().name)
        return {"query": request.GET["q"]}

    served = await serve(net, "django-uvicorn", Site(handlers={"ask": ("sse", prepare)}, gateway=gateway))
    answers = await asyncio.gather(*(served.ask("ask?q=Hi") for _ in range(3)))
    assert [answer.types[-1] for answer in answers] == ["done"] * 3
    assert threading.current_thread().name not in thread, "a sync function runs as Django's sync views do"
    await gateway.__aexit__(None, None, None)


@on_uvloop
async def test_prepare_may_answer_by_itself(net: Net) -> None:
    from django.http import HttpResponse

    site = Site(handlers={"ask": ("sse", lambda request: HttpResponse(status=401))}, gateway=gai_fast.Gateway())
    served = await serve(net, "django-uvicorn", site)
    assert (await served.ask("ask")).status == 401


async def test_a_stream_whose_response_is_never_sent_is_closed() -> None:
    stream = gai_fast.Stream()
    integration.sse_response(stream).close()
    with pytest.raises(gai_fast.Network):
        while True:
            await stream.send("a")
            await asyncio.sleep(0)


@pytest.mark.parametrize("is_closed", [True, False])
async def test_a_response_that_is_not_sent_ends_its_source(is_closed: bool) -> None:
    """Also if Django only drops it, because its client disconnects while middleware has it."""
    seen: list[str] = []

    class Gateway:
        is_open = True

        def stream(self, request: Any) -> Any:
            return self.events()

        async def events(self) -> AsyncIterator[str]:
            try:
                yield "a"
                await asyncio.Event().wait()
            finally:
                seen.append("closed")

    from django.test import AsyncRequestFactory

    view = integration.sse_handler(Gateway(), lambda request: {})
    response = await view(AsyncRequestFactory().get("/"))
    if is_closed:
        await asyncio.to_thread(response.close)
    del response
    gc.collect()
    await until(lambda: seen)
