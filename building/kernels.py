"""The Cython kernels, each with the C files that it is linked with."""

import os
from pathlib import Path

from setuptools import Extension

from building.switch import LEVEL, SANITIZE

KERNELS = {
    "encoders": ("loops", "simd_scalar", "simd_vector"),
    "parsers": ("loops",),
    "relay": ("loops", "learn"),
    "sockets": ("loops",),
    "tls": ("openssl", "loops"),
}
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
HIDDEN = "-fvisibility=hidden"
"""What the files of a library share stays within it: calls go straight to the function instead of through the linker's
table, which took 9 % of the CPU of a request (bursts of 100 deltas), and the table's 0.7 MB.
"""
NO_STUBS = "-fno-plt"
"""Calls of the interpreter's functions read their addresses and pass by the linker's stubs: 1 % fewer instructions a
request, and 4 % fewer misses of the instruction cache.
"""


def extensions() -> list[Extension]:
    """Returns the kernels as extensions in Cython."""
    # A sanitizer names lines: -g1 will do. With CPython's own -g a kernel takes a third longer to compile.
    options = ["-O0", "-g1"] if SANITIZE else [f"-O{LEVEL}", "-g0"]
    checks = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"] if SANITIZE else []
    return [
        Extension(
            f"gai_fast.kernels._native.{name}",
            [f"gai_fast/kernels/_native/{name}.pyx", *(f"csrc/{source}.c" for source in sources)],
            include_dirs=["csrc"],
            depends=[str(header) for header in sorted(Path("csrc").glob("*.h"))],
            extra_compile_args=[*checks, *options, "-std=c11", HIDDEN, NO_STUBS],
            extra_link_args=checks,
        )
        for name, sources in KERNELS.items()
    ]


def translated() -> list[Extension]:
    """Returns the kernels as extensions in C.

    Raises:
        ImportError: Cython is not installed.
    """
    from Cython.Build import cythonize  # not needed for a pure build

    return cythonize(extensions(), compiler_directives=DIRECTIVES, nthreads=os.cpu_count() or 1)
