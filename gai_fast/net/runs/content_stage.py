"""How the content of a run's turns is noted before processors change it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from gai_fast.model.events import Event
from gai_fast.net.runs.sink import TurnContent
from gai_fast.processors import Processor


class ContentStage(Processor):
    """Notes the content of turns before other processors get it.

    Args:
        content: Keeps it.
    """

    changes_text: ClassVar[bool] = False

    def __init__(self, content: TurnContent) -> None:
        self._content = content

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        """Passes an event; raises as `TurnContent.note`."""
        self._content.note(event)
        return (event,)
