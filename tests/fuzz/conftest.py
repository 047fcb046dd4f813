"""Native and pure for the fuzz targets."""

from tests.kernels import both, kernels, use_profile

__all__ = ["both", "kernels"]

use_profile()
