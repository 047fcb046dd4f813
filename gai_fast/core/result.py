"""The answer of a stream, as its collected events give it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gai_fast.model.errors import Error


@dataclass(slots=True)
class ToolCallResult:
    """One complete call.

    Args:
        call_id: The provider's id, or an id of ours, unique in the answer.
        name: The tool.
        input: The parsed arguments, integers exact; a `str` if they are not JSON.
        arguments: The argument text as it came. If none came, the JSON text of `input`.
    """

    call_id: str
    name: str
    input: Any
    arguments: str


@dataclass(slots=True)
class Result:
    """One answer: the first of several choices. Everything before a `stream.reset` is dropped.

    Args:
        text: The visible text.
        reasoning: The reasoning text.
        refusal: The text of a refusal.
        tool_calls: The complete calls that are left to the client, in order.
        citations: All citations, in order.
        finish_reason: One of `events.FINISH_REASONS`. `None` if the stream failed.
        finish_reason_raw: The provider's finish reason.
        reason: Why the gateway has ended it, as `finish` has it. Empty if it has not.
        usage: Token counts as in `docs/events.md`. `None` if they are unknown.
        error: The failure of the stream. `None` if it has not failed.
        message: The answer as a message for the next request's `messages`, including signatures. Images and sounds are
            left out: few providers accept them in an earlier answer. Of a run it is the last one.
        messages: All messages that the answer adds to the conversation: `message`, and in a run those of earlier turns
            and the results of the gateway's calls, as messages of the role `tool`.
        metrics: Times and rates of the stream; empty if they were not measured.
        provider: The provider's name.
        model: The model that answered.
        logprobs: The probabilities of the tokens of `text`, if the request asked for them.
    """

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: list[ToolCallResult] = field(default_factory=list)
    citations: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None
    finish_reason_raw: str | None = None
    usage: dict[str, Any] | None = None
    error: Error | None = None
    message: dict[str, Any] = field(default_factory=lambda: {"role": "assistant", "content": []})
    metrics: dict[str, Any] = field(default_factory=dict)
    provider: str | None = None
    model: str | None = None
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=lambda: [{"role": "assistant", "content": []}])
    reason: str = ""

    def raise_for_error(self) -> Result:
        """Returns this result.

        Raises:
            Error: The stream failed.
        """
        if self.error is not None:
            raise self.error
        return self
