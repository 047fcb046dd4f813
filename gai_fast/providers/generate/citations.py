"""Reads Gemini's citations: sources, and their positions in the text.

Offsets count the UTF-8 bytes of the whole text. A citation may arrive before its text. Owns how much of the text is
kept to convert offsets, and which citations are events already.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final

from gai_fast.core.json.chunks import count, member, objects
from gai_fast.model.events import Event
from gai_fast.providers.answers.events import citation
from gai_fast.providers.answers.room import Room

_PIECE: Final = 512
"""Characters of a piece of text, which is encoded to convert one offset."""


class PlacedText:
    """The text of a candidate, to convert byte offsets to character offsets.

    Of ASCII only the length is kept. Other text is kept until `room` is used up.

    Args:
        room: The rest of `limits.cited_text`, shared by all candidates of the response.
    """

    def __init__(self, room: Room) -> None:
        self.size = 0
        """The text's length in UTF-8 bytes."""
        self._room = room
        self._length = 0
        self._is_lost = False
        """Whether some text is missing, so that no offset can be converted any more."""
        self._begins: list[int] = []
        self._pieces: list[tuple[int, str]] = []

    def add(self, text: str, characters: int) -> None:
        """Adds text.

        Args:
            text: The text.
            characters: The number of its characters. Another number than `len(text)` means that text is missing.
        """
        if len(text) != characters or self._room.remaining < 0:
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
        """Returns the span of characters for a span of bytes, or None if it cannot be converted."""
        first, last = count(start) or 0, count(end)
        if not last or last < first or last > self.size or self._is_lost or self._room.remaining < 0:
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
"""Address and title of a source, and the span of bytes that it supports."""


def has_references(raw: dict[str, Any]) -> bool:
    """Returns whether a raw candidate has metadata about sources. The metadata may hold no citation."""
    return bool(raw.get("groundingMetadata") or raw.get("citationMetadata") or raw.get("urlContextMetadata"))


class Citations:
    """The citations of one candidate.

    Args:
        room: The memory limit for the sources that are kept.
        places: The rest of `limits.cited_text`, shared by all candidates of the response.
    """

    def __init__(self, room: Room, places: Room) -> None:
        self.text = PlacedText(places)
        self._room = room
        self._sources: list[tuple[Any, Any]] = []
        """Addresses and titles of the last list of sources."""
        self._seen: set[Reference] = set()
        self._pending: list[Reference] = []
        """Citations of text that has not arrived yet."""

    def read(self, raw: dict[str, Any]) -> list[Reference]:
        """Reads the citations of a raw candidate.

        Raises:
            Error: The response exceeds the memory limit.
        """
        cited = [
            *self._grounded(member(raw, "groundingMetadata")),
            *_recited(member(raw, "citationMetadata")),
            *_retrieved(member(raw, "urlContextMetadata")),
        ]
        return [_reference(*one) for one in cited]

    def _grounded(self, metadata: dict[str, Any]) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Yields (address, title, start, end) for each span that a source supports, and for each source without one."""
        given = metadata.get("groundingChunks")
        # An entry that is not an object keeps its place: others are referred to by their index.
        chunks: list[Any] = given if isinstance(given, list) else []
        if chunks:
            sources = [_source(source) for source in chunks]
            self._room.give_back(_length(self._sources), 2 * len(self._sources))
            self._room.take(_length(sources), 2 * len(sources))
            self._sources = sources
        sources = self._sources
        used: set[int] = set()
        for support in objects(metadata.get("groundingSupports")):
            segment, indices = member(support, "segment"), support.get("groundingChunkIndices")
            counts = map(count, indices if isinstance(indices, list) else ())
            for index in dict.fromkeys(counts):
                if index is not None and index < len(sources):
                    used.add(index)
                    yield (*sources[index], segment.get("startIndex", 0), segment.get("endIndex"))
        if chunks:
            for index, source in enumerate(sources):
                if index not in used:
                    yield (*source, None, None)

    def emit(self, cited: list[Reference], *, last: bool = False) -> list[Event]:
        """Returns one event for the new citations. Citations of text that has not arrived yet are kept for the end.

        Args:
            cited: The citations.
            last: Whether the text has ended.

        Raises:
            Error: The response exceeds the memory limit.
        """
        entries: list[dict[str, Any]] = []
        for one in cited:
            if one in self._seen and not last:
                continue
            uri, title, start, end = one
            span = self.text.span(start, end)
            if not last:
                self._room.take(len(uri) + len(title), 6)
                self._seen.update((one, (uri, "", 0, None)))  # a bare address repeats a source in another member
                if (end or 0) > self.text.size:
                    self._pending.append(one)
                    continue
            entry = citation(uri, title, *(span or ()))
            if not entry and span:  # recited from an unknown source: only the span is known
                entry = {"start": span[0], "end": span[1]}
            entries += [entry] if entry else []
        return [{"type": "citations", "citations": entries}] if entries else []

    def rest(self) -> list[Event]:
        """Returns one event for the pending citations. A citation whose text never arrived has no span."""
        pending, self._pending = self._pending, []
        return self.emit(pending, last=True)


def _length(sources: list[tuple[Any, Any]]) -> int:
    return sum(len(text) for source in sources for text in source if isinstance(text, str))


def _source(raw: Any) -> tuple[Any, Any]:
    """Reads address and title of a source. The address of a document without a URI is the name of its store."""
    kinds = [member(raw, name) for name in ("web", "retrievedContext", "maps", "image")]
    inner = next((kind for kind in kinds if kind), {})
    names = ("uri", "sourceUri", "imageUri", "documentName", "fileSearchStore", "placeId")
    return next((inner[name] for name in names if inner.get(name)), None), inner.get("title")


def _recited(metadata: dict[str, Any]) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Yields (address, title, start, end) of the sources that the text recites."""
    for one in objects(metadata.get("citations") or metadata.get("citationSources")):
        yield one.get("uri"), one.get("title"), one.get("startIndex", 0), one.get("endIndex")


def _retrieved(metadata: dict[str, Any]) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Yields (address, None, None, None) of each page that was fetched because the prompt names it."""
    for page in objects(metadata.get("urlMetadata")):
        if page.get("urlRetrievalStatus") == "URL_RETRIEVAL_STATUS_SUCCESS":
            yield page.get("retrievedUrl"), None, None, None


def _reference(uri: Any, title: Any, start: Any, end: Any) -> Reference:
    uri, title = (text if isinstance(text, str) else "" for text in (uri, title))
    return uri, title, count(start) or 0, count(end)
