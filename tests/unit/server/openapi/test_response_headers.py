"""The headers of responses."""

from __future__ import annotations

from gai_fast.server.admission.cross_origin import EXPOSED_HEADERS
from gai_fast.server.openapi.response_headers import HEADERS, IDS, OF_ANSWERS, OF_ERRORS, OF_STATUS


def test_every_header_that_responses_have_is_described_and_no_other() -> None:
    of_statuses = [name for names in OF_STATUS.values() for name in names]
    assert HEADERS.keys() == {*IDS, *OF_ANSWERS, *OF_ERRORS, *of_statuses}


def test_pages_may_read_each_of_our_own_headers() -> None:
    exposed = {name.strip().lower() for name in EXPOSED_HEADERS.split(",")}
    assert {name for name in HEADERS if name.startswith("x-gai-")} <= exposed


def test_every_sentence_is_one() -> None:
    for about, _ in HEADERS.values():
        assert about.endswith(".")
        assert about[0].isupper()
