"""`gai_fast/ids.py`: ids are of the promised form, random, and fresh from the operating system."""

from __future__ import annotations

import re
import uuid

import pytest

from gai_fast import ids


def test_a_request_id_is_a_uuid_of_version_7() -> None:
    parsed = uuid.UUID(ids.new_request_id())
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122


def test_a_request_id_begins_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 0x0123456789AB * 1_000_000)
    assert ids.new_request_id().startswith("01234567-89ab-7")


def test_all_but_time_version_and_variant_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 0)
    monkeypatch.setattr("os.urandom", lambda size: b"\xff" * size)
    assert ids.new_request_id() == "00000000-0000-7fff-bfff-ffffffffffff"
    monkeypatch.setattr("os.urandom", bytes)
    assert ids.new_request_id() == "00000000-0000-7000-8000-000000000000"


def test_a_stream_id_is_128_random_bits_that_fit_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", ids.new_stream_id()) for _ in range(100))
    asked: list[int] = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return b"\xff" * size

    monkeypatch.setattr("os.urandom", urandom)
    assert ids.new_stream_id() == "_" * 21 + "w"
    assert asked == [16]


def test_ids_are_not_repeated() -> None:
    assert len({ids.new_stream_id() for _ in range(10_000)}) == 10_000
    assert len({ids.new_request_id() for _ in range(10_000)}) == 10_000
