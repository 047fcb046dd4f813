"""The rules by which a request in a provider's dialect is changed so that the provider accepts it.

A provider has one `RequestRules` beside its adapter. Both ways to an upstream end in `RequestRules.fitted`: a client's
body in the upstream's dialect, and a native request that the dialect's writer has written. Knows no provider. The
subclasses know their dialects: `chat/rules.py`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from mypy_extensions import mypyc_attr

from gai_fast.core.requests.shapes import RequestShape
from gai_fast.model.changes import Changes


class MemberRule:
    """A provider's rule for a member of its dialect.

    Args:
        name: The provider's name for it; empty if it is the dialect's.
        lacks: The provider has no such member.
        words: The provider's nearest word for each value that it does not have.
        least: The lowest number that the provider accepts, or None for any.
        most: The highest number that the provider accepts, or None for any.
        most_items: The most items of a list that the provider accepts, or None for any.
        write: Returns the value that is sent in place of another; raises as `RequestRules.fitted`.
        asked: The member's name in native requests, for reports; empty if it is the dialect's. For dialects that no
            client speaks.
        is_newer: The member counts if a request has one of the name `name`, too: the dialect has replaced that.
    """

    def __init__(
        self,
        name: str = "",
        *,
        lacks: bool = False,
        words: Mapping[str, str] | None = None,
        least: Any = None,
        most: Any = None,
        most_items: int | None = None,
        write: Callable[[Any, Changes], Any] | None = None,
        asked: str = "",
        is_newer: bool = False,
    ) -> None:
        self.name = name
        self.is_newer = is_newer
        self.asked = asked
        self.lacks = lacks
        self.words: Mapping[str, str] = words or {}
        # Any: a compiled class would make 16.0 of 16, which is not an integer to providers.
        self.least: Any = least
        self.most: Any = most
        self.most_items = most_items
        self.write = write

    def nearest(self, value: Any) -> Any:
        """Returns the value, or the nearest value that the provider accepts."""
        if isinstance(value, str):
            return self.words.get(value, value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if self.least is not None and value < self.least:
                return self.least
            if self.most is not None and value > self.most:
                return self.most
        return value


AS_IT_IS: Final = MemberRule()
LACKS: Final = MemberRule(lacks=True)


class CallIds:
    """The ids of calls that a provider accepts.

    Args:
        pattern: The regular expression of a whole id.
        length: The characters of an id that is sent in place of one without this form.
    """

    def __init__(self, pattern: str, length: int = 32) -> None:
        self._matches = re.compile(pattern, re.DOTALL).fullmatch
        self.length = length

    def fits(self, identifier: str) -> bool:
        """Returns whether the provider accepts an id."""
        return self._matches(identifier) is not None

    def fitted(self, identifier: str) -> str:
        """Returns the id, or one that is derived from it: a call and its result get the same."""
        return identifier if self.fits(identifier) else sha256(identifier.encode()).hexdigest()[: self.length]


@mypyc_attr(allow_interpreted_subclasses=True)
class Mend(ABC):
    """A change to requests that is not in a table."""

    @abstractmethod
    def is_needed(self, body: dict[str, Any], shape: RequestShape) -> bool:
        """Returns whether a request may need the change.

        Args:
            body: The request, as all other rules have left it.
            shape: Its shape, as its client wrote it.
        """
        raise NotImplementedError

    @abstractmethod
    def mend(self, body: dict[str, Any], changes: Changes) -> None:
        """Changes a copy of a request. Its messages and other values are not copies.

        Args:
            body: The request.
            changes: As for `RequestRules.fitted`, which raises the same.
        """
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class RequestRules:
    """The rules of a provider for requests in its dialect.

    Args:
        provider: The provider's name.
        source: Where this stands: the SDK and its version.
        strict: The provider refuses members that it does not know: only those in `members` are sent. Otherwise members
            that are not in `members` are sent too.
        members: The rules for a request's members, by the dialect's name.
        call_ids: The ids of calls that the provider accepts; None if it accepts all.
        mends: Changes that no table can express, in order.
    """

    def __init__(
        self,
        provider: str,
        source: str,
        *,
        strict: bool = False,
        members: Mapping[str, MemberRule] | None = None,
        call_ids: CallIds | None = None,
        mends: Sequence[Mend] = (),
    ) -> None:
        self.provider = provider
        self.source = source
        self.strict = strict
        self.members: Mapping[str, MemberRule] = members or {}
        self.call_ids = call_ids
        self.mends = tuple(mends)
        others = [name for name, member in self.members.items() if member is not AS_IT_IS]
        self._plain = frozenset(self.members).difference(others) if strict else frozenset(others)

    def fitted(self, body: Mapping[str, Any], shape: RequestShape, changes: Changes) -> dict[str, Any]:
        """Returns a copy of a request that the provider accepts; records in `changes` what is not as given.

        Args:
            body: The request in the provider's dialect.
            shape: Its shape.
            changes: The policy for what the provider does not support, and the record.

        Raises:
            Unsupported: The request has what the provider does not support, and `changes` do not allow that it is left
                out. The text names the member.
        """
        sent = {**body}
        if not self.has_plain_members(sent):
            sent = self._fitted_members(sent, changes)
        if not self.is_plain(shape):
            self.fit_messages(sent, shape, changes)
        for mend in self.mends:
            if mend.is_needed(sent, shape):
                mend.mend(sent, changes)
        return sent

    def has_plain_members(self, body: dict[str, Any]) -> bool:
        """Returns whether all members of a request may be sent as they are, except its messages."""
        plain = self._plain
        if self.strict:
            return body.keys() <= plain  # `issuperset` would make a set of them: 700 instructions
        return not plain or plain.isdisjoint(body)

    def is_plain(self, shape: RequestShape) -> bool:
        """Returns whether the messages of a request with this shape may be sent as they are."""
        return True

    def fit_messages(self, body: dict[str, Any], shape: RequestShape, changes: Changes) -> None:
        """Replaces the messages of a request by such as the provider accepts.

        Args:
            body: A copy of the request; its messages are not copies.
            shape: The request's shape, which is not plain.
            changes: As for `fitted`, which raises the same.
        """

    def ids_fit(self, shape: RequestShape) -> bool:
        """Returns whether the provider accepts all ids of calls."""
        rule = self.call_ids
        if rule is not None:
            for identifier in shape.ids:
                if not rule.fits(identifier):
                    return False
        return True

    def _fitted_members(self, body: dict[str, Any], changes: Changes) -> dict[str, Any]:
        sent: dict[str, Any] = {}
        newer: dict[str, Any] = {}
        for name, value in body.items():
            rule = self.members.get(name)
            if rule is None and not self.strict:
                sent[name] = value
            elif rule is None or rule.lacks:
                self.leave_out_member(name, value, changes)
            elif rule.write is not None:
                sent[name] = rule.write(value, changes)
            elif not rule.name:
                path = rule.asked or name
                if isinstance(value, list) and rule.most_items is not None:
                    value = self.first_items(value, rule.most_items, path, changes)
                nearest = sent[name] = rule.nearest(value)
                if nearest is not value:
                    changes.adjust(path, str(nearest))
            elif value is not None:
                other = body.get(rule.name)
                if other is None:
                    sent[rule.name] = value
                elif other != value:
                    changes.drop(rule.name if rule.is_newer else name)
                    if rule.is_newer:
                        newer[rule.name] = value
        return {**sent, **newer} if newer else sent

    def first_items(self, items: list[Any], most: int, path: str, changes: Changes) -> list[Any]:
        """Returns the items of a list that the provider accepts, the first ones.

        Args:
            items: The items.
            most: The most that it accepts.
            path: The list's path.
            changes: As for `fitted`.

        Raises:
            Unsupported: As `fitted`.
        """
        if len(items) <= most:
            return items
        changes.leave_out(self.provider, f"{path}[{most}]", f"more than {most}")
        return items[:most]

    def leave_out_member(self, name: str, value: Any, changes: Changes) -> None:
        """Leaves a member of the request out that the provider lacks; records it if it asks for something.

        Args:
            name: The member's name.
            value: Its value.
            changes: As for `fitted`.

        Raises:
            Unsupported: As `fitted`.
        """
        if value is not None:
            changes.leave_out(self.provider, name)
