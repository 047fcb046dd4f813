"""The answers of all providers, decoded by both implementations of the kernels."""

from tests.kernels import kernels

__all__ = ["kernels"]
