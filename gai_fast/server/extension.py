"""`serve --app MODULE:FUNCTION`: a function of the user's that adds to the application before it starts.

Owns how the function is found and called, and whether what it added may be passed by: the fast lane answers streaming
POSTs without aiohttp, so it must be off where a middleware, a signal or a route of the user's would see them.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from aiohttp import web

_REFERENCE: Final = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)")

Extend = Callable[[web.Application], Any]
"""Adds to an application; may be async."""


class ExtensionError(ValueError):
    """`app` of `[server]` names no function; the text tells what is wrong and what to do."""


def load(reference: str) -> Extend:
    """The function that `app` of `[server]` names.

    Modules are looked for in the working directory too.

    Args:
        reference: `module:function`, either with dots.

    Raises:
        ExtensionError: There is no such module or function.
    """
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise ExtensionError(f"app {reference!r}: write module:function, as in myapp:extend")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        value: Any = importlib.import_module(found[1])
    except ImportError as problem:
        raise ExtensionError(f"app {reference!r}: the module cannot be imported: {problem}") from problem
    for name in found[2].split("."):
        value = getattr(value, name, None)
    if not callable(value):
        raise ExtensionError(f"app {reference!r}: module {found[1]} has no function {found[2]}")
    function: Extend = value
    return function


async def extend(app: web.Application, function: Extend) -> None:
    """Calls a function with the application, and awaits what it returns where that is needed."""
    answer = function(app)
    if inspect.isawaitable(answer):
        await answer


def may_be_passed_by(app: web.Application, paths: Iterable[str]) -> bool:
    """Whether requests for these paths can be answered without an application and nobody would notice.

    Args:
        app: The application with what the user has added, and nothing else.
        paths: The paths.
    """
    if app.middlewares or app.on_response_prepare:
        return False
    return not any(_matches(resource, path) for resource in app.router.resources() for path in paths)


def _matches(resource: web.AbstractResource, path: str) -> bool:
    """Whether a resource may take a path; one that cannot be judged does."""
    info = resource.get_info()
    if "path" in info:
        return info["path"] == path
    if "pattern" in info:
        return info["pattern"].fullmatch(path) is not None
    return path.startswith(info.get("prefix", ""))
