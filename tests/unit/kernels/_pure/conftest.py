"""The rules of the kernels hold for both implementations, so each of these tests runs on both."""

from tests.kernels import kernels, native, use_profile

__all__ = ["kernels", "native"]

use_profile()
