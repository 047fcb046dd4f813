"""However a recorded answer is cut, it says the same.

Every cut of the first 4 KiB of one recording per shape, 64 seeded cuts of each of the others, four of them in one
decoding, or 16 where another run has four; `make exhaustive` takes every cut of every recording alone. What an answer
says in one piece is judged in `test_recordings.py`.
"""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import gai_fast
from gai_fast.model.limits import KIB
from tests.corpus.recordings import APIS, CORPUS, SECONDS, judge, judge_module
from tests.kernels import IS_REPEATED, is_set

SEEDED = 64
TOGETHER = 1 if is_set("GAI_FAST_EXHAUSTIVE") else 16 if IS_REPEATED else 4
"""Cuts in one decoding, far from each other: of the first 4 KiB, 1 KiB. One alone each takes four times as long."""
VARIES = ("ts", "request_id")


def shapes() -> dict[str, list[str]]:
    """Returns the recordings of the APIs that are built, by shape: who speaks which API."""
    found: dict[str, list[str]] = {}
    expected = CORPUS / "expected.json"
    if expected.is_file():
        for name in sorted(json.loads(expected.read_text())):
            about = json.loads((CORPUS / name).with_suffix(".json").read_text())
            if about["api"] in APIS and about.get("status", 200) == 200:
                found.setdefault(f"{about['provider']} {about['api']}", []).append(name)
    return found


SHAPES = shapes()


def said(provider: str, pieces: list[bytes], headers: dict[str, str]) -> list[dict[str, Any]]:
    events = gai_fast.decode(provider, pieces, headers=headers)
    return [{key: value for key, value in event.items() if key not in VARIES} for event in events]


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("shape", SHAPES or ["no recordings"])
def test_a_cut_changes_nothing(shape: str) -> None:
    judge()
    for number, name in enumerate(SHAPES[shape]):
        path = CORPUS / name
        about = json.loads(path.with_suffix(".json").read_text())
        provider = judge_module().name_of(about["provider"], about["api"])
        headers = {key: value for key, value in (about.get("headers") or {}).items() if isinstance(value, str)}
        body = path.read_bytes()
        if is_set("GAI_FAST_EXHAUSTIVE"):
            cuts: list[int] = list(range(1, len(body)))
        elif number == 0:
            body = body[: 4 * KIB]
            cuts = list(range(1, len(body)))
        else:
            cuts = sorted(random.Random(Path(name).name).sample(range(1, len(body)), min(SEEDED, len(body) - 1)))
        whole = said(provider, [body], headers)
        decodings = -(-len(cuts) // TOGETHER)
        for first in range(decodings):
            some = cuts[first::decodings]
            pieces = [body[begin:end] for begin, end in pairwise([0, *some, len(body)])]
            assert said(provider, pieces, headers) == whole, f"{name} cut at {some}"
