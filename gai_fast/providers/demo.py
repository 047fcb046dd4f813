"""The embedded model: a recorded stream of a real one, replayed with its timing, in the chat dialect.

Asks no upstream and needs no key; the session replays `recording`, made by `tools/record_demo.py`.
"""

from __future__ import annotations

from typing import Final

from gai_fast.providers._base import API
from gai_fast.providers._chat import ChatAPI


class Demo(ChatAPI):
    """The model that answers before anything is configured."""

    provider = "demo"
    recording = "demo_recording.ndjson"


APIS: Final[dict[str, API]] = {"": Demo()}
