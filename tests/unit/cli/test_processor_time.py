"""The share of a core that a process used."""

from __future__ import annotations

from gai_fast.cli.processor_time import ProcessorShare


def test_the_share_is_that_of_the_last_whole_second() -> None:
    now, used = 10.0, 5.0
    share = ProcessorShare(lambda: now, lambda: used)
    assert share.share() == 0
    now, used = 10.5, 5.5
    assert share.share() == 0, "half a second may be one request"
    now, used = 12.0, 6.5
    assert share.share() == 0.75
    now, used = 12.9, 6.5
    assert share.share() == 0.75
    now = 13.0
    assert share.share() == 0
