"""Metadata and the client's address of a call, as headers for the gateway.

Owns which metadata goes on, and the header that names the client. Everything else of a client stays here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from gai_fast.model.errors import Error
from gai_fast.model.settings import Secret
from gai_fast.runtime.ids import request_id

_PASSED: Final = ("authorization", "idempotency-key", "traceparent", "x-request-id")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def gateway_headers(
    metadata: Iterable[tuple[str, str | bytes]] | None, peer: str, key: Secret | None
) -> dict[str, str]:
    """Returns the headers of a call's requests to the gateway.

    Args:
        metadata: Of the call.
        peer: The client, as grpcio names it.
        key: The key of calls that bring none.

    Raises:
        InvalidRequest: An entry that is passed on is there twice, or cannot be a header: grpcio's own clients refuse
            control characters, its server does not.
    """
    headers: dict[str, str] = {}
    for name, value in metadata or ():
        if name in _PASSED:
            if name in headers:
                text = f"the metadata has {name} twice: send it once"
                raise Error("invalid_request", text, reason="metadata")
            headers[name] = str(value)
            if name != "x-request-id" and _CONTROL.search(headers[name]):  # a bad id is replaced
                raise Error("invalid_request", f"{name} in the metadata has control characters", reason="metadata")
    if "authorization" not in headers and key is not None:
        headers["authorization"] = f"Bearer {key.reveal()}"
    headers["x-request-id"] = request_id(headers.get("x-request-id"))
    address = address_of_peer(peer)
    if address:
        headers["x-forwarded-for"] = address
    return headers


def place_of_peer(peer: str) -> tuple[str, int]:
    """Returns a client's address and port; an empty address and 0 if it has none.

    Args:
        peer: As grpcio names it: `ipv4:192.0.2.1:5000`, `ipv6:[2001:db8::1]:5000`, its brackets escaped, or `unix:`.
    """
    family, _, place = unquote(peer).partition(":")
    address, _, port = place.rpartition(":")
    return (address.strip("[]"), int(port)) if family in ("ipv4", "ipv6") and port.isdecimal() else ("", 0)


def address_of_peer(peer: str) -> str:
    """Returns a client's address; empty if it has none.

    Args:
        peer: As for `place_of_peer`.
    """
    return place_of_peer(peer)[0]
