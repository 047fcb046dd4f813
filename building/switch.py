"""The environment variables that choose what is built."""

import os

BUILD = os.environ.get("GAI_FAST_BUILD", "auto")
"""`auto`: what fails to compile is left out. Without kernels the package is pure Python, without mypyc the modules stay
interpreted. `native`: a failure is an error. `pure`: compiles nothing.
"""
MYPYC = os.environ.get("GAI_FAST_MYPYC", "1") not in ("", "0")
"""Off: compiles the kernels only, for `make serve` and for development, as Python modules can be edited then."""
LEVEL = os.environ.get("GAI_FAST_LEVEL", "3")
"""How far the compiler optimises the kernels. 1: half of the time, for a build of which nothing but results counts."""
SANITIZE = os.environ.get("GAI_FAST_SANITIZE", "0") not in ("", "0")
"""On: compiles the kernels only, with the address and undefined-behaviour sanitizers."""

if BUILD not in ("auto", "native", "pure"):
    raise SystemExit(f"GAI_FAST_BUILD must be auto, native or pure, not {BUILD!r}")
