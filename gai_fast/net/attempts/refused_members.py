"""Members of requests that targets have refused by name, and for whose requests they are left out.

Pure policy, as `balance.py`: the caller passes the time. `providers/requests/refusals.py` reads the errors.

1. Only what an upstream says of a member as such is remembered, for `limits.refused_for` seconds. A value that it
   refuses says nothing of the next value.
2. A member of the gateway's own making is left out for all callers.
3. A member that a caller has sent is left out for that caller alone, and for all once another caller has seen it
   refused too: what one caller sends changes nothing for others.
4. A caller's members make no room for themselves among those of others.
"""

from __future__ import annotations

from collections.abc import Sequence

from gai_fast.net.attempts.balance import TargetKey
from gai_fast.net.limits import LIMITS

_Member = tuple[TargetKey, str]
"""A target, and the path of a member."""


class RefusedMembers:
    """The refused members of one process.

    Attributes:
        is_empty: Whether no member is left out of any request.
    """

    def __init__(self) -> None:
        self.is_empty = True
        # Each with the time until which it is left out, in monotonic seconds; the oldest first.
        self._of_all: dict[TargetKey, dict[str, float]] = {}
        self._of_callers: dict[str, dict[_Member, float]] = {}

    def note(self, place: TargetKey, path: str, caller: str, now: float, *, is_ours: bool) -> bool:
        """Notes a refused member.

        Args:
            place: The target.
            path: The member's path.
            caller: The name of the caller whose request had it.
            now: Monotonic seconds.
            is_ours: Whether the gateway has added it.

        Returns:
            Whether it is left out for all callers now: rules 2 and 3.
        """
        self.is_empty = False
        until, member = now + LIMITS.refused_for, (place, path)
        if is_ours or self._is_seen_by_another(member, caller, now):
            of_all = self._of_all.setdefault(place, {})
            of_all.pop(path, None)
            of_all[path] = until
            if len(of_all) > LIMITS.refused_members:
                del of_all[next(iter(of_all))]
            return True
        if caller not in self._of_callers and len(self._of_callers) >= LIMITS.refusing_callers:
            del self._of_callers[next(iter(self._of_callers))]
        own = self._of_callers.setdefault(caller, {})
        own.pop(member, None)
        own[member] = until
        if len(own) > LIMITS.refused_of_caller:
            del own[next(iter(own))]
        return False

    def left_out(self, place: TargetKey, caller: str, now: float) -> Sequence[str]:
        """Returns the paths of the members that a caller's request to a target lacks."""
        of_all = self._of_all.get(place)
        found = [] if of_all is None else [path for path, until in of_all.items() if until > now]
        own = self._of_callers.get(caller)
        if own is not None:
            found += [path for (at, path), until in own.items() if at == place and until > now]
        return found

    def _is_seen_by_another(self, member: _Member, caller: str, now: float) -> bool:
        return any(who != caller and own.get(member, now) > now for who, own in self._of_callers.items())
