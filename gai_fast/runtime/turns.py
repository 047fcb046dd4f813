"""What waits for something that callers share: callers take turns; of one caller's, first come, first served.

A room to wait in gives half of itself to a caller with a name. Without keys there is one caller, which is everybody.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from gai_fast.model.settings import ANONYMOUS

_T = TypeVar("_T")


class CallerTurns(Generic[_T]):
    """What waits, in the order of turns.

    Attributes:
        count: How much waits.
    """

    def __init__(self) -> None:
        self.count = 0
        # By caller; the next one first. A dict would look at each place from which one was taken before.
        self._waiting: OrderedDict[str, OrderedDict[_T, None]] = OrderedDict()

    def has_room(self, caller: str, most: int) -> bool:
        """Returns whether one more of a caller may wait.

        Args:
            caller: The caller's name.
            most: The room.
        """
        own = self._waiting.get(caller, ())
        return self.count < most and (caller == ANONYMOUS or len(own) < max(1, most // 2))

    def add(self, caller: str, waits: _T) -> None:
        """Adds what waits, behind the others of its caller."""
        own = self._waiting.get(caller)
        if own is None:
            own = self._waiting[caller] = OrderedDict()
        own[waits] = None
        self.count += 1

    def remove(self, caller: str, waits: _T) -> bool:
        """Removes what waits no longer. Returns whether it was there."""
        own = self._waiting.get(caller)
        if own is None or waits not in own:
            return False
        del own[waits]
        self.count -= 1
        if not own:
            del self._waiting[caller]
        return True

    def take(self, may: Callable[[str], bool] | None = None) -> _T | None:
        """Takes out what is next; its caller is then the last one. None if nothing is.

        Args:
            may: Returns whether it is a caller's turn at all. None if it is each caller's.
        """
        found = self.take_with_caller(may)
        return None if found is None else found[1]

    def take_with_caller(self, may: Callable[[str], bool] | None = None) -> tuple[str, _T] | None:
        """Takes out what is next, and returns its caller too; as `take`."""
        if not self.count:
            return None
        caller = next((each for each in self._waiting if may is None or may(each)), None)
        if caller is None:
            return None
        own = self._waiting.pop(caller)
        waits, _ = own.popitem(last=False)
        if own:
            self._waiting[caller] = own
        self.count -= 1
        return caller, waits

    def drop(self, caller: str) -> list[_T]:
        """Takes out all that waits of a caller."""
        own = [*self._waiting.pop(caller, ())]
        self.count -= len(own)
        return own
