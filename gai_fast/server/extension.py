"""`serve --app MODULE:FUNCTION`: a user's function that extends the application before it starts.

Owns the import and the call of the function, and whether the fast lane may be on. The lane answers streaming POSTs
without aiohttp, so it must be off if a user's middleware, signal or route would see them.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from aiohttp import web

Extend = Callable[[web.Application], Any]
"""Extends an application; may be async."""


class ExtensionError(ValueError):
    """`app` of `[server]` names no function; the text is one line that names the problem."""


def load(reference: str) -> Extend:
    """Imports the function that `app` of `[server]` names.

    The working directory is searched for the module first, as with `python -m`.

    Args:
        reference: `module:function`; both may contain dots.

    Raises:
        ExtensionError: The module or the function does not exist, or the module's import fails.
    """
    module, _, path = reference.partition(":")
    if not module or not path:
        raise ExtensionError('must be "module:function", such as "shop.gateway:extend"')
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        value: Any = importlib.import_module(module)
    except ModuleNotFoundError as problem:
        if problem.name is not None and f"{module}.".startswith(f"{problem.name}."):
            raise ExtensionError(f"names the module {module}, which neither {here} nor sys.path has") from None
        raise ExtensionError(f"names the module {module}, which needs {problem.name}, which is not there") from None
    except Exception as problem:  # a user's module may raise anything during its import
        raise ExtensionError(f"names the module {module}, which cannot be imported: {_line(problem)}") from problem
    for name in path.split("."):
        if not hasattr(value, name):
            raise ExtensionError(f"names {path}, which {module} does not have")
        value = getattr(value, name)
    if not callable(value):
        raise ExtensionError(f"names {path} of {module}, which is no function but {type(value).__name__}")
    function: Extend = value
    return function


def _line(problem: Exception) -> str:
    """Returns the type and the text of an exception, on one line."""
    return " ".join(f"{type(problem).__name__}: {problem}".split())


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
