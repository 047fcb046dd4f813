"""The UI message stream of Vercel's AI SDK: the format.

`request.py` reads requests. `stream.py` and `whole.py` write answers; `stream.py` lists the parts of each event. Knows
no route and no provider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from gai_fast.core.requests.gateway_calls import GivenDecision
from gai_fast.formats._base import Encoder, Format, Framing, StreamContext, StreamEncoder
from gai_fast.formats.vercel.request import decisions_in, is_own_body, read_ui_request
from gai_fast.formats.vercel.stream import OLDEST, RESETS, Parts
from gai_fast.formats.vercel.whole import WholeUIMessage
from gai_fast.model.request import Request


class VercelFormat(Format):
    """The parts that every client since 5.0.0 accepts."""

    name: ClassVar[str] = "vercel"
    framings: ClassVar[tuple[Framing, ...]] = ("sse",)
    headers: ClassVar[tuple[tuple[str, str], ...]] = (("x-vercel-ai-ui-message-stream", "v1"),)
    shares_native_routes: ClassVar[bool] = True
    sdk: ClassVar[int] = OLDEST

    def version(self, name: str) -> Format:
        """Returns the format for a major version of the SDK: `5`, `6` or `7`.

        Raises:
            ValueError: The version is unknown; the text lists the known ones.
        """
        if name not in _VERSIONS:
            raise ValueError(f"unknown version; known: {', '.join(_VERSIONS)}")
        return _VERSIONS[name]

    def encoder(self, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Creates an encoder of parts."""
        return Parts(framing, context, self.sdk)

    def whole(self, context: StreamContext) -> Encoder:
        """Creates an encoder of one `UIMessage`."""
        return WholeUIMessage(context)

    def owns_request(self, body: dict[str, Any]) -> bool:
        """Returns whether a body is the SDK's own."""
        return is_own_body(body)

    def parse_request(self, body: dict[str, Any]) -> tuple[Request, list[str]]:
        """Translates the SDK's body into a native request.

        Raises:
            InvalidRequest: The text names the member by its path.
        """
        return read_ui_request(body)

    def given_decisions(self, body: dict[str, Any]) -> Sequence[GivenDecision]:
        """Returns the answers of the last message to requests for approvals."""
        return decisions_in(body)


class _Vercel6(VercelFormat):
    """Adds `finishReason`, `tool-input-error`, `tool-approval-request` and `tool-output-denied`."""

    asks_approvals: ClassVar[bool] = True
    rests: ClassVar[bool] = True
    sdk: ClassVar[int] = 6


class _Vercel7(VercelFormat):
    """Adds `reset-step` and `tool-approval-response`."""

    can_reset: ClassVar[bool] = True
    can_reset_step: ClassVar[bool] = True
    asks_approvals: ClassVar[bool] = True
    rests: ClassVar[bool] = True
    sdk: ClassVar[int] = RESETS


FORMAT = VercelFormat()

_VERSIONS: Final[Mapping[str, Format]] = {"5": FORMAT, "6": _Vercel6(), "7": _Vercel7()}
