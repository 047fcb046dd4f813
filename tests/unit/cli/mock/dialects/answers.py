"""A request to the mock, and the JSON of a frame."""

from __future__ import annotations

import json
from typing import Any

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1000, "stream": True}


def chunks(frame: bytes) -> list[Any]:
    """Returns the JSON of every data line."""
    lines = frame.decode().splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
