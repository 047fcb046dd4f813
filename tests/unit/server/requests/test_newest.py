"""What one WebSocket remembers of its newest response."""

from __future__ import annotations

from typing import Any

from gai_fast.server.requests.newest import Newest
from gai_fast.stores.responses import KeptResponse
from tests.conftest import ChangeLimits


def kept(identifier: str, status: str = "completed") -> KeptResponse:
    return KeptResponse(identifier, "", status, b"[]", b"{}")


def test_the_newest_is_found_and_no_other() -> None:
    newest = Newest()
    assert (newest.find(""), newest.find("r1"), newest.is_("")) == (None, None, False)
    items: list[Any] = [{"role": "user", "content": "hi"}, {"n": 2**70}]
    newest.note(kept("r1"), items)
    found = newest.find("r1")
    assert found == items
    assert found is not None
    found.clear()
    assert newest.find("r1") == items, "who reads it cannot change it"
    newest.note(kept("r2", "failed"), [])
    assert (newest.find("r1"), newest.find("r2"), newest.status) == (None, [], "failed")
    newest.drop()
    assert (newest.find("r2"), newest.status) == (None, "")


def test_what_is_too_large_is_not_remembered_nor_what_was_before(change_limits: ChangeLimits) -> None:
    change_limits(socket_conversation=100)
    newest = Newest()
    newest.note(kept("r1"), ["x" * 96])
    assert newest.is_("r1")
    newest.note(kept("r2"), ["x" * 97])
    assert not newest.is_("r1")
    assert not newest.is_("r2")
