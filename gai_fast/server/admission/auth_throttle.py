"""Wrong keys: how many an address may send until it is refused.

Owns the rule:

1. An address may send `limits.wrong_keys` wrong keys within a minute, which begins with the first. Then it is blocked
   until that minute has passed.
2. A blocked address is refused every key, right or wrong, so that it cannot guess on. The keys that it has come with
   before are excepted: callers that share an address with a guesser go on.
3. The addresses of one IPv6 network of 64 bits, which a host changes at will, count as one.

Knows no header and no digest.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from gai_fast.model.addresses import client_network
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.server.limits import LIMITS

_log: Final = logging.getLogger("gai_fast.server")


class Tally:
    """The wrong keys of one address in one minute.

    Attributes:
        count: Their number.
        ends: The end of the minute, in monotonic seconds.
    """

    def __init__(self, ends: float) -> None:
        self.count = 0
        self.ends = ends


class AuthThrottle:
    """The wrong keys that addresses have sent, and the right ones.

    Args:
        clock: Monotonic seconds.

    Attributes:
        report: Called with the address of each wrong key, as `client_network` returns it. None if no other process
            counts it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.report: Callable[[str], None] | None = None
        self._clock = clock
        self._tallies: OrderedDict[str, Tally] = OrderedDict()
        self._admitted: OrderedDict[tuple[str, str], None] = OrderedDict()

    def note_wrong(self, address: str) -> None:
        """Counts a wrong key.

        Args:
            address: The client's address; empty for a unix socket.

        Raises:
            RateLimited: The address is blocked.
        """
        name = client_network(address)
        now = self._clock()
        tally = self._tally(name, now)
        if tally.count < LIMITS.wrong_keys:
            self._add(tally, name, 1)
            if self.report is not None:
                self.report(name)
        else:
            raise _refusal(tally, now)

    def note_others(self, name: str, count: int) -> None:
        """Counts wrong keys that another worker has got.

        Args:
            name: The address, in the form of `client_network`.
            count: Their number.
        """
        self._add(self._tally(name, self._clock()), name, count)

    def note_right(self, address: str, key: str) -> None:
        """Notes a right key.

        Args:
            address: As for `note_wrong`.
            key: Its name.

        Raises:
            RateLimited: The address is blocked, and has not been admitted with this key before.
        """
        pair = (client_network(address), key)
        if pair in self._admitted:
            self._admitted.move_to_end(pair)
            return
        self.check(address, key)
        self._admitted[pair] = None
        if len(self._admitted) > LIMITS.known_callers:
            self._admitted.popitem(last=False)

    def check(self, address: str, key: str) -> None:
        """Checks whether an address may send a key whose check costs something.

        Args:
            address: As for `note_wrong`.
            key: The name of the key that it claims to have.

        Raises:
            RateLimited: As `note_right`.
        """
        name = client_network(address)
        tally = self._tallies.get(name)
        if tally is not None and tally.count >= LIMITS.wrong_keys and (name, key) not in self._admitted:
            now = self._clock()
            if now < tally.ends:
                raise _refusal(tally, now)

    def _tally(self, name: str, now: float) -> Tally:
        """Returns the running minute of an address."""
        tally = self._tallies.get(name)
        if tally is None or now >= tally.ends:
            tally = self._tallies[name] = Tally(now + LIMITS.wrong_keys_time)
            if len(self._tallies) > LIMITS.tracked_addresses:
                self._tallies.popitem(last=False)
        self._tallies.move_to_end(name)
        return tally

    def _add(self, tally: Tally, name: str, count: int) -> None:
        was_blocked = tally.count >= LIMITS.wrong_keys
        tally.count += count
        if tally.count >= LIMITS.wrong_keys and not was_blocked:
            _log.warning("%s has sent %d wrong keys within a minute: it is blocked", name or "unix:", tally.count)


@lru_cache(SHARED.known_addresses)
def _refusal(tally: Tally, now: float) -> Error:
    text = (
        f"this address has sent {LIMITS.wrong_keys} wrong keys within a minute: new keys are refused until it is over"
    )
    return Error("rate_limited", text, reason="wrong_keys", retry_after_ms=1 + int((tally.ends - now) * 1e3))
