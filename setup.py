"""What is compiled and the build switch; everything else is in pyproject.toml.

Two kinds: the kernels, in Cython (`_native`, whose twins are `_pure`), and the modules that every request runs through,
which mypyc compiles as they are: a request takes about half the time in the process.

GAI_FAST_BUILD=auto (default: without a working compiler the package is pure Python) | native (that is an error) | pure.
GAI_FAST_SANITIZE=1 builds with address and undefined-behaviour sanitizers.
GAI_FAST_MYPYC=0 builds the kernels alone: a build for development, whose Python modules can be edited.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

BUILD = os.environ.get("GAI_FAST_BUILD", "auto")
MYPYC = os.environ.get("GAI_FAST_MYPYC", "1") not in ("", "0")
SANITIZE = os.environ.get("GAI_FAST_SANITIZE", "0") not in ("", "0")
KERNELS = ("simd", "buffer", "jsontext", "encoders", "parsers", "chunked", "relay", "shapes", "counters", "fast_path")
SOURCES = {"relay": ("csrc/learn.c",)}
# Only modules whose annotations say all: mypyc checks them at run time, loses the `from` of a `raise`, and lets nobody
# replace a method of an instance, or an attribute of instances by one of a subclass (tests/test_architecture.py).
COMPILED = (
    "clock",
    "formats/_base",
    "formats/openai",
    "ids",
    "meter",
    "net/engine",
    "net/connection_pool",
    "net/retry",
    "net/session",
    "net/sockets",
    "net/timers",
    "net/upstream",
    "net/writer",
    "providers/_base",
    "providers/_chat",
    "providers/_completions",
    "providers/_responses",
    "providers/anthropic",
    "providers/gemini",
    "providers/ollama",
    "providers/openai",
    "providers/openai_compatible",
    "reading",
    "relay",
    "server/access_log",
    "server/admission",
    "server/connection",
    "server/counts",
    "server/incoming",
    "server/negotiation",
    "server/replies",
    "server/routes",
    "server/streams",
    "server/transport",
    "settings",
    "transcript",
)
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "binding": False,  # plain builtin methods: half the call overhead of Cython's own function type
    "embedsignature": True,
    "embedsignature.format": "clinic",
}


class BuildOrFallBack(build_ext):
    """All extensions or none: half of them would be neither implementation. As many at once as there are processors."""

    def finalize_options(self):
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count() or 1

    def run(self):
        try:
            super().run()
        except (CCompilerError, ExecError, PlatformError) as problem:
            if BUILD == "native":
                raise
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = []
            print(
                f"gai-fast: the C compiler failed ({problem}); building the pure Python implementation, which does the "
                "same more slowly. GAI_FAST_BUILD=native makes this an error, GAI_FAST_BUILD=pure silences it.",
                file=sys.stderr,
            )


def extensions():
    """The compiled modules, or none for a pure build."""
    if BUILD == "pure":
        return []
    if BUILD not in ("auto", "native"):
        raise SystemExit(f"GAI_FAST_BUILD must be auto, native or pure, not {BUILD!r}")
    from Cython.Build import cythonize  # not needed, and perhaps not there, for a pure build

    checks = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"] if SANITIZE else []
    modules = [
        Extension(
            f"gai_fast._native.{name}",
            [f"gai_fast/_native/{name}.pyx", *SOURCES.get(name, ())],
            include_dirs=["csrc"],
            depends=[str(header) for header in sorted(Path("csrc").glob("*.h"))],
            extra_compile_args=[*checks, *(["-O1", "-g"] if SANITIZE else ["-O3"]), "-std=c11"],
            extra_link_args=checks,
        )
        for name in KERNELS
    ]
    built = cythonize(modules, compiler_directives=DIRECTIVES)
    return built if SANITIZE or not MYPYC else [*built, *compiled()]


def compiled():
    """The modules that mypyc compiles, into one library so that they call each other directly."""
    paths = [f"gai_fast/{name}.py" for name in COMPILED]
    try:
        from mypyc.build import mypycify  # perhaps not there where a build is not isolated

        return mypycify(
            ["--python-version", "{}.{}".format(*sys.version_info), *paths],
            opt_level="3",
            debug_level="0",
            group_name="gai_fast._compiled",
            target_dir="build/mypyc",
        )
    except (ImportError, SystemExit) as problem:  # a later release of what we import may have other types
        if BUILD == "native":
            raise
        print(f"gai-fast: mypyc failed ({problem}); its modules stay interpreted", file=sys.stderr)
        return []


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildOrFallBack})
