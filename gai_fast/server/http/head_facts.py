"""What the headers of a request say of the answer that its client wants.

Most clients send the same head again and again (`lanes/request_reader.py`), so it is looked up once for all requests
with the same head.
"""

from __future__ import annotations

from typing import Final

from gai_fast.core.session import name_in_headers
from gai_fast.formats.agents import is_agent

UNSUPPORTED_HEADER: Final = "x-gai-unsupported"
"""The header of a request's own choice for fields that its upstream does not support."""


class HeadFacts:
    """The facts that one head has for each request.

    Args:
        headers: The headers, by lower-case name.

    Attributes:
        session: The name of a session, or None.
        is_agent: The client is a coding agent.
        is_retry: The request is a retry by an official SDK.
        unsupported: The value of `UNSUPPORTED_HEADER`, unchecked, or None.
    """

    __slots__ = ("is_agent", "is_retry", "session", "unsupported")

    def __init__(self, headers: dict[str, str]) -> None:
        self.session = name_in_headers(headers)
        self.is_agent = is_agent(headers.get("user-agent"))
        count = headers.get("x-stainless-retry-count")
        self.is_retry = count is not None and count.strip("0").isdecimal()
        self.unsupported = headers.get(UNSUPPORTED_HEADER)
