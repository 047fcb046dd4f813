"""`serve --app MODULE:FUNCTION`: a user's function that extends the application before it starts.

Owns the call of the function, and whether the fast lane may be on. The lane answers streaming POSTs without
aiohttp, so it must be off if a user's middleware, signal or route would see them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from aiohttp import web

from gai_fast.runtime.functions import import_function

Extend = Callable[[web.Application], Any]
"""Extends an application; may be async."""


def load(reference: str) -> Extend:
    """Imports the function that `app` of `[server]` names, from the working directory or `sys.path`.

    Args:
        reference: `module:function`; both may contain dots.

    Raises:
        FunctionError: The module or the function does not exist, or the module's import fails.
    """
    return import_function(reference, Path.cwd())


async def extend(app: web.Application, function: Extend) -> None:
    """Calls a function with the application, and awaits the result if it is awaitable."""
    answer = function(app)
    if inspect.isawaitable(answer):
        await answer


def can_bypass(app: web.Application, paths: Iterable[str]) -> bool:
    """Returns whether requests for these paths can bypass the application without any difference.

    Args:
        app: The application with only the user's additions.
        paths: The paths.
    """
    if app.middlewares or app.on_response_prepare:
        return False
    return not any(_matches(resource, path) for resource in app.router.resources() for path in paths)


def _matches(resource: web.AbstractResource, path: str) -> bool:
    """Returns whether a resource may match a path; true if that cannot be determined."""
    info = resource.get_info()
    if "path" in info:
        return info["path"] == path
    if "pattern" in info:
        return info["pattern"].fullmatch(path) is not None
    return path.startswith(info.get("prefix", ""))
