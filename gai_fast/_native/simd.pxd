"""The table of loops that all modules here use (csrc/simd.h)."""

from gai_fast._native.c cimport gai_simd

cdef const gai_simd *in_use()
