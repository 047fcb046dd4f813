"""What one WebSocket remembers of its newest response."""

from __future__ import annotations

import json

from gai_fast.server.requests.newest import Newest
from gai_fast.stores.responses import KeptResponse
from tests.conftest import ChangeLimits


def kept(identifier: str, status: str = "completed", text: str = "") -> KeptResponse:
    return KeptResponse(identifier, "", status, json.dumps([text]).encode(), b'{"output":[]}')


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
    change_limits(socket_conversation=100)
    newest = Newest()
    first = kept("r1", text="x" * 60)
    newest.note(first, ())
    assert newest.is_("r1")
    newest.note(kept("r2", text="x" * 28), [first])
    assert newest.is_("r2"), "60 and 28 characters, and six more of JSON each"
    newest.note(kept("r3", text="x" * 29), [first])
    assert not newest.is_("r2")
    assert not newest.is_("r3")


def test_a_conversation_has_no_more_turns_than_a_chain(change_limits: ChangeLimits) -> None:
    change_limits(socket_chain=2)
    newest = Newest()
    newest.note(kept("r2"), [kept("r1")])
    assert newest.is_("r2")
    newest.note(kept("r3"), [kept("r1"), kept("r2")])
    assert newest.identifier == ""
