"""Translation of an upstream's errors for clients: secrets that it was sent, and may repeat, are cut out."""

from __future__ import annotations

from collections.abc import Sequence

from gai_fast.model.errors import Error
from gai_fast.model.settings import UpstreamSettings
from gai_fast.model.upstream_errors import for_client
from gai_fast.net.attempts.recording import secrets_of


class ForClient:
    """Translates the errors of an upstream for one client; a `partial` costs a request 0.2 us more.

    Args:
        upstream: The name of the upstream.
        upstreams: All that may have been asked. The keys and headers of each of them are cut out.
        keep_details: As for `for_client`.
    """

    __slots__ = ("_keep_details", "_upstream", "_upstreams")

    def __init__(self, upstream: str, upstreams: Sequence[UpstreamSettings], keep_details: bool) -> None:
        self._upstream = upstream
        self._upstreams = upstreams
        self._keep_details = keep_details

    def __call__(self, error: Error, raw: bytes = b"") -> Error:
        secrets: set[bytes] = set()
        for each in self._upstreams:
            secrets |= secrets_of(None, each.headers)
            for key in (each.api_key, *each.more_api_keys):
                if key is not None:
                    secrets |= secrets_of(key.reveal(), {})
        return for_client(error, self._upstream, keep_details=self._keep_details, secrets=secrets, raw=raw)
