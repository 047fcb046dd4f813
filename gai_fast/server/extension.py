"""`serve --app MODULE:FUNCTION`: a function of the user's that adds to the application before it starts.

Owns the import and the call of the function, and the decision whether the fast lane may be on: it answers streaming
POSTs without aiohttp, so it must be off where a middleware, a signal or a route of the user's would see them.
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
"""Adds to an application; may be async."""


class ExtensionError(ValueError):
    """`app` of `[server]` names no function; the text is one line that names the fault."""


def load(reference: str) -> Extend:
    """Imports the function that `app` of `[server]` names.

    The working directory is searched for its module first, as `python -m` does.

    Args:
        reference: `module:function`, either with dots.

    Raises:
        ExtensionError: There is no such module or function, or the module fails.
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
    except Exception as problem:  # a module of the user's may raise anything while it is imported
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
    """The kind of an exception and its text, on one line."""
    return " ".join(f"{type(problem).__name__}: {problem}".split())


async def extend(app: web.Application, function: Extend) -> None:
    """Calls a function with the application, and awaits its result where it is awaitable."""
    answer = function(app)
    if inspect.isawaitable(answer):
        await answer


def may_be_passed_by(app: web.Application, paths: Iterable[str]) -> bool:
    """Whether requests for these paths can be answered without the application, with the same result.

    Args:
        app: The application with the user's additions only.
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
