"""The address of a client behind proxies: which headers count, and which of their addresses is the client's.

Owns the rule. Only the proxies of `forwarded_allow_ips` are believed:

1. Each proxy adds the address that it was reached from at the end of `X-Forwarded-For`. So the last address that is no
   believed proxy's is the client's; the client may have made up the entries before it.
2. `Forwarded` (RFC 7239) is read in the same way. A proxy that writes one of the two headers passes on the other as the
   client has sent it: if both are there and do not agree, neither counts.
3. If an entry is no address (`unknown`, `_hidden`), the entries before it do not count.
4. A request with any sign of a proxy comes from this machine only if a trusted proxy names nothing but loopback
   addresses in these headers.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

from gai_fast.model.addresses import Networks, is_loopback
from gai_fast.model.limits import SHARED
from gai_fast.server.limits import LIMITS

_PROXY_HEADERS: Final = frozenset(("forwarded", "via", "x-real-ip", "true-client-ip"))
_PROXY_PREFIXES: Final = ("x-forwarded-", "cf-")
"""Headers that proxies and content networks add to a request; a client that asks directly sends none of them."""
_PAIR: Final = r"""([\w!#$%&'*+.^`|~-]++)=(?:"((?:[^"\\]|\\.)*+)"|([^\s",;]*+))"""
_PAIRS: Final = re.compile(_PAIR, re.A)
_ELEMENT: Final = re.compile(rf"[ \t]*+(?:{_PAIR})?+(?:[ \t]*+;[ \t]*+(?:{_PAIR})?+)*+[ \t]*+", re.A)
"""An element of `Forwarded` (RFC 7239, 4)."""
_WITH_PORT: Final = re.compile(r"\[([^\]]*)\](?::[^:]*)?|([^:]*):[^:]*")


class Forwarding:
    """The proxies of one server.

    Args:
        names: `forwarded_allow_ips`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._networks = Networks(names)
        self._known = lru_cache(SHARED.known_values)(self._networks.has)

    def trusts(self, peer: str) -> bool:
        """Returns whether a connection comes from a proxy that is believed.

        Args:
            peer: Its address; empty: a unix socket.
        """
        return bool(self._networks) and self._known(peer)

    def client(self, peer: str, headers: Mapping[str, str]) -> str:
        """Returns the address of the client that has sent a request.

        Args:
            peer: The address that the connection comes from; empty: a unix socket.
            headers: Of the request, by lower-case name; repeated ones joined with ", ".
        """
        if not self.trusts(peer):
            return peer
        listed, elements = headers.get("x-forwarded-for"), headers.get("forwarded")
        address = None if listed is None else self._first(peer, reversed(listed.split(",")))
        also = None if elements is None else self._first(peer, _origins(elements))
        if address is None or also is None:
            return address or also or peer
        return address if address == also else peer

    def is_local(self, peer: str, headers: Mapping[str, str]) -> bool:
        """Returns whether a request comes from this machine: rule 4.

        A proxy that adds no header cannot be distinguished from a client on this machine.

        Args:
            peer: The address that the connection comes from; empty: a unix socket.
            headers: As for `client`.
        """
        if not any(map(is_set_by_proxy, headers)):
            return not peer or is_loopback(peer)
        listed, elements = headers.get("x-forwarded-for"), headers.get("forwarded")
        entries = [] if listed is None else listed.split(",")
        if elements is not None:
            entries += _origins(elements)
        is_named = self.trusts(peer) and 0 < len(entries) <= LIMITS.forwarded_hops
        return is_named and all(is_loopback(_address(entry)) for entry in entries)

    def _first(self, peer: str, entries: Iterable[str]) -> str:
        """Returns the first address that does not belong to a proxy: rule 1.

        Args:
            peer: The last proxy.
            entries: The last one first.
        """
        for address in _addresses(entries):
            peer = address
            if not self._known(address):
                break
        return peer


NO_TRUSTED_PROXY: Final = Forwarding(())
"""The settings that trust no proxy."""


def is_set_by_proxy(name: str) -> bool:
    """Returns whether proxies set a header.

    Args:
        name: In lower case.
    """
    return name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIXES)


def _addresses(entries: Iterable[str]) -> Iterator[str]:
    """Yields the entries up to the first that is no address: rule 3."""
    for _, entry in zip(range(LIMITS.forwarded_hops), entries, strict=False):
        text = _address(entry)
        if not text:
            return
        yield text


def _address(entry: str) -> str:
    """Returns the address in an entry, without its port; empty if it is none."""
    text = entry.strip()
    found = None if _is_address(text) else _WITH_PORT.fullmatch(text)
    if found is not None:
        text = found[1] or found[2] or ""
    return text if _is_address(text) else ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # an IPv6 zone is of the proxy's machine alone, and may be any text


def _origins(elements: str) -> Iterator[str]:
    """Yields the address that each element of `Forwarded` names as the request's origin, the last first; empty: none.

    A proxy may quote what its client has sent (`host`), with `,` and `;` in it. It closes each string, so that no text
    that begins within one is an element up to its end. The first text that is no element ends the reading.
    """
    elements = elements[-LIMITS.forwarded_text :]
    start = end = len(elements)
    for _ in range(LIMITS.forwarded_hops):
        start = elements.rfind(",", 0, start)
        found = _ELEMENT.fullmatch(elements, start + 1, end)
        if found is not None:
            names = {pair[1].lower(): pair[2] or pair[3] or "" for pair in _PAIRS.finditer(found[0])}
            yield names.get("for", "")
            end = start
        if start < 0:
            return
