"""Every recorded answer in the format `responses`: each event is one of the SDK's, and its helper takes them all."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from openai import omit
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent

from gai_fast.formats import get_format
from gai_fast.providers import get_provider
from gai_fast.relay import Relay
from tests.corpus.recordings import RECORDED, name_of, recordings_of
from tests.unit.formats.streams import context

pytestmark = [
    pytest.mark.usefixtures("judged"),
    # The SDK serializes an item that it has read once, with a warning for each type of item that it is not.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
]

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
def test_the_sdk_takes_every_recorded_answer(provider: str) -> None:
    for recording in recordings_of(provider):
        state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
        events = events_of(recording)
        for number, event in enumerate(events):
            assert event["sequence_number"] == number
            KINDS[event["type"]].model_validate(event)
            state.handle_event(construct_type(type_=ResponseStreamEvent, value=event))
        assert events[-1]["type"] in LAST
        assert not any(event["type"] in LAST for event in events[:-1])
