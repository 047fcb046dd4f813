"""The scenarios: the shapes of load, in a quick and a full edition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

Kind = Literal["burst", "paced", "first", "cold", "streams", "memory"]
"""Answers as fast as they go · answers as fast as models are · one answer at a time · the first answers of a process,
all asked for at once · many open answers · answers that the contender makes itself."""

WORDS: Final = (
    " the",
    " lighthouse",
    " keeper",
    " said",
    ",",
    " “nobody comes here”",
    ".\\n\\n",
    " Übermut",
    ' \\"and',
    ' so\\"',
    " 🌊",
    " it",
    " was",
    " extraordinarily",
    " quiet",
    " that night",
)
"""The texts of the deltas, over and over, as bodies of JSON strings: short, as tokens are, with the escapes and the
characters outside ASCII that prose has."""

OVER_TLS: Final = frozenset({"burst-1000", "burst-100", "paced", "cold", "streams"})
"""The scenarios that are measured with an upstream over TLS too."""
FULL_ONLY: Final = frozenset({"formats", "cold", "tls-burst-100", "tls-paced", "tls-streams"})
"""The scenarios that the quick edition leaves out, which is to take less than three minutes."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One shape of load.

    Args:
        key: Its name in the results.
        title: Its name in the report.
        about: Its description, in a sentence.
        kind: The kind of load, which decides on the figures.
        events: Deltas of an answer.
        connections: Answers at once; of kind `streams`, each number of them in turn.
        rounds: Times that the contenders take turns.
        milliseconds: The length of one turn; answers that have begun are waited for.
        interval_us: Between two deltas; 0: the whole answer is there at once.
        vary: Whether the upstream's frames differ in more than their text.
        wire: Which of `Contender.wires` is asked for; empty: `Contender.route`.
        tls: Whether the upstream is reached over TLS.
    """

    key: str
    title: str
    about: str
    kind: Kind
    events: int
    connections: tuple[int, ...]
    rounds: int
    milliseconds: int = 0
    interval_us: int = 0
    vary: bool = False
    wire: str = ""
    tls: bool = False


def scenarios(*, quick: bool) -> list[Scenario]:
    """Returns all of them; quick: a fifth of the time."""
    rounds = 3 if quick else 5
    turn = 600 if quick else 2000
    levels = (500,) if quick else (500, 1000, 2000, 4000)
    plain = [
        Scenario(
            "burst-1000",
            "Burst of 1,000",
            "answers of 1,000 deltas that are there at once, 32 connections",
            "burst",
            1000,
            (32,),
            rounds,
            turn,
        ),
        Scenario(
            "burst-100",
            "Burst of 100",
            "answers of 100 deltas that are there at once, 32 connections",
            "burst",
            100,
            (32,),
            rounds,
            turn,
        ),
        Scenario(
            "burst-100-varying",
            "Burst of 100, varying frames",
            "the same with padding of changing length in every frame, as OpenAI sends it",
            "burst",
            100,
            (32,),
            rounds,
            turn,
            vary=True,
        ),
        *(
            Scenario(
                key,
                title,
                f"answers of 1,000 deltas that are there at once, 32 connections, {about}",
                "burst",
                1000,
                (32,),
                rounds,
                turn,
                wire=key,
            )
            for key, title, about in (
                ("formats", "Every format", "from a chat upstream into each format"),
                ("responses", "Responses upstream", "from a Responses upstream"),
                ("messages", "Messages upstream", "from a Messages upstream"),
            )
        ),
        Scenario(
            "paced",
            "Paced",
            "answers of 100 deltas 10 ms apart, 200 connections",
            "paced",
            100,
            (200,),
            2 if quick else 5,
            900 if quick else 1900,
            interval_us=10_000,
        ),
        Scenario(
            "first",
            "First token",
            "one connection, one answer of 10 deltas after the other",
            "first",
            10,
            (1,),
            2 if quick else 5,
            500 if quick else 1000,
        ),
        Scenario(
            "cold",
            "Cold start",
            "a fresh process, 200 connections that each ask at once for an answer of 100 deltas 10 ms apart",
            "cold",
            100,
            (200,),
            2 if quick else 5,
            interval_us=10_000,
        ),
        Scenario(
            "streams",
            "Open streams",
            f"{' to '.join(f'{level:,}' for level in (levels[0], levels[-1])[: len(levels)])} answers open at once",
            "streams",
            12,
            levels,
            1,
            interval_us=200_000 if quick else 800_000,
        ),
        Scenario(
            "memory",
            "From memory",
            "answers of 100 events that the contender makes itself, 32 connections; no upstream",
            "memory",
            100,
            (32,),
            rounds,
            turn,
        ),
    ]
    every = [*plain, *(_over_tls(one) for one in plain if one.key in OVER_TLS)]
    return [one for one in every if not (quick and one.key in FULL_ONLY)]


def _over_tls(scenario: Scenario) -> Scenario:
    """Returns the same load, the upstream reached over TLS; open streams are 200, as many as paced ones."""
    is_streams = scenario.kind == "streams"
    return replace(
        scenario,
        key=f"tls-{scenario.key}",
        title=f"{scenario.title}, TLS",
        about=f"{'200 answers open at once' if is_streams else scenario.about}; the upstream speaks TLS",
        connections=(200,) if is_streams else scenario.connections,
        tls=True,
    )
