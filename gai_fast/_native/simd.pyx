"""Which form of the vector loops is in use: the vector one where this machine has it, chosen once at import.

`use` is there for tests and benchmarks: both forms must give the same bytes.
"""

from gai_fast._native.c cimport GAI_SCALAR, gai_simd

cdef extern from "vector.h" nogil:
    const gai_simd *gai_find_vectors()

cdef extern from *:
    """
    #if defined(__clang__)
    #define GAI_COMPILER "clang " __clang_version__
    #else
    #define GAI_COMPILER "gcc " __VERSION__
    #endif
    """
    const char *GAI_COMPILER
    const char *CYTHON_ABI

cdef const gai_simd *VECTORS = gai_find_vectors()
cdef gai_simd TABLE = VECTORS[0] if VECTORS is not NULL else GAI_SCALAR


cdef const gai_simd *in_use():
    return &TABLE


def forms():
    """The forms that this machine can run."""
    return ("scalar",) if VECTORS is NULL else ("scalar", "vector")


def form():
    """The form in use."""
    return TABLE.name.decode()


def use(name):
    """Uses a form, in all modules at once.

    Raises:
        ValueError: This machine does not have it.
    """
    global TABLE
    if name not in forms():
        raise ValueError(f"no {name!r} form here; there are {forms()}")
    TABLE = GAI_SCALAR if name == "scalar" else VECTORS[0]


def build():
    """What compiled these modules: the compiler and Cython, with their versions."""
    return f"{GAI_COMPILER.decode()}, cython {CYTHON_ABI.decode().replace('_', '.')}"
