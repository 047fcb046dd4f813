"""The differences between a client's request and the provider's.

Owns the bounds of this report and its two forms: headers and the `warning` event. Knows no provider.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from gai_fast.model.errors import Unsupported
from gai_fast.model.events import Event
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import OnUnsupported

_MESSAGES: Final = "messages["
_TOOLS: Final = "tools["
_DIGITS: Final = 9
"""The most digits of an index: a request has fewer messages."""
_WORD: Final = "!\"#$&'()*/:;<>?@[\\]^`{|} "
"""Printable ASCII without `%`, and without `,`, `=` and `+`, which separate the entries of a header."""


class Changes:
    """The members that were left out or changed while a provider's request was built, in order.

    Paths are those of the client's request: `seed`, `tools[0].strict`, `messages[2].role`.

    Args:
        on_unsupported: Whether a member that the provider does not support is refused (`error`) or left out (`drop`).

    Attributes:
        dropped: The paths of members that were left out.
        adjusted: The value that was sent in place of the client's, by the member's path.
        more_dropped: The number of further paths, beyond `limits.request_changes`.
        more_adjusted: As `more_dropped`.
        places: The path of each message in the client's request, if others are sent, or in another order.
        tools: As `places`, of tools.
    """

    def __init__(self, on_unsupported: OnUnsupported = "error") -> None:
        self._on_unsupported = on_unsupported
        self.dropped: list[str] = []
        self.adjusted: dict[str, str] = {}
        self.more_dropped = 0
        self.more_adjusted = 0
        self.places: Sequence[str] = ()
        self.tools: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.dropped or self.adjusted)

    @property
    def may_drop(self) -> bool:
        """Whether unsupported members are left out instead of refused."""
        return self._on_unsupported == "drop"

    def leave_out(self, provider: str, path: str, what: str = "") -> None:
        """Refuses a member that the provider does not support, or notes that it is left out.

        If the method returns, its caller leaves the member out. Besides `leave_out_unsaid`, no code decides so.

        Args:
            provider: The provider's name.
            path: The member's path in the request.
            what: A detail for the error text, such as `audio parts in tool messages`.

        Raises:
            Unsupported: `on_unsupported` is `error`; the text names the member.
        """
        if self._on_unsupported == "error":
            raise unsupported(provider, self.own(path), what)
        self.drop(path)

    def leave_out_unsaid(self, provider: str, path: str) -> None:
        """Works as `leave_out`, for a member that no native request holds: the provider may have it.

        Args:
            provider: The provider's name.
            path: The member's path in the client's request.

        Raises:
            Unsupported: `on_unsupported` is `error`; the text names the member.
        """
        if self._on_unsupported == "error":
            raise Unsupported(message=f"gai-fast cannot say `{path[:200]}` to {provider}", reason="field")
        self.drop(path)

    def drop(self, path: str) -> None:
        """Notes that a member was left out."""
        path = self.own(path)[: SHARED.changed_path]  # a path may contain a key from the request, of any length
        if len(self.dropped) >= SHARED.request_changes:
            self.more_dropped += 1
        elif path not in self.dropped:
            self.dropped.append(path)

    def drop_message(self, path: str) -> None:
        """Notes that a message was left out, unless its content has been noted: nothing of it is sent."""
        own = self.own(path)
        if not any(each.startswith(own) for each in self.dropped):
            self.drop(path)

    def adjust(self, path: str, value: str) -> None:
        """Notes that a member was changed.

        Args:
            path: The member's path.
            value: Its value in the provider's request; must not be text of the conversation.
        """
        path = self.own(path)[: SHARED.changed_path]
        if path not in self.adjusted and len(self.adjusted) >= SHARED.request_changes:
            self.more_adjusted += 1
        else:
            self.adjusted[path] = value[: SHARED.changed_path]

    def follow(self, paths: Sequence[str]) -> None:
        """Notes the paths of the messages that were written, in order: what changes them afterwards counts them.

        Args:
            paths: Their paths in the native request.
        """
        self.places = [self.own(path) for path in paths] if self.places else paths

    def own(self, path: str) -> str:
        """Returns the path of a message or a tool, or of a member of it, in the client's request."""
        if self.places and path.startswith(_MESSAGES):
            return _placed(path, _MESSAGES, self.places)
        return _placed(path, _TOOLS, self.tools) if self.tools and path.startswith(_TOOLS) else path

    def headers(self) -> list[tuple[str, str]]:
        """Returns `x-gai-dropped` and `x-gai-adjusted`, each if there is something to report."""
        found: list[tuple[str, str]] = []
        if self.dropped:
            found.append(("x-gai-dropped", _listed([_quoted(path) for path in self.dropped], self.more_dropped)))
        if self.adjusted:
            pairs = [f"{_quoted(path)}={_quoted(value)}" for path, value in self.adjusted.items()]
            found.append(("x-gai-adjusted", _listed(pairs, self.more_adjusted)))
        return found

    def warning(self) -> Event:
        """Returns the event that reports the changes."""
        return {
            "type": "warning",
            "reason": "request_changed",
            "provider_metadata": {"dropped": self.dropped, "adjusted": self.adjusted},
        }


def _placed(path: str, begin: str, places: Sequence[str]) -> str:
    number, _, rest = path.removeprefix(begin).partition("]")
    # A member of the request may have such a name, of any length: `int` refuses 4,300 digits.
    if not number.isdecimal() or len(number) > _DIGITS or int(number) >= len(places):
        return path
    return places[int(number)] + rest


def unsupported(provider: str, path: str, what: str = "") -> Unsupported:
    """Returns the error for a member that a provider does not support; the arguments are as for `Changes.leave_out`."""
    # The path may contain a key from the request, which may have any length.
    text = f"{provider} does not support `{path[:200]}`"
    return Unsupported(message=f"{text}: {what}" if what else text, reason="field")


def _quoted(text: str) -> str:
    return quote(text, safe=_WORD)


def _listed(entries: Sequence[str], more: int) -> str:
    """Joins entries; what exceeds `limits.changes_header` is counted in a last entry `+<number>`."""
    kept: list[str] = []
    size = 0
    for entry in entries:
        size += len(entry) + 1
        if size > SHARED.changes_header:
            more += len(entries) - len(kept)
            break
        kept.append(entry)
    return ",".join([*kept, f"+{more}"] if more else kept)
