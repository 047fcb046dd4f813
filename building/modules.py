"""The modules that mypyc compiles, in one library so that they call each other directly, a C file each."""

import sys
import sysconfig
from pathlib import Path

from setuptools import Extension
from setuptools.errors import PlatformError

from building.initializers import shadow_options
from building.kernels import HIDDEN, NO_STUBS
from building.switch import MYPYC, SANITIZE

LIST = Path(__file__).with_name("compiled.txt")
"""Only modules whose share of a request was measured, and which can be compiled: mypyc checks annotations at run time,
loses the `from` of a `raise`, and does not allow to replace a method of an instance, or an attribute of instances by
one of a subclass (tests/test_architecture.py).
"""
COLD = "-freorder-blocks-and-partition"
"""Code for failures stands behind the code of requests (csrc/cold.h), which then takes fewer lines of the caches. Clang
refuses the option.
"""
STABLE = "-DPy_LIMITED_API=0x030B0000"
"""The shims call nothing beyond the stable ABI, so half of Python's header will do, which each of them reads. An
interpreter without a global lock has no stable ABI.
"""
FOLDER = "build/mypyc"


def paths() -> list[str]:
    """Returns the source of each compiled module.

    Raises:
        PlatformError: The list names a module that is not there.
    """
    named = [f"gai_fast/{name}.py" for name in LIST.read_text("utf-8").split()]
    if missing := [path for path in named if not Path(path).is_file()]:
        raise PlatformError(f"building/{LIST.name} names modules that are not there: {', '.join(missing)}")
    return named


def translated() -> list[Extension]:
    """Returns the library as an extension in C, after the shims through which its modules are imported.

    Raises:
        ImportError: mypyc is not installed.
        PlatformError: The list names a module that is not there.
        SystemExit: The types of a module do not fit.
    """
    if SANITIZE or not MYPYC:
        return []
    sources = paths()
    from mypyc.build import mypycify  # perhaps not there where a build is not isolated

    # aiohttp is not there where a build is isolated, so its classes count as `Any`.
    options = ["--python-version", "{}.{}".format(*sys.version_info), "--allow-subclassing-any"]
    extensions = mypycify(
        [*options, *shadow_options(sources, FOLDER), *sources],
        opt_level="1",  # a third of the CPU time of -O3, for 1 % more instructions a request
        debug_level="0",
        multi_file=True,
        group_name="gai_fast._compiled",
        target_dir=FOLDER,
    )
    library, *shims = extensions
    library.include_dirs += ["csrc", f"{FOLDER}/gai_fast"]  # mypyc includes its header without the group's folder
    library.depends += ["csrc/cold.h", *sources, *library.sources]
    for extension in extensions:  # which share a list of options; a warning of a later compiler is no reason to be slow
        extension.extra_compile_args = [*extension.extra_compile_args, HIDDEN, NO_STUBS, "-Wno-error"]
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        for shim in shims:
            shim.extra_compile_args.append(STABLE)
    library.extra_compile_args += ["-include", "cold.h", COLD]
    return [*shims, library]
