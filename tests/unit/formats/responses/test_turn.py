"""How a `response.create` differs from the body of a POST, and the response that nothing is generated for."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.formats.responses.turn import body_of_turn, prepared_frames
from gai_fast.model.errors import Error
from tests.unit.formats.responses_reader import RESPONSES, checked
from tests.unit.formats.streams import context


@pytest.mark.parametrize(
    ("message", "body", "generates"),
    [
        ({"input": "a"}, {"input": "a", "stream": True}, True),
        ({"stream": False, "stream_options": {"a": 1}, "stream_id": None}, {"stream": True}, True),
        ({"generate": True, "background": False}, {"background": False, "stream": True}, True),
        ({"generate": None}, {"stream": True}, True),
        ({"generate": False}, {"input": [], "stream": True}, False),
        ({"generate": False, "input": "a"}, {"input": "a", "stream": True}, False),
    ],
)
def test_members_of_the_socket_are_not_in_the_body(message: Any, body: Any, generates: bool) -> None:
    assert body_of_turn({"type": "response.create", **message}) == (body, generates)


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ({"background": True}, "unsupported", "background"),
        ({"stream_id": "a"}, "unsupported", "stream_id"),
        ({"stream_id": ""}, "unsupported", "stream_id"),
        ({"generate": 0}, "invalid_request", None),
        ({"background": "no"}, "invalid_request", None),
    ],
)
def test_what_a_socket_does_not_have_is_refused(message: Any, code: str, param: str | None) -> None:
    with pytest.raises(Error) as caught:
        body_of_turn(message)
    assert caught.value.code == code
    if param is not None:
        assert (caught.value.param, caught.value.reason, caught.value.status) == (param, "socket", 400)


def test_a_prepared_response_is_created_and_completed() -> None:
    frames = prepared_frames(RESPONSES.encoder("sse", context(echo={"instructions": "be brief"})))
    created, completed = checked(b"".join(frames))
    assert (created["type"], completed["type"]) == ("response.created", "response.completed")
    assert completed["response"]["output"] == []
    assert completed["response"]["instructions"] == "be brief"
    assert completed["response"]["usage"]["total_tokens"] == 0
