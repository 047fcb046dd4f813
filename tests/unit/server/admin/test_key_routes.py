"""What a request about a key may say of itself; tests/integration/test_keys.py asks a whole server."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import KeySettings
from gai_fast.server.admin.bodies import Rotation
from gai_fast.server.admin.key_routes import KeyRoutes, _grace
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.pending import Work
from gai_fast.stores.backend import StoreError
from tests.unit.server import incoming_requests


def test_a_rotation_leaves_an_hour_unless_it_says_otherwise() -> None:
    assert _grace({}) == Rotation().grace == 3600.0
    assert _grace({"grace": 0}) == 0.0
    assert _grace({"grace": LIMITS.key_grace}) == 30 * 86_400.0


@pytest.mark.parametrize("given", [{"grace": value} for value in (-1, "1", True, None, 1e9, [])] + [{"grce": 1}])
def test_another_grace_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(Error) as caught:
        _grace(given)
    assert (caught.value.status, caught.value.reason) == (400, "grace")


@pytest.mark.parametrize("is_lost", [False, True])
async def test_streams_go_on_while_many_keys_are_listed(is_lost: bool) -> None:
    asked = turns = 0
    most: list[int] = []

    async def spent(name: str, period: str) -> int:
        nonlocal asked
        asked += 1
        if is_lost:
            raise StoreError("unreachable", "x")
        return 2 * 10**12

    async def others() -> None:
        nonlocal turns, asked
        while True:
            most.append(asked)
            asked, turns = 0, turns + 1
            await asyncio.sleep(0)

    async def heard() -> None: ...

    named = [KeySettings(f"k{number}", ()) for number in range(1000)]
    engine = SimpleNamespace(settings=SimpleNamespace(keys=named), ledger=SimpleNamespace(spent=spent))
    stored = SimpleNamespace(keys={}, stored=lambda name: None)
    answers: list[Work] = []
    routes = KeyRoutes(engine, stored, heard, lambda _, work: answers.append(work))  # type: ignore[arg-type]  # its parts
    beside = asyncio.create_task(others())
    incoming = incoming_requests.incoming(incoming_requests.http("GET", "/admin/v1/keys"))
    routes.list_all(incoming)
    reply = await answers[0]
    assert reply is not None
    rows = json.loads(reply.body)["data"]
    beside.cancel()
    assert [row["name"] for row in rows] == [key.name for key in named]
    assert {row["spent"] for row in rows} == {None if is_lost else 2.0}
    assert max(most) <= LIMITS.keys_shown
    assert turns >= len(named) / LIMITS.keys_shown


def test_a_body_is_refused_before_anything_is_asked() -> None:
    routes = KeyRoutes(None, None, None, None)  # type: ignore[arg-type]  # they are not used
    for body, status in ((b"x" * (LIMITS.key_body + 1), 413), (b"[]", 400), (b"", 400)):
        incoming = incoming_requests.incoming(
            incoming_requests.http("POST", "/admin/v1/keys", {"content-type": "application/json"}, body=body)
        )
        with pytest.raises(Error) as caught:
            routes.create(incoming)
        assert caught.value.status == status
