"""Native and pure for the fuzz targets."""

from tests.kernels import both, use_profile

__all__ = ["both"]

use_profile()
