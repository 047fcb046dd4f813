"""`gai_fast/runtime/ids.py`: ids are of the promised form, random, from the operating system, and never given twice."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gai_fast.runtime import ids
from gai_fast.runtime.clock import SOURCE


@pytest.fixture(autouse=True)
def nothing_drawn() -> Iterator[None]:
    """Ids made of what a test puts in place of the system's randomness stay in that test."""
    ids._stream_ids.clear()
    ids._request_ids.clear()
    yield
    ids._stream_ids.clear()
    ids._request_ids.clear()


@pytest.mark.parametrize("given", ["a", "req_1.2~3-4", "x" * 128])
def test_a_request_id_that_is_fit_to_be_echoed_is_kept(given: str) -> None:
    assert ids.request_id(given) == given


@pytest.mark.parametrize("given", [None, "", "x" * 129, "a b", "a\r\nb", "ä", "a/b", "<a>"])
def test_any_other_request_id_is_replaced_by_a_uuid7(given: str | None) -> None:
    made = ids.request_id(given)
    assert made != given
    assert uuid.UUID(made).version == 7


def test_a_request_id_is_a_uuid_of_version_7() -> None:
    parsed = uuid.UUID(ids.new_request_id())
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122


def test_a_request_id_begins_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SOURCE, "read", lambda: (0x0123456789AB + 0.5) / 1000)
    assert ids.new_request_id().startswith("01234567-89ab-7")


def test_all_but_time_version_and_variant_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SOURCE, "read", lambda: 0.0)
    monkeypatch.setattr("os.urandom", lambda size: b"\xff" * size)
    assert ids.new_request_id() == "00000000-0000-7fff-bfff-ffffffffffff"
    ids._request_ids.clear()
    monkeypatch.setattr("os.urandom", bytes)
    assert ids.new_request_id() == "00000000-0000-7000-8000-000000000000"


def test_a_stream_id_is_128_random_bits_that_fit_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", ids.new_stream_id()) for _ in range(100))
    asked: list[int] = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return b"\xff" * size

    ids._stream_ids.clear()
    monkeypatch.setattr("os.urandom", urandom)
    drawn = 0
    while len(asked) < 2:
        assert ids.new_stream_id() == "_" * 22
        drawn += 1
    assert asked[0] * 8 >= (drawn - 1) * 128


def test_ids_are_not_repeated() -> None:
    assert len({ids.new_stream_id() for _ in range(10_000)}) == 10_000
    assert len({ids.new_request_id() for _ in range(10_000)}) == 10_000


def test_threads_are_not_given_the_same_id() -> None:
    with ThreadPoolExecutor(4) as threads:
        drawn = [id_ for ids_ in threads.map(lambda _: several(), range(40)) for id_ in ids_]
    assert len(set(drawn)) == len(drawn)


FORKED = """
import os
from gai_fast.runtime import ids
ids.new_stream_id(), ids.new_request_id()
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
print(*(f"{ids.new_stream_id()} {ids.new_request_id()[14:]}" for _ in range(100)), flush=True)
"""


def test_the_two_processes_of_a_fork_are_not_given_the_same_id() -> None:
    drawn = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, check=True, timeout=100).stdout.split()
    assert len(drawn) == len(set(drawn)) == 400


def several() -> list[str]:
    """Ids of both kinds, the random part of those that tell the time."""
    return [ids.new_stream_id() for _ in range(100)] + [ids.new_request_id()[14:] for _ in range(100)]
