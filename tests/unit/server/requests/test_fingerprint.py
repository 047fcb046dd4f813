"""`gai_fast/server/requests/fingerprint.py`: which bodies are equal, and what of them is read at once."""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from gai_fast.server.requests import fingerprint
from gai_fast.server.requests.fingerprint import Fingerprints, sorted_form
from tests.limits import replaced

VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False, allow_infinity=False) | some.text(),
    lambda values: some.lists(values) | some.dictionaries(some.text(), values),
    max_leaves=20,  # Hypothesis takes 0.1 s to make a value of a hundred
)


async def of(body: bytes, *, is_native: bool = True) -> str:
    return await Fingerprints().of(body, is_native=is_native)


def of_earlier_releases(body: bytes) -> str:
    """Returns the fingerprint in claims that earlier releases have written."""
    text = msgspec.json.encode(msgspec.json.decode(body), order="sorted")
    return blake2b(text, digest_size=32, person=b"gai-fast body").hexdigest()


async def test_bodies_with_the_same_members_are_the_same() -> None:
    body = b'{"query": "hi", "seed": 123456789012345678901234567890, "metadata": {"b": [1.5, null], "a": "\\u00e9"}}'
    same = '{"metadata":{"a":"é","b":[1.5,null]},"seed":123456789012345678901234567890,"query":"hi"}'.encode()
    assert await of(body) == await of(same) == of_earlier_releases(body)
    own = b'{"idempotency_key": "k", "request_id": "r", ' + body[1:]
    assert await of(own) == await of(body)
    assert await of(own, is_native=False) != await of(body, is_native=False)
    for other in (b'{"query": "ho"}', b'{"query": "hi", "metadata": {"b": [null, 1.5]}}', b'{"query": ["hi"]}'):
        assert await of(other) != await of(body)


@settings(max_examples=settings().max_examples * 3 // 10)
@given(members=some.dictionaries(some.text(), VALUES), indent=some.sampled_from([0, 1]), size=some.integers(1, 40))
def test_parts_make_the_fingerprint_that_claims_of_earlier_releases_have(
    members: dict[str, Any], indent: int, size: int
) -> None:
    body = msgspec.json.format(msgspec.json.encode(members), indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "LIMITS", replaced(turn_bytes=size))
        text = b"".join(sorted_form(body, is_native=False))
    assert text == msgspec.json.encode(msgspec.json.decode(body), order="sorted")


async def test_the_loop_has_a_turn_after_each_part_of_a_large_body() -> None:
    body = msgspec.json.encode({"messages": [{"role": "user", "content": "hi"}] * 20_000})
    parts = len([*sorted_form(body, is_native=False)])
    assert parts > 10
    working = asyncio.ensure_future(of(body, is_native=False))
    turns = 0
    while not working.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= parts
    assert working.result() == of_earlier_releases(body)


async def test_a_body_that_was_seen_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Fingerprints()
    bodies = [b'{"query": "%d"}' % number for number in range(3)]
    first = [await known.of(body, is_native=True) for body in bodies]
    assert await known.of(bodies[0], is_native=False) == first[0], "no member is left out of it"
    monkeypatch.setattr(fingerprint, "sorted_form", None)
    assert [await known.of(body, is_native=True) for body in bodies] == first


async def test_as_many_bodies_are_remembered_as_the_limit_says_and_the_oldest_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fingerprint, "LIMITS", replaced(known_bodies=2))
    known = Fingerprints()
    for number in (0, 1, 0, 2):
        await known.of(b'{"query": "%d"}' % number, is_native=True)
    monkeypatch.setattr(fingerprint, "sorted_form", None)
    await known.of(b'{"query": "0"}', is_native=True)
    with pytest.raises(TypeError):
        await known.of(b'{"query": "1"}', is_native=True)
