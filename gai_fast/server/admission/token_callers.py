"""The callers with tokens: which issuer's token a request has, and what its caller may use.

Owns the order of the checks, and the tokens that were verified. `net/issuers/` reads tokens and has the keys.

1. What costs little is checked first: the form, the issuer, the audience, the times, the name. Then the address must
   not be blocked for wrong keys. Only then the signature is checked.
2. A token whose signature was right is known by its digest until it ends, its issuer's keys change, or another
   configuration comes. A request with a known token costs what one with a key does.
3. A wrong token counts as a wrong key of its address. An expired token does not: clients send it until they have the
   next one. Nor does a token that cannot be checked, because its issuer's keys are not there.
4. A token that cannot be checked, because there are no keys, is answered with 503. If a token names an unknown key
   while keys are being fetched, it is refused (401), but its client may send it again, and the SDKs do
   (`x-should-retry`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from gai_fast.model.errors import Error
from gai_fast.model.settings import IssuerSettings, KeySettings
from gai_fast.net.issuers.fetching import fetch_keys
from gai_fast.net.issuers.key_set import KeySet
from gai_fast.net.issuers.key_source import Fetch, KeySource
from gai_fast.net.issuers.token import Token, TokenError, read_token
from gai_fast.runtime.clock import now_ms
from gai_fast.server.admission.auth_throttle import AuthThrottle
from gai_fast.server.limits import LIMITS

_EXPIRED: Final = "expired"


class _Verified(NamedTuple):
    """A token whose signature was right.

    Attributes:
        caller: Its caller.
        ends_ms: Its end, in milliseconds since the epoch.
        source: The keys of its issuer.
        keys: These keys as they were when the signature was checked.
    """

    caller: KeySettings
    ends_ms: float
    source: KeySource
    keys: KeySet


class TokenCallers:
    """The callers with tokens of one server, on the running loop.

    Args:
        auth_throttle: Counts wrong tokens.
        fetch: Fetches the keys of an issuer.
    """

    def __init__(self, auth_throttle: AuthThrottle, fetch: Fetch = fetch_keys) -> None:
        self._auth_throttle = auth_throttle
        self._fetch = fetch
        self._issuers: Sequence[IssuerSettings] = ()
        self._sources: dict[str, KeySource] = {}  # by URL
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    def use(self, issuers: Sequence[IssuerSettings]) -> None:
        """Accepts tokens of these issuers from now on. The keys of an issuer that stays are kept.

        Args:
            issuers: `[[issuer]]`.
        """
        if issuers == self._issuers:
            return
        urls = {each.url for each in issuers}
        for url in self._sources.keys() - urls:
            self._sources.pop(url).close()
        for url in urls - self._sources.keys():
            self._sources[url] = KeySource(url, self._fetch)
        self._issuers = issuers
        self._verified.clear()

    def close(self) -> None:
        """Accepts no token any more, and fetches no keys."""
        self.use(())

    async def begin(self) -> None:
        """Waits until the keys of each issuer have come or cannot be fetched, at most `limits.issuer_start` seconds."""
        await asyncio.gather(*(source.fetched(LIMITS.issuer_start) for source in self._sources.values()))

    def find(self, text: str, digest: bytes, address: str | None) -> KeySettings:
        """Returns the caller of a token.

        Args:
            text: The token.
            digest: Its `key_digest`; empty if it is too long, or not ASCII.
            address: As for `Callers.find`.

        Raises:
            Unauthorized: The token is refused.
            RateLimited: The address has sent too many wrong keys.
            Overloaded: The token cannot be checked now.
        """
        known = self._verified.get(digest)
        if known is not None and known.source.keys() is known.keys:
            if address is not None:
                self._auth_throttle.note_right(address, known.caller.name)
            if now_ms() >= known.ends_ms:
                raise _refusal(TokenError("has expired: get a new one from its issuer", _EXPIRED))
            return known.caller
        try:
            verified = self._verify(read_token(text), address)
        except TokenError as refused:
            raise self._wrong(refused, address) from None
        self._verified[digest] = verified
        self._verified.move_to_end(digest)
        if len(self._verified) > LIMITS.verified_tokens:
            self._verified.popitem(last=False)
        return verified.caller

    def _verify(self, token: Token, address: str | None) -> _Verified:
        issuer = self._issuer_of(token)
        caller = issuer.caller(token.caller(issuer.claim))
        token.check_time(now_ms() / 1e3)
        source = self._sources[issuer.url]
        keys = source.keys()
        if keys is None:
            raise _not_now(issuer)
        may_have_signed = keys.find(token)
        if not may_have_signed:
            is_fetching = source.may_have_more()
            if source.is_failing:
                raise _not_now(issuer)
            if is_fetching:
                raise _not_yet()
            raise TokenError("is signed with a key that its issuer does not have")
        if address is not None:
            self._auth_throttle.check(address, caller.name)
        if not any(key.has_signed(token) for key in may_have_signed):
            raise TokenError("has a wrong signature")
        if address is not None:
            self._auth_throttle.note_right(address, caller.name)
        return _Verified(caller, token.ends * 1e3, source, keys)

    def _issuer_of(self, token: Token) -> IssuerSettings:
        url = token.claims.get("iss")
        issuers = [each for each in self._issuers if each.url == url]
        if not issuers:
            raise TokenError("has an issuer that is not known here (`iss`)")
        for each in issuers:
            if token.is_for(each.audience):
                return each
        raise TokenError("is for another audience (`aud`)")

    def _wrong(self, refused: TokenError, address: str | None) -> Error:
        """Counts a wrong token, and returns its refusal.

        Raises:
            RateLimited: As `find`.
        """
        if refused.reason != _EXPIRED and address is not None:
            self._auth_throttle.note_wrong(address)
        return _refusal(refused)


def _refusal(refused: TokenError) -> Error:
    return Error("unauthorized", f"this token {refused}", reason=refused.reason)


def _not_yet() -> Error:
    text = "this token is signed with a key that its issuer did not have; its keys are being fetched again"
    return Error("unauthorized", text, reason="token", temporary=True, retry_after_ms=LIMITS.issuer_pause_ms)


def _not_now(issuer: IssuerSettings) -> Error:
    text = f"this token cannot be checked now: the keys of the issuer {issuer.name!r} could not be fetched lately"
    return Error("overloaded", text, reason="issuer", retry_after_ms=LIMITS.issuer_pause_ms)
