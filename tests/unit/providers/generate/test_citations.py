"""Citations of Gemini, and where in the text they belong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.providers import get_provider
from gai_fast.providers.answers.room import Room
from gai_fast.providers.generate.citations import Citations
from tests.limits import LIMITS
from tests.unit.providers.answer_reading import of_type
from tests.unit.providers.gemini import STOP, chunk, grounding, read, text


def cited(*chunks: Any) -> list[dict[str, Any]]:
    return [one for event in of_type(read(*chunks), "citations") for one in event["citations"]]


class TestCitations:
    def test_offsets_count_bytes_of_all_text_and_are_reported_in_code_points(self) -> None:
        chunks = [chunk(text("Größe ")), chunk(text("…", thought=True)), chunk(text("ist 😀 7"))]
        last = chunk(finish="STOP", groundingMetadata=grounding((0, 7, 0), (8, 16, 0), (12, 18, 0)))
        assert cited(*chunks, last) == [
            {"uri": "u", "title": "t", "end": 5, "start": 0},
            {"uri": "u", "title": "t", "start": 6, "end": 11},
            {"uri": "u", "title": "t", "start": 10, "end": 13},
        ]

    def test_sources_without_a_span_are_reported_once(self) -> None:
        sources = [{"uri": "a"}, {"uri": "b", "title": "B"}]
        said = chunk(text("x"), groundingMetadata=grounding((0, 1, 1), sources=sources))
        assert cited(said, said, STOP) == [{"uri": "b", "title": "B", "start": 0, "end": 1}, {"uri": "a"}]

    def test_a_source_that_one_support_names_often_is_looked_up_once(self) -> None:
        grounded = grounding((0, 1, 0))
        grounded["groundingSupports"][0]["groundingChunkIndices"] *= 1000
        assert len(Citations(Room(), Room()).read({"groundingMetadata": grounded})) == 1

    def test_supports_may_come_after_their_sources(self) -> None:
        early, late = grounding(), grounding((0, 1, 0))
        del early["groundingSupports"], late["groundingChunks"]
        said = cited(chunk(text("x"), groundingMetadata=early), chunk(groundingMetadata=late), STOP)
        assert said[-1] == {"uri": "u", "title": "t", "start": 0, "end": 1}

    @pytest.mark.parametrize("name", ["citations", "citationSources"])
    def test_what_cites_text_that_comes_later_waits_for_it(self, name: str) -> None:
        recited = {name: [{"startIndex": 1, "endIndex": 3, "uri": "u", "license": ""}]}
        assert cited(chunk(text("é"), citationMetadata=recited), chunk(text("b")), STOP) == [
            {"uri": "u", "start": 0, "end": 2}
        ]

    def test_what_cites_text_that_never_comes_has_no_span(self) -> None:
        chunks = [chunk(text("é"), citationMetadata={"citations": [{"endIndex": 9, "uri": "u"}]})]
        assert cited(*chunks, STOP) == [{"uri": "u"}]
        adapter = get_provider("gemini").adapter()
        adapter.receive("", json.dumps(chunks[0]))
        assert adapter.abort() == [{"type": "citations", "citations": [{"uri": "u"}]}]

    def test_what_is_recited_from_nowhere_has_its_span(self) -> None:
        recited = {"citations": [{"startIndex": 2, "endIndex": 4, "license": "mit"}, {"license": "mit"}]}
        assert cited(chunk(text("éabc"), citationMetadata=recited), STOP) == [{"start": 1, "end": 3}]

    def test_sources_of_every_kind(self) -> None:
        chunks = [
            {"retrievedContext": {"fileSearchStore": "stores/1", "text": "…"}},
            {"maps": {"uri": "m", "title": "M"}},
            {"image": {"sourceUri": "i"}},
            {"unknown": {}},
        ]
        page = {"retrievedUrl": "p", "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_SUCCESS"}
        lost = {"retrievedUrl": "q", "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_ERROR"}
        last = chunk(
            finish="STOP",
            groundingMetadata={"groundingChunks": chunks},
            urlContextMetadata={"urlMetadata": [page, lost]},
        )
        assert cited(last) == [{"uri": "stores/1"}, {"uri": "m", "title": "M"}, {"uri": "i"}, {"uri": "p"}]

    def test_beyond_the_text_that_is_kept_nothing_is_placed(self) -> None:
        adapter = get_provider("gemini").adapter()
        adapter.receive("", json.dumps(chunk(text("é" * (LIMITS.cited_text // 2 + 1)))))
        adapter.receive("", json.dumps(chunk(text("é"))))
        events = adapter.receive("", json.dumps(chunk(groundingMetadata=grounding((0, 2, 0)))))
        assert events == [{"type": "citations", "citations": [{"uri": "u", "title": "t"}]}]


@pytest.mark.timeout(100)
def test_places_in_a_long_text_are_found_in_linear_time() -> None:
    """Each place was looked for in the whole text of its chunk: 20 seconds for 2,000 citations."""
    said = "aé😀…" * 200_000
    places = range(20, 200_000, 20)
    recited = {"citations": [{"uri": "u", "startIndex": 10 * at, "endIndex": 10 * at + 3} for at in places]}
    found = cited(chunk(text(said)), chunk(finish="STOP", citationMetadata=recited))
    assert found == [{"uri": "u", "start": 4 * at, "end": 4 * at + 2} for at in places]
