"""AG-UI 1.0, the protocol between agents and user interfaces: the format.

`request.py` reads requests. `stream.py` and `whole.py` write answers; `stream.py` lists the AG-UI events of each event.
Knows no route and no provider.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gai_fast.formats._base import Encoder, Format, Framing, StreamContext, StreamEncoder
from gai_fast.formats.agui.request import is_run_input, read_run_input, run_of
from gai_fast.formats.agui.stream import Run, RunEvents
from gai_fast.formats.agui.whole import WholeRun
from gai_fast.model.request import Request


class AGUIFormat(Format):
    """Events of a run.

    Args:
        run: The client's ids of the run, or None to use the stream's id for both.
    """

    name: ClassVar[str] = "agui"
    asks_approvals: ClassVar[bool] = True
    framings: ClassVar[tuple[Framing, ...]] = ("sse",)
    shares_native_routes: ClassVar[bool] = True

    def __init__(self, run: Run | None = None) -> None:
        self._run = run

    def answer_format(self, body: dict[str, Any]) -> Format:
        """Returns the format with the ids of a request's run.

        Raises:
            InvalidRequest: An id is missing or too long.
        """
        return AGUIFormat(run_of(body))

    def encoder(self, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Creates an encoder of a run's events."""
        return RunEvents(framing, context, self._run_of(context))

    def whole(self, context: StreamContext) -> Encoder:
        """Creates an encoder of one run."""
        return WholeRun(context, self._run_of(context))

    def _run_of(self, context: StreamContext) -> Run:
        return Run(context.stream_id, context.stream_id) if self._run is None else self._run

    def owns_request(self, body: dict[str, Any]) -> bool:
        """Returns whether a body is a `RunAgentInput`."""
        return is_run_input(body)

    def parse_request(self, body: dict[str, Any]) -> tuple[Request, list[str]]:
        """Translates a `RunAgentInput` into a native request.

        Raises:
            InvalidRequest: The text names the member by its path.
        """
        return read_run_input(body)


FORMAT = AGUIFormat()
