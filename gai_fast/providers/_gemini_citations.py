"""Citations of Gemini: sources, and their places in the text.

Offsets count the bytes of the whole text, in UTF-8; a citation may come before its text. Owns how much of the text is
kept to find places, and which citations are events already.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gai_fast.core.chunks import count
from gai_fast.model.events import Event
from gai_fast.providers._events import citation
from gai_fast.providers._room import Room

_PIECE: Final = 512
"""Characters of text that are looked through to find one place."""


class PlacedText:
    """The text of a candidate, to convert offsets in bytes into offsets in characters.

    The length of ASCII is enough; other text is kept as long as there is room.

    Args:
        room: What is left of `limits.cited_text` for all candidates of the answer.
    """

    def __init__(self, room: Room) -> None:
        self.size = 0
        """Bytes, in UTF-8."""
        self._room = room
        self._length = 0
        self._is_lost = False
        """Some text is missing: no place can be found any more."""
        self._begins: list[int] = []
        self._pieces: list[tuple[int, str]] = []

    def add(self, text: str, characters: int) -> None:
        """Adds text with this number of characters; with another number, the text is missing."""
        if len(text) != characters or self._room.left < 0:
            self._is_lost = True
            return
        size = characters
        if not text.isascii():
            size = 0
            for at in range(0, characters, _PIECE):
                piece = text[at : at + _PIECE]
                self._begins.append(self.size + size)
                self._pieces.append((self._length + at, piece))
                octets = len(piece.encode("utf-8", "surrogatepass"))
                self._room.note(octets, 3)
                size += octets
        self.size += size
        self._length += characters

    def span(self, start: Any, end: Any) -> tuple[int, int] | None:
        """Converts a span of bytes into one of characters; `None` where that is not possible."""
        first, last = count(start) or 0, count(end)
        if not last or last < first or last > self.size or self._is_lost or self._room.left < 0:
            return None
        return self._characters(first), self._characters(last)

    def _characters(self, offset: int) -> int:
        at = bisect_right(self._begins, offset) - 1
        if at < 0:
            return offset
        length, text = self._pieces[at]
        octets = text.encode("utf-8", "surrogatepass")
        within = offset - self._begins[at]
        if within >= len(octets):
            return length + len(text) + within - len(octets)
        return length + len(octets[:within].decode("utf-8", "ignore"))


Reference = tuple[str, str, int, int | None]
"""Address and title of a source, and the span of bytes that refers to it."""


def has_references(raw: dict[str, Any]) -> bool:
    """Whether a raw candidate has metadata about sources, which may lead to no citation."""
    return bool(raw.get("groundingMetadata") or raw.get("citationMetadata") or raw.get("urlContextMetadata"))


class Citations:
    """The citations of one candidate.

    Args:
        room: For the sources that are kept.
        places: What is left of `limits.cited_text` for all candidates of the answer.
    """

    def __init__(self, room: Room, places: Room) -> None:
        self.text = PlacedText(places)
        self._room = room
        self._sources: list[tuple[Any, Any]] = []
        """Addresses and titles of the last list."""
        self._told: set[Reference] = set()
        self._ahead: list[Reference] = []
        """Citations of text that has not come yet."""

    def read(self, raw: dict[str, Any]) -> list[Reference]:
        """Reads the citations of a raw candidate.

        Raises:
            Error: No room is left.
        """
        cited = [
            *self._grounded(raw.get("groundingMetadata") or {}),
            *_recited(raw.get("citationMetadata") or {}),
            *_retrieved(raw.get("urlContextMetadata") or {}),
        ]
        return [_reference(*one) for one in cited]

    def _grounded(self, metadata: dict[str, Any]) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Yields sources with the spans that they support, and without a span, as (address, title, start, end)."""
        chunks = metadata.get("groundingChunks")
        if chunks:
            sources = [_source(source) for source in chunks]
            self._room.give_back(_length(self._sources), 2 * len(self._sources))
            self._room.take(_length(sources), 2 * len(sources))
            self._sources = sources
        sources = self._sources
        used: set[int] = set()
        for support in metadata.get("groundingSupports") or ():
            segment = support.get("segment") or {}
            for index in dict.fromkeys(support.get("groundingChunkIndices") or ()):
                if 0 <= index < len(sources):
                    used.add(index)
                    yield (*sources[index], segment.get("startIndex", 0), segment.get("endIndex"))
        if chunks:
            for index, source in enumerate(sources):
                if index not in used:
                    yield (*source, None, None)

    def tell(self, cited: list[Reference], *, last: bool = False) -> list[Event]:
        """Returns one event for new citations; those of text that has not come yet wait for the end.

        Raises:
            Error: No room is left.
        """
        entries: list[dict[str, Any]] = []
        for one in cited:
            if one in self._told and not last:
                continue
            uri, title, start, end = one
            span = self.text.span(start, end)
            if not last:
                self._room.take(len(uri) + len(title), 3)
                self._told.add(one)
                if (end or 0) > self.text.size:
                    self._ahead.append(one)
                    continue
            entry = citation(uri, title, *(span or ()))
            if not entry and span:  # recited from an unknown source: the span is known all the same
                entry = {"start": span[0], "end": span[1]}
            entries += [entry] if entry else []
        return [{"type": "citations", "citations": entries}] if entries else []

    def rest(self) -> list[Event]:
        """Returns the citations whose text never came, without their span."""
        ahead, self._ahead = self._ahead, []
        return self.tell(ahead, last=True)


def _length(sources: list[tuple[Any, Any]]) -> int:
    return sum(len(text) for source in sources for text in source if isinstance(text, str))


def _source(raw: dict[str, Any]) -> tuple[Any, Any]:
    """Reads address and title of a source; a document without an address is named by its store."""
    inner: Mapping[str, Any] = next(
        (raw[name] for name in ("web", "retrievedContext", "maps", "image") if raw.get(name)), {}
    )
    names = ("uri", "sourceUri", "imageUri", "documentName", "fileSearchStore", "placeId")
    return next((inner[name] for name in names if inner.get(name)), None), inner.get("title")


def _recited(metadata: dict[str, Any]) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Yields the sources that the text recites."""
    for one in metadata.get("citations") or metadata.get("citationSources") or ():
        yield one.get("uri"), one.get("title"), one.get("startIndex", 0), one.get("endIndex")


def _retrieved(metadata: dict[str, Any]) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Yields the pages that were read because the prompt named them."""
    for page in metadata.get("urlMetadata") or ():
        if page.get("urlRetrievalStatus") == "URL_RETRIEVAL_STATUS_SUCCESS":
            yield page.get("retrievedUrl"), None, None, None


def _reference(uri: Any, title: Any, start: Any, end: Any) -> Reference:
    uri, title = (text if isinstance(text, str) else "" for text in (uri, title))
    return uri, title, count(start) or 0, count(end)
