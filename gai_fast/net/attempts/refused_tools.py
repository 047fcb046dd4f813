"""Tools of the gateway that targets refuse, and the requests that go without them. The caller has sent none of them.

Pure policy, as `refused_members.py`: the caller passes the time.

1. A provider's bound of tools is kept: the gateway's last ones are left out (`API.most_tools`).
2. After a 400 that names tools of the gateway the request is sent once more without them, `limits.refused_tools` times
   at most. An error names a tool by its name, or by its place in the list; or it names how many the provider takes.
3. If that is answered, they are left out for an hour: of that caller's requests, and of all once another caller has
   seen it too. What a caller sends may have been the cause.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

from msgspec.structs import replace

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.request import Request
from gai_fast.model.tool_rules import BETWEEN
from gai_fast.net.attempts.balance import TargetKey
from gai_fast.net.attempts.refused_members import RefusedMembers

_WORD: Final = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED: Final = re.compile(r"""[`'"]([A-Za-z0-9_-]+)(?=[`'"])""")
_PLACE: Final = re.compile(r"\b(?:tools(?:\[0\]|\.0)\.)?(?:function_?declarations|tools)(?:\[|\.)([0-9]{1,5})\b", re.I)
"""OpenAI's `tools[19].function`, Anthropic's `tools.0.custom`, Gemini's `tools[0].function_declarations[53]`."""
_MOST: Final = re.compile(r"\b(?:at most|max(?:imum)?)\b[^0-9.]{0,40}?\b([0-9]{1,5})\b", re.I)
"""OpenAI's "array with maximum length 128", Google's "At most 512 function declarations"."""
_OF_TOOLS: Final = re.compile(r"tools|functions?[ _]declarations|functions", re.I)


class RefusedTools:
    """The tools that the targets of one process have refused."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known = RefusedMembers()

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
    named = [name for at, name in enumerate(functions) if at in places and isinstance(name, str) and name in offered]
    most = _MOST.search(text)
    if named or most is None or _OF_TOOLS.search(text) is None:
        return named
    return _last(request, offered, len(request.tools) - int(most[1]), ())


def _last(request: Request, offered: Collection[str], count: int, without: Collection[str]) -> list[str]:
    """Returns the last of the gateway's tools in a request, as many as must go."""
    names = [
        tool.name
        for tool in request.tools
        if isinstance(tool.name, str) and tool.name in offered and tool.name not in without
    ]
    return names[max(0, len(names) - count) :] if count > 0 else []
