"""The log of a durable response."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.formats import Framing
from gai_fast.formats.responses.log import final_response, frames_after, last_response
from gai_fast.model.errors import Error
from tests.unit.formats.responses_reader import RESPONSES, streamed
from tests.unit.formats.streams import DONE, START, context, encoded, finish, objects_of, text

TRAP = 'x\n\ndata: {"type":"response.completed","sequence_number":9,"response":{"id":1}}\n\n'


@pytest.mark.parametrize("framing", ["sse", "ndjson"])
def test_the_last_response_counts(framing: Framing) -> None:
    running = streamed(text(TRAP), framing=framing, ids=True)
    complete = streamed(text(TRAP), finish(), DONE, framing=framing, ids=True)
    end = last_response([running, complete[len(running) :]])
    assert end is not None
    assert (end["status"], end["output"][0]["content"][0]["text"]) == ("completed", TRAP)
    begin = last_response([running])
    assert begin is not None
    assert (begin["status"], begin["output"]) == ("in_progress", [])


def test_a_whole_answer_is_the_response() -> None:
    whole = encoded(RESPONSES.whole(context()), [START, text("Hi"), finish(), DONE])
    assert last_response([whole], whole=True) == json.loads(whole)
    assert last_response([b'{ "output": [] }\n'], whole=True) == {"output": []}
    assert final_response({"output": []}, "failed") == {"output": []}


@pytest.mark.parametrize(
    ("body", "output"),
    [
        (b'\xef\xbb\xbf{"output":"Hi"}', "Hi"),
        (b'{"output":"\xff"}', "\ufffd"),
        (b'{"output":"\\ud83d"}', "\ud83d"),
        (b'{"output":12345678901234567890123}', 12345678901234567890123),
    ],
)
def test_an_upstreams_own_answer_is_read_as_the_relay_read_it(body: bytes, output: Any) -> None:
    assert last_response([body], whole=True) == {"output": output}


def test_a_log_that_has_lost_its_beginning_tells_none() -> None:
    assert last_response([]) is None
    assert last_response([b'data: {"type":"response.output_text.delta","sequence_number":7}\n\n']) is None


@pytest.mark.parametrize("status", ["queued", "in_progress", "completed", "failed"])
def test_only_a_response_without_an_end_is_given_one(status: str) -> None:
    error = Error("network", "gone")
    ended = final_response({"id": "r", "status": status}, "failed", error)
    is_running = status in ("queued", "in_progress")
    expected: dict[str, Any] = {"id": "r", "status": "failed", "error": {"code": "server_error", "message": "gone"}}
    assert ended == (expected if is_running else {"id": "r", "status": status})
    assert final_response({"status": "queued"}, "cancelled")["error"] is None


@pytest.mark.parametrize("number", range(-1, 12))
def test_frames_behind_any_number(number: int) -> None:
    body = streamed(text(TRAP), finish(), DONE, ids=True, retry_ms=1)
    rest = frames_after(body, number)
    assert body.endswith(rest)
    assert [one["sequence_number"] for one in objects_of(rest)] == list(range(number + 1, 9))
