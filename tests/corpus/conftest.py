"""The answers of all providers, decoded by both implementations of the kernels."""

import pytest

from tests.corpus.recordings import exact_lines
from tests.kernels import kernels

__all__ = ["kernels"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many recordings are exact; nothing where none was judged."""
    for line in exact_lines():
        terminalreporter.write_line(line)
