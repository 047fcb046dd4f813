"""The copier that copies nothing: every frame takes the full path, in order, whatever it was shown."""

from __future__ import annotations

import pytest

from gai_fast._pure.faults import FeedError
from gai_fast._pure.parsers import SSEFramer
from gai_fast._pure.relay import DeltaCopier

FRAMES = b"data: 1\n\ndata: 2\n\n"


def read(copier: DeltaCopier, *pieces: bytes) -> list[str | None]:
    found: list[str | None] = []
    for piece in pieces:
        copier.feed(piece)
        while (frames := copier.next(0, 0)) is not None:
            found += [frame.data for frame in frames]
    return found


def test_every_frame_is_returned_once_however_the_bytes_are_cut() -> None:
    assert read(DeltaCopier(SSEFramer(), False), FRAMES) == ["1", "2"]
    assert read(DeltaCopier(SSEFramer(), False), *(FRAMES[at : at + 1] for at in range(len(FRAMES)))) == ["1", "2"]


def test_what_it_is_shown_changes_nothing() -> None:
    copier = DeltaCopier(SSEFramer(), False)
    copier.feed(b'data: {"content":"a"}\n\n')
    (frame,) = copier.next(0, 0) or []
    copier.learn(
        frame, {"type": "text.delta", "text": "a"}, "text", frozenset({"content"}), frozenset(), [b"x", "text"]
    )
    assert read(copier, b'data: {"content":"b"}\n\n') == ['{"content":"b"}']
    assert copier.take_copied() == (b"", 0, [])
    copier.forget()


def test_the_unfinished_rest_comes_at_the_end() -> None:
    copier = DeltaCopier(SSEFramer(), True)
    assert read(copier, b"data: 1\n\ndata: 2") == ["1"]
    assert [frame.data for frame in copier.close()] == ["2"]


def test_a_frame_beyond_the_limit_is_an_error_that_holds_what_came_before() -> None:
    copier = DeltaCopier(SSEFramer(16), False)
    copier.feed(b"data: 1\n\ndata: " + b"x" * 32)
    with pytest.raises(FeedError) as problem:
        copier.next(0, 0)
    assert [frame.data for frame in problem.value.before] == ["1"]
