"""The way to a server of tools: what `ToolClient` needs of HTTP and of a process."""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.message_reader import Beside
from gai_fast.net.tools.protocol import Agreement
from gai_fast.net.tools.rpc import Notice, ServerReply, ToolServerError, readable

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ToolProgress:
    """A notice of progress of a call.

    Attributes:
        progress: How far it is.
        total: How far it is at its end. None if that is not known.
        text: For people, without secrets; may be empty.
    """

    progress: float
    total: float | None
    text: str


OnProgress = Callable[[ToolProgress], object]


class ToolRequest:
    """One request to a server.

    Args:
        id: Its id, which is also the token of its progress.
        method: Its method.
        params: Its parameters.
        headers: Headers on HTTP beside those of every request.
        is_repeatable: Whether the server may get it twice.
        on_progress: Called for each notice of progress. None if there is nobody to call.
        caller: The name of the caller that it is for. Empty if it is for none.

    Attributes:
        was_sent: Whether the server may have got it.
        renew: Called for each notice of progress.
    """

    __slots__ = (
        "_left",
        "_on_progress",
        "caller",
        "headers",
        "id",
        "is_repeatable",
        "method",
        "params",
        "renew",
        "was_sent",
    )

    def __init__(
        self,
        id: int,
        method: str,
        params: Mapping[str, Any],
        headers: Sequence[tuple[str, str]] = (),
        *,
        is_repeatable: bool,
        on_progress: OnProgress | None = None,
        caller: str = "",
    ) -> None:
        self.id = id
        self.caller = caller
        self.method = method
        self.params = params
        self.headers = headers
        self.is_repeatable = is_repeatable
        self.was_sent = False
        self.renew: Callable[[], object] | None = None
        self._on_progress = on_progress
        self._left = LIMITS.tool_progress

    def noticed(self, notice: Notice, secrets: Collection[bytes]) -> None:
        """Passes a notice of progress on, up to `limits.tool_progress` of them.

        Args:
            notice: Any notice.
            secrets: Texts that the server was sent and may repeat.
        """
        if notice.method != _PROGRESS or not self._left or notice.params.get("progressToken") != self.id:
            return
        progress = _number(notice.params.get("progress"))
        if progress is None:
            return
        self._left -= 1
        if self.renew is not None:
            self.renew()
        if self._on_progress is not None:
            text = notice.params.get("message")
            shown = readable(text, secrets) if isinstance(text, str) else ""
            self._on_progress(ToolProgress(progress, _number(notice.params.get("total")), shown))


_PROGRESS: Final = "notifications/progress"


def _number(value: Any) -> float | None:
    largest = sys.float_info.max  # a whole number may be larger
    return value if type(value) in (int, float) and -largest <= value <= largest else None


class Wire(ABC):
    """The way to one server. Belongs to one loop.

    Attributes:
        has_headers: Whether requests have headers, as on HTTP.
        beside: Reads large messages. None if all are read at once.
    """

    has_headers = False
    beside: Beside | None = None

    @property
    @abstractmethod
    def secrets(self) -> Collection[bytes]:
        """Texts that the server is sent and may repeat."""

    @property
    @abstractmethod
    def credentials(self) -> Collection[bytes]:
        """Those that no result may have."""

    @abstractmethod
    async def start(self) -> bool:
        """Makes the server ready to be asked.

        Returns:
            Whether it was not: what was agreed on before no longer counts.

        Raises:
            ToolServerError: It cannot be started.
        """

    @abstractmethod
    async def ask(self, request: ToolRequest, agreed: Agreement | None) -> ServerReply:
        """Sends a request and waits for its answer, without a bound of time. If it is cancelled, the server is told.

        Args:
            request: The request.
            agreed: The protocol. None before there is one.

        Raises:
            ToolServerError: There is no answer.
        """

    @abstractmethod
    async def tell(self, method: str, agreed: Agreement) -> None:
        """Sends a notification without parameters.

        Raises:
            ToolServerError: It cannot be sent.
        """

    def end_pause(self) -> None:  # noqa: B027  # most ways have none
        """Ends the pause that the server has asked for."""

    async def leave(self, agreed: Agreement | None) -> None:
        """Ends a session, and what serves it alone: a process. A way that other sessions share stays."""
        await self.close(agreed)

    @abstractmethod
    async def close(self, agreed: Agreement | None) -> None:
        """Ends everything: requests fail, a session is ended, a process has ended when it returns."""


async def within(seconds: float, request: ToolRequest, asked: Callable[[], Awaitable[_T]]) -> _T:
    """Waits for an answer. Each notice of progress begins the wait again.

    Args:
        seconds: The longest wait.
        request: The request.
        asked: Sends it; returns what is awaited.

    Raises:
        ToolServerError: `late`, or from `asked`.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds) as bound:

            def renew() -> None:
                if not bound.expired():
                    bound.reschedule(loop.time() + seconds)

            request.renew = renew
            return await asked()
    except TimeoutError:
        text = f"it does not answer within {seconds:g} s"
        raise ToolServerError(text, "late", may_have_run=request.was_sent) from None
    finally:
        request.renew = None
