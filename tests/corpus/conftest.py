"""The summary of how many recordings are exact."""

import pytest

from tests.corpus.recordings import exact_lines


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many recordings are exact; nothing where none was judged."""
    for line in exact_lines():
        terminalreporter.write_line(line)
