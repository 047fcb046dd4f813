"""What the end of a run says of its turns, whether it runs, waits, goes on, or nobody has it. Sans-IO.

1. A `finish` has `usage` and `steps`, an `error` has `usage`. Turns that have not ended have no usage, and one of which
   no event was sent is no step.
2. A step counts the calls that the gateway makes, or answers because nobody has offered their tool.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gai_fast.core.answer import usage_of_all
from gai_fast.core.run import RunStep, steps_of_record
from gai_fast.net.runs.records.state import decode_state


def told_of(
    steps: Sequence[RunStep],
    usages: Sequence[dict[str, Any]],
    providers: Mapping[int, tuple[str, str]],
    client_tools: Collection[str],
) -> dict[str, Any]:
    """Returns what the end of a run says: `usage`, empty if it is not known, and `steps`.

    Args:
        steps: Its turns.
        usages: The usage of each turn that has ended.
        providers: Provider and model of each turn that has begun.
        client_tools: The names of the client's tools.
    """
    begun = [step for step in steps if step.number in providers]
    told = [_step_of(step, usages, providers[step.number], client_tools) for step in begun]
    return {"usage": usage_of_all(usages), "steps": told}


def told_of_state(state: bytes, client_tools: Collection[str]) -> dict[str, Any]:
    """Returns what the end of a run says, from its record; as `told_of`.

    Args:
        state: Its last state; empty if none was kept.
        client_tools: The names of the client's tools.

    Raises:
        ValueError: The state is none.
    """
    if not state:
        return {}
    memory = decode_state(state)
    return told_of(steps_of_record(memory.run), memory.usages, memory.providers, client_tools)


def _step_of(
    step: RunStep,
    usages: Sequence[dict[str, Any]],
    named: tuple[str, str],
    client_tools: Collection[str],
) -> dict[str, Any]:
    at = step.number - 1
    found: dict[str, Any] = {"step": step.number, "provider": named[0], "model": named[1]}
    if at < len(usages):
        found["usage"] = usages[at]
    own = [call for call in step.calls if call.tool is not None or call.name not in client_tools]
    found["tool_calls"] = len(own)  # rule 2
    return {name: value for name, value in found.items() if value not in ("", {})}
