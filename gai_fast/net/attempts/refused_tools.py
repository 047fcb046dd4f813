"""Tools of the gateway that targets refuse, and the requests that go without them. The caller has sent none of them.

1. A provider's bound of tools is kept: the gateway's last ones are left out (`API.most_tools`).
2. After a 400 that names tools of the gateway the request is sent once more without them, `limits.refused_tools` times
   at most. An error names a tool by its name, or by its place in the list; or it names how many the provider takes.
3. If that is answered, they are left out for an hour: of that caller's requests, and of all once another caller has
   seen it too. What a caller sends may have been the cause.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from msgspec.structs import replace

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.request import Request
from gai_fast.model.tool_rules import BETWEEN
from gai_fast.net.attempts.balance import TargetKey, target_key
from gai_fast.net.attempts.refused_members import RefusedMembers
from gai_fast.net.attempts.spec import StreamSpec
from gai_fast.net.limits import LIMITS
from gai_fast.providers import get_provider
from gai_fast.providers.requests.refusals import may_name_a_member

logger = logging.getLogger("gai_fast.engine")

_WORD: Final = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED: Final = re.compile(r"""[`'"]([A-Za-z0-9_-]+)(?=[`'"])""")
_PLACE: Final = re.compile(
    r"\b(?:tools(?:\[0\]|\.0)\.)?(?:function_?declarations|tools)(?:\[|\.)([0-9]{1,5})\b"
    r"(?!\]?\.function_?declarations)",
    re.I,
)
"""OpenAI's `tools[19].function`, Anthropic's `tools.0.custom`, Gemini's `tools[0].function_declarations[53]`."""
_MOST: Final = re.compile(r"\b(?:at most|max(?:imum)?)\b[^0-9.]{0,40}?\b([0-9]{1,5})\b", re.I)
"""OpenAI's "array with maximum length 128", Google's "At most 512 function declarations"."""
_OF_TOOLS: Final = re.compile(r"tools|functions?[ _]declarations|functions", re.I)


class RefusedTools:
    """The tools that the targets of one process have refused.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known = RefusedMembers()
        self._silent_until = 0.0  # the time of the next warning of a bound

    def fitted(self, spec: StreamSpec) -> Request | dict[str, Any]:
        """Returns the request of a run without the gateway's tools that its target does not take."""
        request = spec.request
        if not isinstance(request, Request):
            return request
        most = get_provider(spec.model.upstream.provider).most_tools
        if self._known.is_empty and spec.without_tools is None and not 0 < most < len(request.tools):  # nearly always
            return request
        now, place = self._clock(), target_key(spec.model)
        names = self.left_out(request, spec.offered, place, spec.caller, now, most)
        if 0 < most < len(request.tools) and now >= self._silent_until:
            self._silent_until = now + SHARED.warning_interval
            text = "upstream %s takes %d tools of the %d in requests for %s: the gateway's last ones are left out"
            logger.warning(text, place[0], most, len(request.tools), place[1])
        if spec.without_tools is not None and spec.without_tools[0] == place:
            names += spec.without_tools[1]
        return without_tools(request, names) if names else request

    def leaves_out(self, spec: StreamSpec, error: Error) -> bool:
        """Leaves out the gateway's tools that an upstream's error names. Returns whether there are any: rule 2.

        Args:
            spec: The attempt.
            error: Its failure.
        """
        if not may_name_a_member(error) or spec.tool_refusals >= LIMITS.refused_tools:
            return False
        place, asked = target_key(spec.model), self.fitted(spec)
        if not isinstance(asked, Request):
            return False
        names = refused_tools(error, asked, [tool.name for tool in asked.tools if tool.name in spec.offered])
        if not names:
            return False
        former = () if spec.without_tools is None or spec.without_tools[0] != place else spec.without_tools[1]
        spec.tool_refusals += 1
        spec.without_tools = place, (*former, *names)
        text = "upstream %s refuses tools of the gateway for %s: sent once more without %s"
        logger.warning(text, place[0], place[1], ", ".join(names))
        return True

    def answered(self, spec: StreamSpec) -> None:
        """Remembers the tools without which a target has answered: rule 3."""
        if spec.without_tools is None or spec.without_tools[0] != target_key(spec.model):
            return
        (place, names), spec.without_tools = spec.without_tools, None
        is_for_all = self.note(place, names, spec.caller, self._clock())
        whose = "" if is_for_all else f" of {spec.caller!r}"
        text = "upstream %s refuses tools of the gateway in requests for %s: left out for an hour%s: %s"
        logger.warning(text, place[0], place[1], whose, ", ".join(names))

    def note(self, place: TargetKey, names: Sequence[str], caller: str, now: float) -> bool:
        """Notes tools without which a target has answered.

        Args:
            place: The target.
            names: The names that models see.
            caller: The name of the caller.
            now: Monotonic seconds.

        Returns:
            Whether all of them are left out for all callers now.
        """
        noted = [self._known.note(place, name, caller, now, is_ours=False) for name in names]
        return all(noted)

    def left_out(
        self, request: Request, offered: Collection[str], place: TargetKey, caller: str, now: float, most: int
    ) -> list[str]:
        """Returns the tools that a request to a target lacks: rules 1 and 3.

        Args:
            request: The request.
            offered: The gateway's tools in it, by the names that models see.
            place: The target.
            caller: The name of the caller.
            now: Monotonic seconds.
            most: The most tools that the provider takes; 0: any number.
        """
        known: list[str] = []
        if not self._known.is_empty:
            known = [name for name in self._known.left_out(place, caller, now) if name in offered]
        left = len(request.tools) - len(known)
        if not most or left <= most:
            return known
        return [*known, *_last(request, offered, left - most, known)]


def without_tools(request: Request, names: Collection[str]) -> Request:
    """Returns a request without some of its tools."""
    return replace(request, tools=[tool for tool in request.tools if tool.name not in names])


def refused_tools(error: Error, request: Request, offered: Collection[str]) -> list[str]:
    """Returns the tools of the gateway that an upstream's error names: rule 2.

    Args:
        error: The error, of a request that the upstream refuses.
        request: The request as it was sent.
        offered: The gateway's tools in it.
    """
    param = (error.details or {}).get("param")
    text = f"{param if isinstance(param, str) else ''} {error.message}"[: 2 * SHARED.error_message]
    quoted = {*_QUOTED.findall(text)}
    words = {word for word in _WORD.findall(text) if BETWEEN in word}  # of others, any text may have them
    named = [name for name in offered if name in quoted or name in words]
    if named:
        return named
    functions = [tool.name for tool in request.tools if tool.type == "function"]
    places = {int(number) for number in _PLACE.findall(text)}
    if places:
        return [name for at, name in enumerate(functions) if at in places and isinstance(name, str) and name in offered]
    most = _MOST.search(text)
    if most is None or _OF_TOOLS.search(text) is None:
        return []
    return _last(request, offered, len(request.tools) - int(most[1]), ())


def _last(request: Request, offered: Collection[str], count: int, without: Collection[str]) -> list[str]:
    """Returns the last of the gateway's tools in a request, as many as must go."""
    names = [
        tool.name
        for tool in request.tools
        if isinstance(tool.name, str) and tool.name in offered and tool.name not in without
    ]
    return names[max(0, len(names) - count) :] if count > 0 else []
