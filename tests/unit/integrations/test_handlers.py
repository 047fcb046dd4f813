"""`gai_fast/integrations/_handlers.py`: from a request to the source of its response."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.errors import InvalidRequest
from gai_fast.gateway import Gateway
from gai_fast.integrations._handlers import call, settings_for, source_of
from gai_fast.settings import Settings, StreamSettings

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
    request = {"query": "Hi"}
    assert source_of(Asked(), request, None) == (("stream", request), False)
    assert source_of(Asked(), request, f"{ID}.7") == (("follow", ID, 7), True)


@pytest.mark.parametrize("place", ["", ID, f"{ID}.", f"{ID}.-1", f"{ID}.1 ", "short.1", f"{ID}.{'9' * 16}"])
def test_a_place_that_is_none_is_refused(place: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        source_of(Asked(), {}, place)
    assert caught.value.reason == "last_event_id"


def test_prepare_must_give_a_request() -> None:
    with pytest.raises(TypeError, match="this is str"):
        source_of(Asked(), "Hi", None)


def test_the_gateways_own_settings_are_the_defaults() -> None:
    gateway = Gateway(Settings(stream=StreamSettings(heartbeat=3, retry=5)))
    settings = settings_for(gateway, {"retry": 7})
    assert (settings.heartbeat, settings.retry) == (3, 7)
    assert settings_for(Asked(), {}).heartbeat == StreamSettings().heartbeat
