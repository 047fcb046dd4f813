"""What one WebSocket remembers of its newest response."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from gai_fast.core.requests.stored_ids import own_item_id
from gai_fast.runtime.beside import Beside
from gai_fast.server.requests.newest import Newest, Remembered
from gai_fast.stores.responses import KeptResponse
from tests.conftest import ChangeLimits


def kept(identifier: str, status: str = "completed", text: str = "", **members: Any) -> KeptResponse:
    answer = json.dumps({"output": [], **members}, separators=(",", ":")).encode()
    return KeptResponse(identifier, "", status, json.dumps([text]).encode(), answer)


def test_the_newest_is_found_with_the_turns_before_and_no_other() -> None:
    newest = Newest()
    assert (newest.find(""), newest.find("r1"), newest.is_("")) == (None, None, False)
    newest.note(kept("r1"), ())
    assert newest.find("r1") == (kept("r1"),)
    newest.note(kept("r2", "failed"), [kept("r1")])
    assert (newest.find("r1"), newest.find("r2")) == (None, (kept("r1"), kept("r2", "failed")))
    newest.drop()
    assert newest.find("r2") is None


def test_what_is_too_large_is_not_remembered_nor_what_was_before(change_limits: ChangeLimits) -> None:
    change_limits(socket_conversation=96 + 2 * len(b'{"output":[]}'))
    newest = Newest()
    first = kept("r1", text="x" * 60)
    newest.note(first, ())
    assert newest.is_("r1")
    newest.note(kept("r2", text="x" * 28), [first])
    assert newest.is_("r2"), "60 and 28 characters, and four more of JSON each"
    newest.note(kept("r3", text="x" * 29), [first])
    assert not newest.is_("r2")
    assert not newest.is_("r3")


def test_of_a_turn_the_items_alone_are_held(change_limits: ChangeLimits) -> None:
    change_limits(socket_conversation=1_000)
    newest = Newest()
    before: list[KeptResponse] = []
    for number in range(10):
        each = kept(f"r{number}", instructions="x" * 1_000, tools=[{"type": "function", "name": "x" * 1_000}])
        newest.note(each, before)
        before = [*(newest.find(each.identifier) or ())]
        assert [turn.identifier for turn in before] == [f"r{at}" for at in range(number + 1)]
    assert {turn.response for turn in before} == {b'{"output":[]}'}
    newest.note(kept("last"), [kept("first", instructions="x" * 1_000), kept("second")])
    assert [turn.response for turn in newest.find("last") or ()] == [b'{"output":[]}'] * 3, "these come from the store"


def test_the_items_of_the_conversation_are_found_by_their_ids() -> None:
    newest = Newest()
    assert newest.holding(["msg_1"]) == {}
    stream = "a" * 22
    first = kept(f"resp_{stream}")._replace(items=["msg_1", "ws_1"])
    newest.note(first, ())
    newest.note(kept("r2")._replace(items=["msg_1"]), [first])
    found = newest.holding(["msg_1", "ws_1", own_item_id("msg", stream, 0), own_item_id("msg", "b" * 22, 0), "", "x"])
    assert {item: turn.identifier for item, turn in found.items()} == {
        "msg_1": "r2",
        "ws_1": first.identifier,
        own_item_id("msg", stream, 0): first.identifier,
    }
    newest.drop()
    assert newest.holding(["msg_1"]) == {}


def test_a_conversation_has_no_more_turns_than_a_chain(change_limits: ChangeLimits) -> None:
    change_limits(socket_chain=2)
    newest = Newest()
    newest.note(kept("r2"), [kept("r1")])
    assert newest.is_("r2")
    newest.note(kept("r3"), [kept("r1"), kept("r2")])
    assert newest.identifier == ""


# ---- long responses, and all sockets ---------------------------------------------------------------------------------


async def test_a_long_response_is_read_beside_the_loop_and_remembered_then(change_limits: ChangeLimits) -> None:
    change_limits(socket_read=100)
    beside = Beside(asyncio.get_running_loop())
    newest = Newest(beside)
    assert newest.note(kept("short"), ()) is None
    assert newest.is_("short")
    noted = newest.note(kept("long", instructions="x" * 100), ())
    assert noted is not None
    assert newest.find("short") is None
    await noted
    await asyncio.sleep(0)
    assert newest.is_("long")
    noted = newest.note(kept("longer", instructions="x" * 100), ())
    assert noted is not None
    newest.drop()
    await noted
    await asyncio.sleep(0)
    assert not newest.is_("longer"), "forgotten meanwhile"
    beside.close()


def test_the_caller_whose_sockets_remember_the_most_makes_room(change_limits: ChangeLimits) -> None:
    size = len(kept("r", text="x" * 1_000).input) + len(b'{"output":[]}')
    change_limits(socket_conversations=10 * size)
    remembered = Remembered()
    honest = Newest(None, "alice", remembered)
    honest.note(kept("alices", text="x" * 3_000), ())
    many = [Newest(None, "bob", remembered) for _ in range(20)]
    for each in many:
        each.note(kept("bobs", text="x" * 1_000), ())
        assert remembered.size == sum(newest.size for newest in (honest, *many)) <= 10 * size
    assert honest.is_("alices")
    assert sum(each.is_("bobs") for each in many) >= 6
    for each in many:
        each.close()
    assert remembered.size == honest.size
    many[0].note(kept("late"), ())
    assert not many[0].is_("late"), "its socket has ended"
    assert (remembered.forget(1), remembered.size) == (3_000 + size - 1_000, 0)


def test_no_more_is_forgotten_than_makes_room(change_limits: ChangeLimits) -> None:
    change_limits(socket_conversations=64_000)
    remembered = Remembered()
    many = [Newest(None, "alice", remembered) for _ in range(60)]
    for each in many:
        each.note(kept("alices", text="x" * 800), ())
    before = remembered.size
    newest = Newest(None, "bob", remembered)
    newest.note(kept("bobs", text="x" * 20_000), ())
    assert newest.is_("bobs")
    needed = before + newest.size - 64_000
    assert 0 < before + newest.size - remembered.size - needed < many[-1].size + before // 60
    assert remembered.size > 62_000, "each of a caller's sockets makes a little room"
