"""The embedded model: a recorded stream of a real model in the chat dialect, played with its timing.

Calls no upstream and needs no key. The session plays `recording`, which `tools/record_demo.py` creates.
"""

from __future__ import annotations

from typing import Final

from gai_fast.providers._base import API
from gai_fast.providers._chat import ChatAPI


class Demo(ChatAPI):
    """The model that answers requests without any configuration."""

    provider = "demo"
    recording = "demo_recording.ndjson"


APIS: Final[dict[str, API]] = {"": Demo()}
