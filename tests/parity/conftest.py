"""Native equals pure: the fixtures that give tests one implementation, or both."""

from tests.kernels import both, kernels, use_profile

__all__ = ["both", "kernels"]

use_profile()
