"""The screen of `gai-fast top`: a Textual application; Textual comes with the extra `tui`.

Owns keys, the selection of a stream, the confirmation before it is cancelled, and the reconnection to an unreachable
server. `top_lines.py` has the texts.

1. The terminal's own colours are used. With `NO_COLOR` there are no colours: marks are bold or reversed.
2. An unreachable server is retried each `limits.admin_again` seconds; until then the last figures stay, with a line
   about the problem.
3. A bug ends the program with its traceback, after the terminal was restored. Textual would also show the values of
   variables, which may contain a key: therefore no request runs in Textual's own tasks.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any, ClassVar, Final

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static

from gai_fast.cli.admin_client import AdminClient, AdminError
from gai_fast.cli.limits import LIMITS
from gai_fast.cli.top.lines import COLUMNS, foot, head, printable, widths
from gai_fast.model.limits import SHARED
from gai_fast.server.admin.bodies import RunningStream, Sample

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_SCROLL_BAR: Final = 2


class ConfirmCancel(ModalScreen[bool]):
    """Asks for confirmation to cancel a stream; its result is the answer.

    Args:
        stream: The stream.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "Yes, cancel it"),
        Binding("n,escape", "dismiss(False)", "No"),
    ]
    CSS = """
    Question { align: center middle; }
    Question Static { width: 90%; max-width: 76; height: auto; padding: 1 2; border: solid; background: $background; }
    """

    def __init__(self, stream: RunningStream) -> None:
        super().__init__()
        self._stream = stream

    def compose(self) -> ComposeResult:
        stream = self._stream
        about = f"key {printable(stream.key)}, model {printable(stream.model)}, upstream {printable(stream.upstream)}"
        yield Static(f"Cancel the stream {printable(stream.id)}?\n{about}\n\ny: yes   n: no", markup=False)


class Top(App[None]):
    """The screen.

    Args:
        client: The client of the server.
        sample: The server's first figures.

    Attributes:
        fault: The exception that has ended the application, or None.
    """

    TITLE = "gai-fast top"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("s", "sort", "Sort by the next column"),
        Binding("r", "reverse", "Reverse"),
        Binding("c", "cancel_stream", "Cancel the stream"),
        Binding("ctrl+c", "quit", show=False, priority=True),
    ]
    CSS = """
    Static { height: auto; text-wrap: nowrap; text-overflow: ellipsis; }
    DataTable { height: 1fr; min-height: 2; }
    DataTable > .datatable--header { text-style: bold; }
    DataTable > .datatable--cursor { text-style: reverse; }
    #status { height: 1; }
    .problem { text-style: bold reverse; }
    """

    def __init__(self, client: AdminClient, sample: Sample) -> None:
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self.fault: BaseException | None = None
        self._client = client
        self._sample = sample
        self._sorted_by = 0
        self._is_reversed = True
        self._rows: list[RunningStream] = []
        self._tasks: set[asyncio.Task[None]] = set()

    # -- Textual --

    def compose(self) -> ComposeResult:
        yield Static(id="head", markup=False)
        yield DataTable(id="streams", cursor_type="row", cell_padding=0, zebra_stripes=False)
        yield Static(id="foot", markup=False)
        yield Static(id="status", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self._draw()
        self._begin(self._follow())

    def exit(self, result: None = None, return_code: int = 0, message: Any = None) -> None:
        """Ends the application. Cancels its tasks first: they must not draw while Textual removes the widgets."""
        for task in self._tasks:
            task.cancel()
        super().exit(result, return_code, message)

    async def on_unmount(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def on_resize(self, event: Resize) -> None:
        """Gives the columns their new widths."""
        self._draw_streams(event.size.width)

    # -- keys --

    def action_sort(self) -> None:
        """Sorts by the next column: names ascending, numbers descending."""
        self._sorted_by = (self._sorted_by + 1) % len(COLUMNS)
        self._is_reversed = bool(COLUMNS[self._sorted_by].width)
        self._draw_streams(self.size.width)

    def action_reverse(self) -> None:
        """Reverses the order."""
        self._is_reversed = not self._is_reversed
        self._draw_streams(self.size.width)

    def action_cancel_stream(self) -> None:
        """Asks for confirmation to cancel the stream under the cursor."""
        stream = self._chosen()
        if stream is None:
            self._say("there is no stream to cancel")
            return

        def answered(is_sure: bool | None) -> None:
            if is_sure:
                self._begin(self._cancel(stream.id))

        self.push_screen(ConfirmCancel(stream), answered)

    # -- the server --

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.fault = task.exception()
            self.exit()

    async def _follow(self) -> None:
        """Shows the server's figures as they arrive, by rule 2."""
        while True:
            try:
                async with aclosing(self._client.samples()) as samples:
                    async for _, sample in samples:
                        if self._status_is_problem:
                            self._say("")
                        self._sample = sample
                        self._draw()
            except AdminError as problem:
                self._say(f"no figures, trying again: {problem}", is_problem=True)
            await asyncio.sleep(LIMITS.admin_again)

    async def _cancel(self, stream_id: str) -> None:
        self._say(f"cancelling {stream_id}")
        try:
            await self._client.cancel(stream_id)
        except AdminError as problem:
            self._say(f"{stream_id} is not cancelled: {problem}")
        else:
            self._say(f"cancelled {stream_id}")

    # -- drawing --

    @property
    def _base(self) -> Any:
        """The screen below a question."""
        return self.screen_stack[0]

    @property
    def _status_is_problem(self) -> bool:
        return bool(self._base.query_one("#status").has_class("problem"))

    def _say(self, text: str, *, is_problem: bool = False) -> None:
        status = self._base.query_one("#status", Static)
        status.set_class(is_problem, "problem")
        status.update(printable(text))

    def _draw(self) -> None:
        self._base.query_one("#head", Static).update("\n".join(head(self._client.url, self._sample)))
        self._draw_streams(self.size.width)
        self._base.query_one("#foot", Static).update("\n".join(foot(self._sample)))

    def _draw_streams(self, width: int) -> None:
        """Redraws the table; the cursor stays at its stream."""
        table = self._base.query_one(DataTable)
        chosen, place = self._chosen(), table.cursor_row
        streams = self._sample.streams[: SHARED.streams_sampled]
        self._rows = sorted(streams, key=COLUMNS[self._sorted_by].order, reverse=self._is_reversed)
        arrow = "▼" if self._is_reversed else "▲"
        table.clear(columns=True)
        for number, (column, cells) in enumerate(zip(COLUMNS, widths(width - _SCROLL_BAR), strict=True)):
            title = f"{column.title}{arrow}" if number == self._sorted_by else column.title
            last = number == len(COLUMNS) - 1
            table.add_column(Text(title, no_wrap=True), width=cells if last else cells + 1)
        for row in self._rows:
            table.add_row(*(Text(each.text(row), no_wrap=True, overflow="ellipsis") for each in COLUMNS))
        ids = [each.id for each in self._rows]
        if chosen is not None and chosen.id in ids:
            place = ids.index(chosen.id)
        table.move_cursor(row=min(place, max(len(ids) - 1, 0)))

    def _chosen(self) -> RunningStream | None:
        """Returns the stream under the cursor, or None if there is none."""
        place = self._base.query_one(DataTable).cursor_row
        return self._rows[place] if 0 <= place < len(self._rows) else None


async def show(client: AdminClient, sample: Sample) -> None:
    """Shows a server until the user, SIGINT or SIGTERM ends the application.

    Args:
        client: The client of the server.
        sample: The server's first figures.
    """
    app = Top(client, sample)
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:  # before the terminal is changed
        loop.add_signal_handler(number, app.exit)
    try:
        await app.run_async(mouse=False)  # if the application used the mouse, users could not select an id to copy it
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
    if app.fault is not None:
        raise app.fault
    if app.return_code:
        raise SystemExit(app.return_code)
