"""`cli/dialects/anthropic.py`: every frame names its event."""

from __future__ import annotations

import json

from gai_fast.cli.mock.dialects import DIALECTS
from tests.unit.cli.mock.dialects.answers import BODY


def test_anthropic_names_every_event() -> None:
    answer = DIALECTS["anthropic"](BODY, 1)
    for frame in [*answer.opening(), answer.delta("a"), *answer.closing(1, True), answer.error_frame(429, "x")]:
        name, data = frame.decode().splitlines()[:2]
        assert name.removeprefix("event: ") == json.loads(data[6:])["type"]
