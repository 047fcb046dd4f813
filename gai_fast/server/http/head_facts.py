"""The facts of a request's headers about the answer that its client wants.

Most clients send the same head again and again (`lanes/request_reader.py`), so it is looked up once for all requests
with the same head.
"""

from __future__ import annotations

from typing import Final

from gai_fast.core.session import NamedSession, name_in_headers, session_digest
from gai_fast.formats.agents import is_agent

UNSUPPORTED_HEADER: Final = "x-gai-unsupported"
"""The header of a request's own choice for fields that its upstream does not support."""


class HeadFacts:
    """The facts that one head has for each request.

    Args:
        headers: The headers, by lower-case name.

    Attributes:
        is_agent: The client is a coding agent.
        is_retry: The request is a retry by an official SDK.
        unsupported: The value of `UNSUPPORTED_HEADER`, unchecked, or None.
    """

    def __init__(self, headers: dict[str, str]) -> None:
        self._name = name_in_headers(headers)
        self._named: tuple[str, NamedSession] | None = None
        self.is_agent = is_agent(headers.get("user-agent"))
        count = headers.get("x-stainless-retry-count")
        self.is_retry = count is not None and count.strip("0").isdecimal()
        self.unsupported = headers.get(UNSUPPORTED_HEADER)

    def session(self, caller: str) -> NamedSession | None:
        """Returns the session that the headers name, or None.

        Args:
            caller: The name of the request's caller.
        """
        name = self._name
        if name is None:
            return None
        named = self._named
        if named is None or named[0] != caller:
            named = self._named = caller, NamedSession(name, session_digest(name, caller))
        return named[1]
