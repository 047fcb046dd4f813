"""What each run of the soak does: its ten steps, the calls of each, and how its client asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal, NamedTuple

STEPS: Final = 10
"""Turns of the model. The last one answers; all others call tools."""
TOOLS: Final = {"look": True, "pay": False, "sign": False, "books__read": True, "books__write": False}
"""The tools, as the model sees them, and whether each may be called again. A person approves of `sign`."""
SERVER: Final = "books"
"""The server of tools, over MCP. The others are tools of the gateway's own, over HTTP."""
_REPEATED: Final = ("look", "books__read")
_ONCE: Final = ("pay", "books__write")
Form = Literal["stream", "start", "whole"]
"""How a client asks: for a stream that it reads, for one that it follows afterwards, or for a whole answer."""
FORMS: Final[tuple[Form, ...]] = ("stream", "stream", "start", "whole")
_SHARE_OF_APPROVALS: Final = 0.3
_SHARE_OF_PAIRS: Final = 0.4
_SHARE_OF_DENIALS: Final = 0.3


class Place(NamedTuple):
    """A call of a run: the run's tag, the step from 1, and the place in it from 0."""

    tag: str
    step: int
    at: int


@dataclass(frozen=True)
class RunPlan:
    """One run.

    Attributes:
        tag: Its name, which its question and the arguments of its calls have.
        form: How its client asks for it.
        calls: The tool of each of its calls.
        denied: The calls that the person denies.
    """

    tag: str
    form: Form
    calls: dict[Place, str]
    denied: frozenset[Place] = frozenset()

    def of_step(self, step: int) -> list[Place]:
        """Returns the calls of a step, in order."""
        return [place for place in self.calls if place.step == step]


def plan_of(random: Random, tag: str) -> RunPlan:
    """Draws a run. Nobody decides in one whose answer is asked for as a whole."""
    form = random.choice(FORMS)
    asks = form != "whole" and random.random() < _SHARE_OF_APPROVALS
    signed = {*random.sample(range(1, STEPS), random.randint(1, 2))} if asks else set()
    calls: dict[Place, str] = {}
    for step in range(1, STEPS):
        names = [random.choice(random.choice((_REPEATED, _ONCE)))]
        if random.random() < _SHARE_OF_PAIRS:
            names.append(random.choice(_ONCE if names[0] in _REPEATED else _REPEATED + _ONCE))
        if step in signed:
            names[random.randrange(len(names))] = "sign"
        calls |= {Place(tag, step, at): name for at, name in enumerate(names)}
    signs = [place for place, name in calls.items() if name == "sign"]
    return RunPlan(tag, form, calls, frozenset(each for each in signs if random.random() < _SHARE_OF_DENIALS))


def place_of(arguments: Any) -> Place:
    """Returns the call with these arguments."""
    return Place(arguments["run"], arguments["step"], arguments["at"])


def arguments_of(place: Place) -> dict[str, Any]:
    """Returns the arguments of a call."""
    return {"run": place.tag, "step": place.step, "at": place.at}
