"""The script of the upstream: what it answers, whatever the dialect of the request.

A request whose user speaks of the weather, or of `notes.txt`, is answered with a call of a tool that it offers. One
that holds the result of a tool is answered with what the result says, every other one with a story.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

STORY: Final = "Once upon a time a café’s old cat 🐈 asked a small stream: “Where do you go?”"
RESULT: Final = "4 °C"
"""The result of the tools of programs/README.md, and the content of `notes.txt`."""
WEATHER: Final = f"It is {RESULT} in Oslo."
NO_RESULT: Final = "The tool said something else."
INPUT_TOKENS: Final = 21
OUTPUT_TOKENS: Final = 13
CREATED: Final = 1_700_000_000
"""The time in every answer, in seconds since the epoch."""

# The tools that an answer may call, with their arguments: the page's own, and those with which agents run a command.
_SHOW: Final = "cat notes.txt"
TOOLS: Final[Mapping[str, Mapping[str, Any]]] = {
    "weather": {"city": "Oslo"},
    "Bash": {"command": _SHOW, "description": "Shows the notes"},
    "exec_command": {"cmd": _SHOW},
    "shell_command": {"command": _SHOW},
    "shell": {"command": ["cat", "notes.txt"]},
}


@dataclass(frozen=True)
class Asked:
    """The part of a request that the script reads.

    Args:
        said: All texts of the user.
        tools: The names of the tools that the request offers.
        results: The results of tools in the conversation.
    """

    said: str
    tools: Sequence[str]
    results: Sequence[str]


@dataclass(frozen=True)
class Answer:
    """An answer: a text, or a call of a tool with these arguments."""

    text: str = ""
    tool: str = ""
    arguments: Mapping[str, Any] | None = None

    @property
    def pieces(self) -> list[str]:
        """The text in deltas: its words."""
        first, *more = self.text.split(" ")
        return [first, *(f" {word}" for word in more)]


def answer_to(asked: Asked) -> Answer:
    """The scripted answer to a request."""
    if asked.results:
        return Answer(WEATHER if any(RESULT in result for result in asked.results) else NO_RESULT)
    if "weather" in asked.said or "notes.txt" in asked.said:
        for name, arguments in TOOLS.items():
            if name in asked.tools:
                return Answer(tool=name, arguments=arguments)
    return Answer(STORY)


def texts_of(content: Any) -> str:
    """The text of a message's content, which is a string or a list of parts with texts."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text") or "") for part in content)
    return str(content or "")


def cut_in_two(text: str) -> tuple[str, str]:
    """Two fragments of a call's arguments."""
    return text[: len(text) // 2], text[len(text) // 2 :]
