"""The native/pure switch: all kernels come from one implementation, chosen once at import.

`GAI_FAST_NO_EXTENSIONS=1` runs pure Python. `GAI_FAST_REQUIRE_EXTENSIONS=1` fails instead of falling back.
`GAI_FAST_SIMD=NAME` chooses the form of the native kernels' vector loops. Only a missing `_native` module means "not
built": any other error while importing it is a fault and is raised. `_pure` lists the kernels' names; type checkers see
the pure side.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from gai_fast.kernels._pure import *  # noqa: F403  # `__all__` of `_pure` is the list

IMPLEMENTATION: Literal["native", "pure"] = "pure"
MODULES: Literal["compiled", "interpreted"] = "compiled" if find_spec("gai_fast._compiled__mypyc") else "interpreted"
"""Whether mypyc compiled the modules that every request runs through (`building/compiled.txt`)."""


def _is_set(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


if not (TYPE_CHECKING or _is_set("GAI_FAST_NO_EXTENSIONS")):
    try:
        from gai_fast.kernels._native import *  # noqa: F403  # `__all__` of `_pure` is the list

        IMPLEMENTATION = "native"
    except ModuleNotFoundError as missing:
        if not (missing.name or "").startswith("gai_fast.kernels._native") or _is_set("GAI_FAST_REQUIRE_EXTENSIONS"):
            raise


_REMOVED_FORMS = {"avx2": "sse", "avx512": "sse"}
"""Forms of the vector loops that earlier builds had, and the form that replaces each of them."""


def _use_form(wanted: str) -> str | None:
    """Uses the wanted form of the vector loops and returns the name of the form in use.

    Args:
        wanted: The name of the form. If it is empty, the default stays in use: vectors if the machine has them.

    Returns:
        The name. `None` in pure Python, which has no vector loops.

    Raises:
        ImportError: This machine, or this build, does not have the form.
    """
    if IMPLEMENTATION == "pure":
        if wanted:
            raise ImportError(
                f"GAI_FAST_SIMD={wanted!r} names a form of the native kernels, and pure Python is in use: unset it, or "
                "use the native kernels"
            )
        return None
    import gai_fast.kernels._native.encoders as encoders

    chosen = _REMOVED_FORMS.get(wanted, wanted)
    if chosen and chosen not in encoders.forms():
        raise ImportError(f"GAI_FAST_SIMD={wanted!r}: this machine and build can run {', '.join(encoders.forms())}")
    if chosen:
        encoders.use(chosen)
    form: str = encoders.form()
    return form


SIMD = _use_form(os.environ.get("GAI_FAST_SIMD", ""))
"""The form of the vector loops (docs/installation.md, "Vector instructions"). `None` in pure Python, which has none."""
