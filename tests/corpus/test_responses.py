"""Every recorded answer in the format `responses`: each event is one of the SDK's, strictly.

`test_sdks.py` has what the SDK's helper makes of them.
"""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from openai.types.responses import ResponseStreamEvent

from gai_fast.core.relay import Relay
from gai_fast.formats import get_format
from gai_fast.providers import get_provider
from tests.corpus.recordings import RECORDED, name_of, recordings_of
from tests.unit.formats.streams import context

pytestmark = pytest.mark.usefixtures("judged")

KINDS = {kind.model_fields["type"].annotation.__args__[0]: kind for kind in get_args(get_args(ResponseStreamEvent)[0])}
"""The SDK's class of each event."""
LAST = ("response.completed", "response.incomplete", "response.failed")


def events_of(recording: Any) -> list[dict[str, Any]]:
    encoder = get_format("responses").encoder("ndjson", context())
    relay = Relay(get_provider(name_of(recording)).adapter("asked"), encoder, deltas=encoder)
    relay.receive_head(recording.status, {name.lower(): value for name, value in recording.headers.items()})
    relay.receive_data(recording.body)
    relay.receive_eof()
    return [json.loads(line) for line in encoder.take().splitlines()]


@pytest.mark.parametrize("provider", RECORDED)
def test_every_event_of_every_recorded_answer_is_one_of_the_sdks(provider: str) -> None:
    for recording in recordings_of(provider):
        events = events_of(recording)
        for number, event in enumerate(events):
            assert event["sequence_number"] == number
            KINDS[event["type"]].model_validate(event)
        assert events[-1]["type"] in LAST
        assert not any(event["type"] in LAST for event in events[:-1])
