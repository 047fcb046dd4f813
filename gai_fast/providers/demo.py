"""The embedded model: a recorded stream of a real model in the chat dialect, played with its timing.

Calls no upstream and needs no key. The session plays `recording`, which `tools/record_demo.py` creates: whatever is
asked, but no more tokens than the request allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson

from gai_fast.providers.chat.api import ChatAPI
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.routes import NOWHERE
from gai_fast.providers.requests.target import UpstreamRequest

_END: Final = 2  # the recording's last reads: the finish reason and [DONE]


class Demo(ChatAPI):
    """The model that answers requests without any configuration."""

    provider = "demo"
    routes = NOWHERE
    recording = "demo_recording.ndjson"
    description = "a recorded answer, whatever is asked"

    def recorded(self, request: UpstreamRequest, reads: Sequence[tuple[float, bytes]]) -> Sequence[tuple[float, bytes]]:
        """Returns the reads up to the request's limit of tokens, of which a read with content has one."""
        asked = orjson.loads(request.body)
        most = asked.get("max_completion_tokens") or asked.get("max_tokens")
        tokens = [place for place, (_, data) in enumerate(reads) if b'"content"' in data]
        if not isinstance(most, int) or not 0 < most < len(tokens):
            return reads
        at = reads[tokens[most]][0]
        end = [(at, data.replace(b'"stop"', b'"length"')) for _, data in reads[-_END:]]
        return [*reads[: tokens[most]], *end]


APIS: Final[dict[str, API]] = {"": Demo()}
