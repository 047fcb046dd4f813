"""Streams of our fixtures, and of recordings if there are some, bent in ways that no provider has shown yet.

Whatever a chunk says, and however it is written, a relay that copies gives what one gives that parses everything.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernels import is_set
from tests.parity.test_relay import FORMATS, Both, copied_of, recordings, same

FIXTURES = Path(__file__).parents[1] / "corpus/fixtures"
SAMPLES = 10_000 if is_set("GAI_FAST_EXHAUSTIVE") else 200
"""Streams for each way of bending."""


# ---- JSON that keeps how it was written -----------------------------------------------------------------------------


class Members(list[Any]):
    """An object: names, as they are written, and values, in order; a name may stand there twice."""


class Raw(str):
    """A value that is written as it is: mostly a number."""


def read(text: str) -> Any:
    def pairs(members: Any) -> Members:
        return Members([json.dumps(name), value] for name, value in members)

    return json.loads(text, object_pairs_hook=pairs, parse_int=Raw, parse_float=Raw)


def written(value: Any) -> str:
    if isinstance(value, Members):
        return "{" + ",".join(f"{name}:{written(inner)}" for name, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return str(value) if isinstance(value, Raw) else json.dumps(value)


def members_in(value: Any) -> Iterator[tuple[Members, int]]:
    """Yields each member in a value: the object it stands in, and its place there."""
    if isinstance(value, Members):
        for place, (_, inner) in enumerate(value):
            yield value, place
            yield from members_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from members_in(inner)


def copy_of(value: Any) -> Any:
    if isinstance(value, Members):
        return Members([name, copy_of(inner)] for name, inner in value)
    return [copy_of(inner) for inner in value] if isinstance(value, list) else value


# ---- the ways -------------------------------------------------------------------------------------------------------

Bend = Callable[[Any, random.Random], None]
"""Changes a chunk in place. The dice are the same for all chunks of a stream, but for `fresh`."""

NUMBERS = ["0", "-0", "7", "7.0", "7.5", "0.0", "1e2", "1E+2", "15e-1", "10e-1", "123456789012345", "1234567890123456"]
NUMBERS += [
    "0.30000000000000004",
    "1.00000000000000000001",
    "0.99999999999999999999",
    "-1",
    '"7"',
    "null",
    "true",
    "[]",
]
BAD_NUMBERS = ["", " ", "   ", "\t", "01", "+1", "1.", ".5", "-", "1e", "\x00", "NaN"]
WORDS = ["content", "text", "delta", "usage", "usageMetadata", "thinking", "response", "arguments", "created", "id"]
USAGES = [
    '{"prompt_tokens":@,"completion_tokens":@}',
    '{"prompt_tokens":@.5,"completion_tokens":@.0}',
    '{"reasoning_tokens":@}',
    '{"cost":0.@1}',
    '{"promptTokenCount":@,"candidatesTokenCount":@}',
    '{"promptTokenCount":@.5,"totalTokenCount":null}',
    "null",
    "{}",
]


def chosen(chunk: Any, dice: random.Random, *, wanted: str = "") -> tuple[Members, int] | None:
    """Returns one member of a chunk; one of those whose name matters, if there is one."""
    found = list(members_in(chunk))
    named = [each for each in found if each[0][each[1]][0].strip('"') in (wanted or WORDS)]
    return dice.choice(named if named and dice.random() < 0.8 else found) if found else None


def escaped(name: str, dice: random.Random) -> str:
    at = dice.randrange(1, max(len(name) - 1, 2))
    return f"{name[:at]}\\u{ord(name[at]):04x}{name[at + 1 :]}" if name[at] not in '\\"' else name


def names_written_with_escapes(chunk: Any, dice: random.Random) -> None:
    """Instead of the plain one, before it or behind it."""
    if found := chosen(chunk, dice):
        members, place = found
        name, value = members[place]
        other = [escaped(name, dice), dice.choice([value, value, "other", Raw("1"), Raw("null")])]
        dice.choice(
            [
                lambda: members.insert(place, other),
                lambda: members.append(other),
                lambda: members.__setitem__(place, other),
            ]
        )()


def members_that_stand_twice(chunk: Any, dice: random.Random) -> None:
    if found := chosen(chunk, dice):
        members, place = found
        name, value = members[place]
        value = dice.choice([copy_of(value), copy_of(value), "other", Raw("null"), Members(), Raw("5")])
        members.insert(dice.randrange(len(members) + 1), [name, value])


def members_that_moved(chunk: Any, dice: random.Random) -> None:
    """To any other object of the chunk, or to a new one; perhaps it stays as well."""
    found = chosen(chunk, dice)
    if found is None:
        return
    members, place = found
    moved = copy_of(members[place])
    if dice.random() < 0.5:
        del members[place]
    homes = [chunk] + [
        inner[1] for outer, at in members_in(chunk) for inner in [outer[at]] if isinstance(inner[1], Members)
    ]
    home = dice.choice(homes)
    if dice.random() < 0.3:
        home.append([dice.choice(['"audio"', '"custom"', '"x_groq"', '"x"']), Members()])
        home = home[-1][1]
    home.insert(dice.randrange(len(home) + 1), moved)


def numbers_of_other_kinds(chunk: Any, dice: random.Random) -> None:
    for members, place in list(members_in(chunk)):
        if isinstance(members[place][1], Raw) and dice.random() < 0.6:
            members[place][1] = Raw(dice.choice(NUMBERS))


def numbers_that_are_none(chunk: Any, dice: random.Random) -> None:
    for members, place in list(members_in(chunk)):
        if isinstance(members[place][1], Raw) and dice.random() < 0.2:
            size = len(members[place][1])
            members[place][1] = Raw(dice.choice([*BAD_NUMBERS, " " * size, " " * size, "\x00" * size]))


def usage_in_other_places(chunk: Any, dice: random.Random) -> None:
    homes = [chunk] + [outer[at][1] for outer, at in members_in(chunk) if isinstance(outer[at][1], Members)]
    homes += [inner for outer, at in members_in(chunk) if isinstance(outer[at][1], list) for inner in outer[at][1]]
    home = dice.choice([home for home in homes if isinstance(home, Members)])
    usage = dice.choice(USAGES).replace("@", str(dice.randrange(1, 5)))
    home.insert(dice.randrange(len(home) + 1), [dice.choice(['"usage"', '"usageMetadata"']), Raw(usage)])


def texts_from_other_places(chunk: Any, dice: random.Random) -> None:
    """The text moves to where adapters read it as well, and a member of its old name stays somewhere."""
    found = [
        (outer, at)
        for outer, at in members_in(chunk)
        if isinstance(outer[at][1], str) and not isinstance(outer[at][1], Raw)
    ]
    found = [(outer, at) for outer, at in found if outer[at][0].strip('"') in WORDS] or found
    if not found:
        return
    members, place = dice.choice(found)
    name, text = members[place]
    piece = Members([['"type"', "text"], ['"text"', text]])
    dice.choice(
        [
            lambda: members.__setitem__(place, ['"audio"', Members([['"transcript"', text]])]),
            lambda: members.__setitem__(place, [name, [piece]]),
            lambda: members.__setitem__(place, [name, [text]]),
            lambda: members.__setitem__(place, ['"custom"', Members([['"input"', text]])]),
            lambda: members.__setitem__(place, ['"refusal"', text]),
            lambda: members.append(
                ['"reasoning_details"', [Members([['"type"', "reasoning.text"], ['"text"', text]])]]
            ),
            lambda: None,
        ]
    )()
    chunk.insert(
        dice.randrange(len(chunk) + 1),
        [dice.choice(['"x"', '"delta"', '"message"', '"choices"']), Members([[name, text]])],
    )


WAYS: dict[str, Bend] = {
    bend.__name__: bend
    for bend in (
        names_written_with_escapes,
        members_that_stand_twice,
        members_that_moved,
        numbers_of_other_kinds,
        numbers_that_are_none,
        usage_in_other_places,
        texts_from_other_places,
    )
}


# ---- streams --------------------------------------------------------------------------------------------------------


def frames_of(body: bytes) -> list[tuple[str, Any, str]]:
    """Returns the text before the JSON of each frame, the JSON or `None`, and the text behind it."""
    frames = []
    for text in re.split(
        r"(?<=\n\n)|(?<=\r\n\r\n)" if b"data:" in body else r"(?<=\n)", body.decode("utf-8", "replace")
    ):
        found = re.search(r"\{.*\}", text)
        try:
            value = read(found[0]) if found else None
        except ValueError:
            value = None
        frames.append(
            (text, None, "") if value is None or found is None else (text[: found.start()], value, text[found.end() :])
        )
    return frames


COUNTED = frozenset({"index", "output_index", "content_index"})
SAID = frozenset(
    {"content", "text", "delta", "thinking", "response", "arguments", "transcript", "input", "obfuscation"}
)


def varied(value: Any, dice: random.Random) -> None:
    """Other texts and counts, as the next chunk has them: mostly all alike, now and then each for itself."""
    word, more = dice.choice(["a", " b", "\u00e9", "\n", "\U0001f600"]), dice.randrange(1, 9)
    alike = dice.random() < 0.6
    for members, place in members_in(value):
        name, inner = json.loads(members[place][0]), members[place][1]
        if not alike and dice.random() < 0.5:
            word, more = dice.choice("xyz"), dice.randrange(1, 9)
        if isinstance(inner, Raw):
            if name not in COUNTED and inner.isdigit() and (int(inner) > 3 or dice.random() < 0.3):
                members[place][1] = Raw(str(int(inner) + more))
        elif isinstance(inner, str) and inner and name in SAID:
            members[place][1] = inner + word


def bent(body: bytes, bend: Bend, seed: str) -> list[bytes]:
    """The reads of a stream in which chunks come several times with other texts and counts, some of them bent."""
    dice = random.Random(seed)
    share = dice.choice([0.5, 0.8, 1.0])
    sames = dice.random() < 0.8  # chunks are bent alike, so that what a bent one has taught meets others like it
    blanks = dice.random() < 0.2
    reads: list[bytes] = []
    for before, value, behind in frames_of(body)[:24]:
        if value is None:
            reads.append(before.encode())
            continue
        way = random.Random(f"{seed} {sorted(json.dumps(members[place][0]) for members, place in members_in(value))}")
        state = way.getstate()
        for _ in range(dice.choice([1, 4, 8])):
            chunk = copy_of(value)
            if dice.random() < share:
                way.setstate(state)
                bend(chunk, way if sames else dice)
            varied(chunk, dice)
            text = written(chunk)
            if blanks:
                text = text.replace(":", ": ").replace("}", dice.choice([" }", "\t}", "}"]))
            reads.append(f"{before}{text}{behind}".encode("utf-8", "replace"))
    if dice.random() < 0.5:
        return reads
    whole = b"".join(reads)
    edges = sorted(dice.choices(range(len(whole) + 1), k=dice.choice([0, 1, 9])))
    return [whole[begin:end] for begin, end in zip([0, *edges], [*edges, len(whole)], strict=True)]


def streams() -> list[tuple[str, str, bytes]]:
    """(name, provider, body) of our fixtures, and of the recordings that are not too long."""
    ours = [
        (
            f"{path.parent.name}/{path.name}",
            re.sub("-(completions|generate|responses)$", r":\1", path.parent.name),
            path.read_bytes(),
        )
        for path in sorted(FIXTURES.glob("*/*"))
        if path.suffix in (".sse", ".ndjson")
        and not path.name.endswith(".events.ndjson")
        and path.parent.name != "demo"
    ]
    return ours + [(name, provider, body[:40_000]) for name, provider, body in recordings()]


@pytest.mark.timeout(3600 if is_set("GAI_FAST_EXHAUSTIVE") else 600)
@pytest.mark.parametrize("way", WAYS)
def test_a_bent_stream_is_relayed_as_if_every_chunk_were_parsed(both: Both, way: str) -> None:
    all_streams = streams()
    dice = random.Random(way)
    bodies = dice.choices(all_streams, k=SAMPLES)
    for number, (name, provider, body) in enumerate(bodies):
        seed = f"{way} {number}"
        reads = bent(body, WAYS[way], seed)
        how = dice.choice(FORMATS)
        try:
            same(both, provider, reads, how)
        except AssertionError as difference:
            pytest.fail(f"{name}, bent by {seed!r}: {difference}")


@pytest.mark.parametrize("way", WAYS)
def test_bent_streams_are_copied_too(both: Both, way: str) -> None:
    """Else all of the above would be true of a copier that learns nothing of them."""
    dice = random.Random(way)
    copied = 0
    for number, (_, provider, body) in enumerate(dice.choices(streams(), k=40)):
        reads = bent(body, WAYS[way], f"{way} {number}")
        copied += copied_of(both[0], provider, b"".join(reads), FORMATS[0])
    assert copied > 20
