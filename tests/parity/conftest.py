"""Native equals pure: the fixtures that give tests one implementation, or both."""

from tests.kernels import both, kernels, native, use_profile

__all__ = ["both", "kernels", "native"]

use_profile()
