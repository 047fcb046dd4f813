"""The judge that tests of recordings need."""

import pytest

from tests.corpus.recordings import judge


@pytest.fixture
def judged() -> None:
    """Skips the test if there are no recordings with their judge."""
    judge()
