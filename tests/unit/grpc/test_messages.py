"""`gai_fast/grpc/messages.py`: descriptors, and events in protobuf's wire format.

`integration/test_grpc.py` compares the descriptors with what protobuf's compiler makes of the proto.
"""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.grpc import messages
from gai_fast.kernels import encode_json
from gai_fast.model.errors import InvalidRequest, Network
from tests.unit.formats.every_event import EVERY_EVENT


@pytest.mark.parametrize("event", EVERY_EVENT, ids=lambda event: event["type"])
def test_each_event_is_whole(event: Any) -> None:
    text = encode_json(event).decode()
    message = messages.read("Event", messages.event_message(event, text))
    assert (message.type, message.seq) == (event["type"], event.get("seq", 0))
    assert message.json.decode() == text
    is_text = event["type"] in ("text.delta", "reasoning.delta", "refusal.delta")
    assert message.text == (event["text"] if is_text else "")


NEW: Any = {"type": "new", "seq": 3}


def test_an_event_of_a_type_that_is_not_known_goes_through() -> None:
    message = messages.read("Event", messages.event_message(NEW, "{}"))
    assert (message.type, message.seq, message.text, message.json) == ("new", 3, "", b"{}")


@pytest.mark.parametrize(
    "event",
    [
        {"type": "text.delta", "seq": 2**64, "text": "a"},
        {"type": "text.delta", "seq": -1, "text": "a"},
        {"type": "text.delta", "seq": 2, "text": 1},
        {"type": "text.delta", "seq": 2, "text": "\ud800"},
        {"type": "\ud800", "seq": 2},
    ],
)
def test_what_is_no_event_is_the_gateways_failure(event: Any) -> None:
    with pytest.raises(Network, match="not an event"):
        messages.event_message(event, "{}")


def test_what_is_no_message_is_an_invalid_request() -> None:
    with pytest.raises(InvalidRequest, match=r"gai\.v1\.FollowRequest"):
        messages.read("FollowRequest", b"\xff")


def test_a_message_within_a_message_is_written() -> None:
    data = messages.written("ListModelsResponse", models=[{"id": "m", "json": b"{}"}])
    (model,) = messages.read("ListModelsResponse", data).models
    assert (model.id, model.json) == ("m", b"{}")
