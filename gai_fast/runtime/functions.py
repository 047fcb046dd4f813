"""Functions of the user that the configuration names: `import_function`.

Owns the import, and the words for what is wrong with a name. The callers say which key has the name.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class FunctionError(ValueError):
    """A reference names no function that can be called; the text is the end of a line that begins with its key."""


def import_function(reference: str, folder: Path) -> Callable[..., Any]:
    """Imports the function that a reference names.

    Args:
        reference: `module:function`; both may contain dots.
        folder: Searched for the module first, as `python -m` searches the working directory.

    Raises:
        FunctionError: The module or the function does not exist, or the module's import fails.
    """
    module, _, path = reference.partition(":")
    if not module or not path:
        raise FunctionError('must be "module:function", such as "shop.gateway:extend"')
    here = str(folder.resolve())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        value: Any = importlib.import_module(module)
    except ModuleNotFoundError as problem:
        if problem.name is not None and f"{module}.".startswith(f"{problem.name}."):
            raise FunctionError(f"names the module {module}, which neither {here} nor sys.path has") from None
        raise FunctionError(f"names the module {module}, which needs {problem.name}, which is not installed") from None
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # a user's module may raise anything during its import, also by `sys.exit`
        raise FunctionError(f"names the module {module}, which cannot be imported: {_line(problem)}") from problem
    for name in path.split("."):
        if not hasattr(value, name):
            raise FunctionError(f"names {path}, which {module} does not have")
        value = getattr(value, name)
    if not callable(value):
        raise FunctionError(f"names {path} of {module}, which is no function but {type(value).__name__}")
    function: Callable[..., Any] = value
    return function


def _line(problem: BaseException) -> str:
    """Returns the type and the text of an exception, on one line."""
    return " ".join(f"{type(problem).__name__}: {problem}".split())
