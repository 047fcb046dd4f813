"""The reaction of a browser's `EventSource` to each answer: it opens, comes back for the rest, or stops for good.

The browser is a model of HTML's section 9.2 and of Fetch's CORS-safelisted headers. The reference's cases, which are
not part of this repository, check the model; `CASES` are the same rules for those who have only the clone.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

import pytest

from tests.integration.gateway import Gateway, Net, Response, on_uvloop
from tests.integration.test_durable import SOON, UNKNOWN, WORDS, Story, frames

START = "/api/v1/stream?q=hi&model=m"
ORIGIN = "https://page.example"
BROWSER = {"accept": "text/event-stream", "cache-control": "no-cache", "origin": ORIGIN}

Outcome = Literal["open", "follow", "fail"]

CASES: list[tuple[int, str | None, Outcome]] = [
    (200, "text/event-stream", "open"),
    (200, "text/event-stream;", "open"),
    (200, "Text/Event-Stream; charset=windows-1252", "open"),
    (200, "text/event-streams", "fail"),
    (200, "application/json", "fail"),
    (200, None, "fail"),
    (201, "text/event-stream", "fail"),
    (204, "text/event-stream", "fail"),
    (404, "text/event-stream", "fail"),
    (503, "text/event-stream", "fail"),
    (302, None, "follow"),
    (307, None, "follow"),
]
REFERENCE = {
    "accept-header": "test_a_browser_that_is_cut_off_gets_the_rest_and_stops_after_the_end",
    "cache-control": "test_a_browser_that_is_cut_off_gets_the_rest_and_stops_after_the_end",
    "reconnect-after-close": "test_a_browser_that_is_cut_off_gets_the_rest_and_stops_after_the_end",
    "cross-origin-safe-id": "test_an_id_that_is_long_or_odd_would_cost_a_preflight",
    "cross-origin-long-id": "test_an_id_that_is_long_or_odd_would_cost_a_preflight",
    "cross-origin-unsafe-id": "test_an_id_that_is_long_or_odd_would_cost_a_preflight",
    "credentials-omitted": "test_a_page_of_a_configured_origin_may_read_without_credentials",
    "credentials-included": "test_a_page_of_a_configured_origin_may_read_without_credentials",
    "bfcache": "test_a_browser_that_is_cut_off_gets_the_rest_and_stops_after_the_end",  # to the server it is a cut
}
"""The reference's cases that are more than an answer, and the test of each."""


def outcome(status: int, content_type: str | None) -> Outcome:
    """Returns the reaction of an `EventSource` to the head of a response."""
    if status in (301, 302, 303, 307, 308):
        return "follow"
    essence = (content_type or "").partition(";")[0].strip().lower()
    return "open" if status == 200 and essence == "text/event-stream" else "fail"


def costs_a_preflight(event_id: str) -> bool:
    """Returns whether a cross-origin reconnect with this `Last-Event-ID` asks first (Fetch, 2.2.2)."""
    unsafe = re.search(r'[\x00-\x08\x0a-\x1f"():<>?@\[\\\]{}\x7f]', event_id)
    return len(event_id.encode()) > 128 or unsafe is not None


@pytest.mark.parametrize(("status", "content_type", "expected"), CASES)
def test_the_model_opens_follows_and_fails_as_a_browser(
    status: int, content_type: str | None, expected: Outcome
) -> None:
    assert outcome(status, content_type) == expected


def test_the_model_agrees_with_the_reference(corpus: Path) -> None:
    cases = json.loads((corpus.parent / "cases/eventsource_http.json").read_text())
    assert len(cases) == 25
    for case in cases:
        if case["name"] not in REFERENCE:
            assert outcome(case["status"], case["content_type"]) == re.split("[;:]", case["expect"])[0], case["name"]


def test_an_id_that_is_long_or_odd_would_cost_a_preflight() -> None:
    assert not costs_a_preflight("abc")
    assert costs_a_preflight("x" * 129)
    assert costs_a_preflight("a<b")
    assert not costs_a_preflight(f"{UNKNOWN}.{10**14}"), "the longest id of an event"


def result(response: Response) -> Outcome:
    return outcome(response.status, response.headers.get("content-type"))


async def come_back(gateway: Gateway, last: str) -> Response:
    """Returns the answer to the automatic reconnect."""
    return await gateway.ask("GET", START, headers={**BROWSER, "last-event-id": last})


@on_uvloop
async def test_a_browser_that_is_cut_off_gets_the_rest_and_stops_after_the_end(net: Net) -> None:
    story = Story()
    upstream = await net.upstream(story)
    gateway = await net.gateway(upstream, allow_get_start=True, cors_origins=(ORIGIN,), commit_after=SOON)
    client = await gateway.connect()
    client.request("GET", START, headers=BROWSER)
    response = await client.response()
    assert result(response) == "open"
    story.go_on(3)
    await response.until(b"2 ")
    assert re.search(rb"^retry: [0-9]+$", bytes(response.body), re.M), "the time until it comes back"
    client.close()
    story.end()
    seen = frames(response.body)
    ids = re.findall(r"^id: (.+)$", b"".join(seen).decode(), re.M)
    rest = await come_back(gateway, ids[-1])
    assert result(rest) == "open"
    assert response.text + rest.text == "".join(WORDS)
    ids += re.findall(r"^id: (.+)$", rest.body.decode(), re.M)
    assert len(set(ids)) == len(ids) == 1 + len(WORDS) + 1
    assert not any(map(costs_a_preflight, ids))
    assert result(await come_back(gateway, ids[-1])) == "fail"
    assert story.requests == 1


@pytest.mark.parametrize("last", [f"{UNKNOWN}.3", "3", "x" * 5000, f"{UNKNOWN}.-1"])
@on_uvloop
async def test_a_browser_whose_stream_is_not_there_stops_and_starts_nothing(net: Net, last: str) -> None:
    story = Story()
    gateway = await net.gateway(await net.upstream(story), allow_get_start=True, cors_origins=(ORIGIN,))
    assert result(await come_back(gateway, last)) == "fail"
    assert story.requests == 0


@on_uvloop
async def test_a_page_of_a_configured_origin_may_read_without_credentials(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3), allow_get_start=True, cors_origins=(ORIGIN,))
    response = await gateway.ask("GET", START, headers=BROWSER)
    assert result(response) == "open"
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-credentials" not in response.headers, "no cookie is ever of use here"
    assert "no-cache" in response.headers["cache-control"]
    foreign = await gateway.ask("GET", START, headers={**BROWSER, "origin": "https://evil.example"})
    assert (foreign.status, result(foreign)) == (403, "fail")
