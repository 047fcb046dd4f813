"""Recorded answers, damaged: no exception, no hang, one legal end, and errors with one of the codes.

What a cut in two must not change is tried in `test_splits.py`; here what comes is not what was sent. The usual run
takes a seeded part of the cuts and all other damage; `make exhaustive` takes every cut of every recording.
"""

from __future__ import annotations

import random
from importlib import import_module
from typing import Any

import pytest

import gai_fast
from gai_fast.model.errors import CLASSES
from gai_fast.model.limits import KIB
from gai_fast.providers import PROVIDERS
from tests.corpus.recordings import RECORDED, SECONDS, judge_module, name_of, recordings, recordings_of
from tests.kernels import IS_REPEATED, is_set
from tests.legal import check_legal

pytestmark = [pytest.mark.usefixtures("judged"), pytest.mark.timeout(SECONDS)]

# To end at each byte of 4 KiB takes four times as long; places beyond are taken of every recording.
HEAD = 2 * KIB
BEYOND = 128
FLIPS = 2_500 if IS_REPEATED else 10_000

# The usual run: so many cuts of each recording's first 2 KiB and beyond.
SEEDED_IN_HEAD, SEEDED_BEYOND = 24, 8

APIS = [f"{name}:{api}".removesuffix(":") for name in RECORDED for api in import_module(PROVIDERS[name]).APIS]
"""Every name that an answer can be read as."""
UNRECORDED = {
    "anthropic:vertex",
    "gemini:vertex",
    "groq:responses",
    "openai-compatible:completions",
    "perplexity:responses",
}
"""The names without a recording."""


def check(name: str, body: bytes, recording: Any, dice: random.Random) -> list[Any]:
    """Decodes a body, half of the time in pieces, and looks at what it says."""
    chunks = [body] if dice.random() < 0.5 else judge_module().pieces(body, "random:damaged", str(dice.random()))
    events: list[Any] = list(gai_fast.decode(name, chunks, status=recording.status, headers=recording.headers))
    check_legal(events, numbered=True)
    for event in events:
        if event["type"] == "error":
            assert event["error"]["code"] in CLASSES
            assert event["error"]["message"]
            assert type(event["error"]["temporary"]) is bool
    return events


def cuts(body: bytes, dice: random.Random, *, is_first: bool) -> list[int]:
    """Returns the places at which a recording is cut off."""
    if is_set("GAI_FAST_EXHAUSTIVE"):
        return list(range(len(body)))
    head, beyond = range(min(HEAD, len(body))), range(HEAD, len(body))
    if is_first and not IS_REPEATED:
        return [*head, *dice.sample(beyond, min(BEYOND, len(beyond)))]
    return [
        *dice.sample(head, min(SEEDED_IN_HEAD, len(head))),
        *dice.sample(beyond, min(SEEDED_BEYOND, len(beyond))),
    ]


@pytest.mark.parametrize("name", APIS)
def test_an_answer_may_end_anywhere(name: str) -> None:
    """At every byte of the first 2 KiB of a recording per API and at 128 places beyond; at seeded places of others."""
    of_this_api = [recording for recording in recordings() if name_of(recording) == name]
    assert bool(of_this_api) is (name not in UNRECORDED)
    for number, recording in enumerate(sorted(of_this_api, key=lambda one: one.status)):
        dice = random.Random(f"cut {recording.name}")
        for cut in cuts(recording.body, dice, is_first=number == 0):
            check(name, recording.body[:cut], recording, dice)


@pytest.mark.parametrize("number", range(10))
def test_a_byte_may_be_another(number: int) -> None:
    for case in range(number, FLIPS, 10):
        dice = random.Random(f"flip {case}")
        recording = recordings()[case % len(recordings())]
        body = bytearray(recording.body)
        body[dice.randrange(len(body))] ^= dice.randrange(1, 256)
        check(name_of(recording), bytes(body), recording, dice)


def test_another_answer_may_follow() -> None:
    for recording in recordings():
        dice = random.Random(f"another {recording.name}")
        name = name_of(recording)
        of_its_own = [other for other in recordings_of(name.partition(":")[0]) if other.api == recording.api]
        for other in (recording, dice.choice(of_its_own), dice.choice(recordings())):
            check(name, recording.body + other.body, recording, dice)


def test_line_ends_may_be_of_another_kind() -> None:
    """SSE and JSON take CRLF for LF, and so does NDJSON as everybody reads it: the answer is the same."""
    for recording in recordings():
        dice = random.Random(f"lines {recording.name}")
        name = name_of(recording)
        plain = check(name, recording.body, recording, dice)
        converted = check(name, recording.body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), recording, dice)
        for key in ("ts", "request_id"):
            del plain[0][key], converted[0][key]
        assert converted == plain, recording.name


@pytest.mark.parametrize("provider", RECORDED)
def test_an_answer_may_be_read_as_another_providers(provider: str) -> None:
    for recording in recordings_of(provider):
        dice = random.Random(f"wrong {recording.name}")
        for name in dice.sample(APIS, len(APIS) // 4) if IS_REPEATED else APIS:
            check(name, recording.body, recording, dice)
