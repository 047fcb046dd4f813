"""Which form of the vector loops is in use: the widest that this machine has, chosen once at import.

`use` is there for tests and benchmarks: all forms must give the same bytes.
"""

from gai_fast._native.c cimport GAI_SCALAR, gai_simd

cdef extern from "vector.h" nogil:
    const gai_simd *gai_find_vectors()

cdef extern from "avx512.h" nogil:
    bint gai_find_avx512(gai_simd *loops, const gai_simd *base)

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
cdef gai_simd[3] FORMS
FORMS[0] = FORMS[1] = FORMS[2] = GAI_SCALAR
cdef int COUNT = 1
if VECTORS is not NULL:
    FORMS[1] = VECTORS[0]
    COUNT = 3 if gai_find_avx512(&FORMS[2], VECTORS) else 2
cdef gai_simd TABLE = FORMS[COUNT - 1]


cdef const gai_simd *in_use():
    return &TABLE


def forms():
    """The forms that this machine can run."""
    return tuple([FORMS[i].name.decode() for i in range(COUNT)])


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
    TABLE = FORMS[forms().index(name)]


def build():
    """What compiled these modules: the compiler and Cython, with their versions."""
    return f"{GAI_COMPILER.decode()}, cython {CYTHON_ABI.decode().replace('_', '.')}"
