"""All limits of the package under one name, to be read and changed: a test does not care which folder has one."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import gai_fast

PACKAGE: Final = Path(gai_fast.__file__).parent


def _modules() -> list[str]:
    """Returns the modules that hold limits."""
    found = [*PACKAGE.rglob("limits.py"), *PACKAGE.rglob("limits/__init__.py")]
    return sorted(
        ".".join(("gai_fast", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in found
    )


HOLDERS: Final = {
    name: getattr(module, "SHARED", None) or module.LIMITS for name in _modules() for module in [import_module(name)]
}
"""By module, the object whose attributes are limits."""


def holder_of(name: str) -> Any:
    """Returns the object that has a limit; no two have one of the same name."""
    (found,) = (holder for holder in HOLDERS.values() if hasattr(holder, name))
    return found


def set_limit(name: str, value: float) -> None:
    """Changes a limit for all modules alike."""
    object.__setattr__(holder_of(name), name, value)  # it is frozen


def replaced(**values: float) -> Any:
    """Returns a copy of the object that has these limits, with other values: for a single module."""
    (holder,) = {id(holder): holder for holder in map(holder_of, values)}.values()
    return dataclasses.replace(holder, **values)


class _AllLimits:
    def __getattr__(self, name: str) -> Any:
        return getattr(holder_of(name), name)


LIMITS: Final = _AllLimits()
