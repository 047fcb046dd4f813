"""Functions that are tools: what a decorator notes of one, and what it can learn of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, overload

_Function = TypeVar("_Function", bound=Callable[..., Any])
_NOTED: Final = "__gai_fast_tool__"


@dataclass(frozen=True, slots=True)
class ToolMeta:
    """One call of a tool, for a parameter `meta` of its function.

    Attributes:
        request_id: The id of the request.
        stream_id: The id of its stream.
        step: The turn of the model that asks for the call, from 1.
        call_id: The id of the call, unique in the run.
        attempt: From 1: how often the call is made. More than 1 for idempotent tools alone.
        idempotency_key: The same for each attempt of a call, and no other.
        traceparent: The trace of the call (W3C); empty if there is none.
    """

    request_id: str = ""
    stream_id: str = ""
    step: int = 1
    call_id: str = ""
    attempt: int = 1
    idempotency_key: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class NotedTool:
    """What a decorator has noted of a function.

    Attributes:
        name: Its name for models. None means the table's.
        approve: Whether its calls wait for a person.
        idempotent: Whether it may be called again after a fault.
    """

    name: str | None = None
    approve: bool = False
    idempotent: bool = False


@overload
def tool(function: _Function, /) -> _Function: ...
@overload
def tool(
    function: None = None, /, *, name: str | None = None, approve: bool = False, idempotent: bool = False
) -> Callable[[_Function], _Function]: ...
def tool(
    function: _Function | None = None,
    /,
    *,
    name: str | None = None,
    approve: bool = False,
    idempotent: bool = False,
) -> _Function | Callable[[_Function], _Function]:
    """Notes how a function is offered as a tool: `@tool`, or `@tool(approve=True)`. The function itself stays as it is.

    Models see its docstring, and a schema of its parameters; a parameter `meta` gets the `ToolMeta` of the call.

    Raises:
        TypeError: What it decorates is no function.

    Args:
        function: The function; plain or async.
        name: Its name for models: a table of the configuration must give it no other. By default it is the table's.
        approve: Whether its calls wait for a person.
        idempotent: Whether it may be called again after a fault.
    """
    noted = NotedTool(name, approve, idempotent)

    def note(function: _Function) -> _Function:
        if not callable(function):
            raise TypeError(f"tool: {function!r} is no function; a name is given as `@tool(name=…)`")
        setattr(function, _NOTED, noted)
        return function

    return note if function is None else note(function)


def noted_of(function: Callable[..., Any]) -> NotedTool:
    """Returns what a decorator has noted of a function; the defaults if it has none."""
    noted = getattr(function, _NOTED, None)
    return noted if isinstance(noted, NotedTool) else NotedTool()
