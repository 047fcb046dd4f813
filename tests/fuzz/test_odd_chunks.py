"""Chunks whose side members have another type than the API promises.

Invariant: whatever stands beside the text, the client gets the whole text and a finish, with either implementation of
the kernels, translated and passed through; and everything that the client gets is JSON.

A side member is every member that does not lead to the text. The specimens are the fixtures of each provider
(`tests/corpus/fixtures`), with the members beside them that a provider sends only if it is asked (`BESIDE`). In each
chunk that has the member, its value is replaced by each value of `ODD`; once in all chunks, and once only in those
after the first text, where a frame has been learned. `python -m tests.fuzz.test_odd_chunks` prints the table.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from tests.corpus.test_fixtures import FIXTURES, provider_of
from tests.kernels import IMPLEMENTATIONS, IS_REPEATED, is_set, load
from tests.parity.test_relay import relayed
from tests.replaced import replaced

TOKEN = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -1.5, "bytes": None}]}
LOGPROBS = {"content": [TOKEN], "refusal": None}
CHAT = {"service_tier": "default", "system_fingerprint": "fp", "choices": [{"logprobs": LOGPROBS}]}
BESIDE: dict[str, dict[str, Any]] = {
    "openai": CHAT,
    "openai-compatible": CHAT,
    "openai:completions": {"choices": [{"logprobs": {"tokens": ["a"], "token_logprobs": [-0.5], "text_offset": [0]}}]},
    "openai:responses": {"logprobs": [TOKEN], "obfuscation": "x"},
    "openrouter": {"provider": "OpenAI", "choices": [{"native_finish_reason": None}]},
    "xai": {"system_fingerprint": "fp"},
    "gemini": {
        "createTime": "2026-11-20T09:51:02Z",
        "promptFeedback": {"safetyRatings": [{"category": "HARM", "probability": "LOW"}]},
        "candidates": [
            {
                "safetyRatings": [{"category": "HARM", "probability": "LOW", "probabilityScore": 0.5}],
                "tokenCount": 1,
                "avgLogprobs": -0.5,
                "logprobsResult": {"chosenCandidates": [{"token": "a", "tokenId": 1, "logProbability": -0.5}]},
                "urlContextMetadata": {"urlMetadata": []},
            }
        ],
    },
    "ollama": {"logprobs": [TOKEN]},
}
"""Members that a provider sends if it is asked for them, added to each chunk of a text."""

CASES = ("text", "reasoning", "one_tool", "citations", "usage", "server_tool", "safety", "audio", "media")
"""The fixtures whose side members differ."""

TEXT: dict[str, list[tuple[str, ...]]] = {
    "anthropic": [("content_block", "text")],
    "ollama": [("message",), ("message", "content")],
    "ollama:generate": [("response",)],
}
"""Places of text that is empty in some of the fixtures."""

NAN, INFINITY = "\ue000NaN", "\ue000-Infinity"
"""Written as Python's `json` writes them, without quotes."""

ODD: dict[str, Any] = {
    "string": "x",
    "number": 20260611001,
    "float": 0.5,
    "true": True,
    "false": False,
    "null": None,
    "empty list": [],
    "list": [1],
    "list of text": ["x", None],
    "empty object": {},
    "object": {"x": 1},
    "huge": 10**30,
    "beyond floats": "\ue0001e999",
    "negative": -1,
    "NaN": NAN,
    "-Infinity": INFINITY,
}

MEANT = frozenset({"error", "errors", "detail"})
"""Members that report a failure: what stands in them is meant."""

ALONE = ("openai-compatible:responses", "openrouter:responses")
"""Their ids change or are missing: one member alone tells which item an event belongs to."""

LOST = frozenset({"arguments", "partial_json", "server_label"})
"""Members of a call: if a number in it cannot be written, a piece of the call is lost, and the attempt fails."""

PASSES = {
    "openai": "openai",
    "openai:completions": "completions",
    "anthropic": "anthropic",
    "openai:responses": "responses",
}
"""The format of clients that get the provider's frames as they came."""

Path_ = tuple[str | int, ...]


class Specimen(NamedTuple):
    """An answer as a provider sends it."""

    provider: str
    case: str
    frames: list[tuple[str, Any, str]]
    """The text before the JSON of each frame, the JSON, and the text after it."""
    is_text: list[bool]
    """Whether each frame has text."""
    to_text: frozenset[Path_]
    """The paths that lead to text."""
    text: str
    texts: list[str]
    """Each frame as it is written."""

    def kind(self, at: int) -> str:
        """Returns the kind of a frame, by which the members of an event differ."""
        chunk = self.frames[at][1]
        return str(chunk.get("type", "")) if isinstance(chunk, dict) else ""


encoded = json.JSONEncoder(ensure_ascii=False).encode  # `json.dumps` makes an encoder for each call


def frame_text(before: str, value: Any, after: str) -> str:
    return before + re.sub(r'"\ue000([^"]*)"', r"\1", encoded(value)) + after if value is not None else before + after


def written(frames: list[tuple[str, Any, str]]) -> bytes:
    return "".join(frame_text(*frame) for frame in frames).encode()


def frames_of(body: str) -> list[tuple[str, Any, str]]:
    frames: list[tuple[str, Any, str]] = []
    for text in re.split(r"(?<=\n\n)" if "data:" in body else r"(?<=\n)", body):
        found = re.search(r"\{.*\}", text)
        frames.append((text[: found.start()], json.loads(found[0]), text[found.end() :]) if found else (text, None, ""))
    return frames


def merged(value: Any, beside: Any) -> Any:
    """Returns the value with the members of another one beside its own."""
    if isinstance(value, dict) and isinstance(beside, dict):
        return {
            **value,
            **{name: merged(value[name], more) if value.get(name) else more for name, more in beside.items()},
        }
    if isinstance(value, list) and isinstance(beside, list):
        return [merged(each, more) for each, more in zip(value, beside, strict=False)] + value[len(beside) :]
    return value


def paths_of(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Yields the path of every member in a value."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in members:
        yield (*path, name)
        yield from paths_of(inner, (*path, name))


def at_path(value: Any, path: Path_) -> Any:
    for step in path:
        value = value[step]
    return value


def has_path(value: Any, path: Path_) -> bool:
    for step in path:
        if isinstance(value, dict if isinstance(step, str) else list) and step in (
            value if isinstance(value, dict) else range(len(value))
        ):
            value = value[step]
        else:
            return False
    return True


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


decoded = json.JSONDecoder(parse_constant=refuse).decode


def text_and_end(kernels: ModuleType, provider: str, body: bytes) -> tuple[str, str]:
    """Returns the text of an answer, and `finish` or the code of its error."""
    out = b"".join(relayed(kernels, provider, [body[:700], body[700:]], ("gai", "ndjson", False, {}))[0])
    events = [decoded(line.decode()) for line in out.splitlines()]
    text = "".join(event["text"] for event in events if event["type"] == "text.delta" and "choice" not in event)
    end = events[-2]
    return text, "finish" if end["type"] == "finish" else f"{end['error']['code']} {end['error'].get('reason')}"


def specimen(path: Path, kernels: ModuleType) -> Specimen:
    """Finds what leads to the text of a fixture: a string that is changed changes the text."""
    provider, frames = provider_of(path), frames_of(path.read_text())
    text, end = text_and_end(kernels, provider, path.read_bytes())
    assert end == "finish", path
    is_text, to_text = [False] * len(frames), set[Path_]()
    for at, (before, chunk, after) in enumerate(frames):
        for where in paths_of(chunk):
            old = at_path(chunk, where)
            if isinstance(old, str) and old and old in text:
                changed = [*frames[:at], (before, replaced(chunk, where, old + "\u00a7"), after), *frames[at + 1 :]]
                if "\u00a7" in text_and_end(kernels, provider, written(changed))[0]:
                    is_text[at] = True
                    to_text.update(where[:size] for size in range(1, len(where) + 1))
    beside = BESIDE.get(provider)
    if beside is not None:
        frames = [(b, merged(c, beside) if is_text[at] else c, a) for at, (b, c, a) in enumerate(frames)]
    spoken: Path_ = ("choices", 0, "delta", "content")
    if any("choices" in (chunk or ()) for _, chunk, _ in frames):
        to_text.update(spoken[:size] for size in range(1, 5))
    to_text.update(TEXT.get(provider, ()))
    for at, (_, chunk, _) in enumerate(frames):
        if True not in is_text and has_path(chunk, spoken[:3]):  # text before a call
            is_text[at], chunk["choices"][0]["delta"]["content"] = True, "I look."
    if path.stem == "text":  # some more chunks alike, so that they are copied
        frames = [frame for at, frame in enumerate(frames) for _ in range(3 if is_text[at] else 1)]
        is_text = [has for has in is_text for _ in range(3 if has else 1)]
    text, end = text_and_end(kernels, provider, written(frames))
    assert text or path.stem != "text", path
    assert end == "finish", path
    texts = [frame_text(*frame) for frame in frames]
    return Specimen(provider, path.stem, frames, is_text, frozenset(to_text), text, texts)


def side_members(whole: Specimen) -> Iterator[tuple[str, Path_]]:
    """Yields the kind of the chunk and the path of each side member."""
    seen = set()
    for at, (before, chunk, _) in enumerate(whole.frames):
        for path in paths_of(chunk):
            kind = whole.kind(at)
            names_the_chunk = path == ("type",) and "event:" not in before
            is_alone = path[-1] in ("id", "output_index") and whole.provider in ALONE
            if is_alone:
                continue
            if (kind, path) not in seen and path not in whole.to_text and path[-1] not in MEANT and not names_the_chunk:
                seen.add((kind, path))
                yield kind, path


def is_meant(old: Any, path: Path_, odd: Any) -> bool:
    """Returns whether a value is of the promised type, or as good as missing, so that it means something else."""
    is_missing = not odd or odd in (NAN, INFINITY)
    if path[-1] in ("finishReason", "thought") and is_missing:  # Gemini's end mark, and what tells thoughts from text
        return True
    if odd == ODD["beyond floats"] and not LOST.isdisjoint(path):
        return True
    if path == ("done",) and odd is True:  # Ollama's end mark
        return True
    if isinstance(odd, str):
        is_piece = len(path) > 1 and path[-2] == "content" and isinstance(path[-1], int)  # of a content list
        return not odd.startswith("\ue000") and (is_piece or old is None or isinstance(old, str))
    return str(path[-1]).endswith("index") and isinstance(odd, int) and not isinstance(odd, bool) and odd >= 0


def bodies(whole: Specimen, kind: str, path: Path_, odd: Any) -> Iterator[bytes]:
    """Yields the answer with the odd value in all chunks, and in those after the first text."""
    first = whole.is_text.index(True) if True in whole.is_text else 0
    for begin in (first + 1, 0):
        texts, is_changed = whole.texts.copy(), False
        for at, (before, chunk, after) in enumerate(whole.frames[begin:], begin):
            is_of_kind = whole.kind(at) == kind and has_path(chunk, path)
            if is_of_kind and not is_meant(at_path(chunk, path), path, odd):
                texts[at] = frame_text(before, replaced(chunk, path, odd), after)
                is_changed = True
        if is_changed:
            yield "".join(texts).encode()


def lost(whole: Specimen, kernels: ModuleType) -> list[str]:
    """Returns the faults, for each side member and each odd value.

    Each implementation takes half of the values, in turns; a repeated run takes an eighth, an exhaustive one all.
    """
    faults = []
    is_native = kernels.__name__.endswith("_native")
    for at, (kind, path) in enumerate(side_members(whole)):
        for turn, (name, odd) in enumerate(ODD.items(), at):
            if not is_set("GAI_FAST_EXHAUSTIVE") and (turn + is_native) % (8 if IS_REPEATED else 2):
                continue
            for body in islice(bodies(whole, kind, path, odd), None if is_set("GAI_FAST_EXHAUSTIVE") else 1):
                got, end = text_and_end(kernels, whole.provider, body)
                if got != whole.text or end != "finish":
                    where = ".".join(map(str, path))
                    what = "text" if got != whole.text else ""
                    faults.append(f"{whole.case} {kind}:{where} = {name}: {what} {'' if end == 'finish' else end}")
    return faults


@pytest.mark.parametrize("provider", PASSES)
@pytest.mark.parametrize("odd", [NAN, INFINITY])
def test_numbers_that_are_no_json_are_null_where_frames_pass_as_they_came(
    provider: str, odd: str, kernels: ModuleType
) -> None:
    """Python's `json` writes them, and no other reader reads them. They are never copied, and the text stays."""
    whole = specimen(FIXTURES / provider.replace(":", "-") / "text.sse", kernels)
    how = (PASSES[provider], "sse", True, {})
    for kind, path in side_members(whole):
        for body in bodies(whole, kind, path, odd):
            out = b"".join(relayed(kernels, provider, [body[:700], body[700:]], how)[0]).decode()
            chunks = [line.removeprefix("data:").strip() for line in out.splitlines() if line.startswith("data:")]
            valid = [json.loads(chunk, parse_constant=refuse) for chunk in chunks if chunk != "[DONE]"]
            came = [chunk for _, chunk, _ in frames_of(body.decode().replace(odd[1:], "null")) if chunk is not None]
            # Of an end whose type is no text, Anthropic's format adds its own.
            assert valid[: len(came)] == came, (kind, path)


SPECIMENS = sorted(
    path
    for case in CASES
    for path in FIXTURES.glob(f"*/{case}.*")
    if ".events" not in path.suffixes
    if path.parent.name != "python"  # a wrong event is reported to the function's author
)


@pytest.mark.parametrize("path", SPECIMENS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_text_survives_every_wrong_type_of_every_side_member(path: Path, kernels: ModuleType) -> None:
    faults = lost(specimen(path, kernels), kernels)
    assert not faults, f"{len(faults)} of {path}:\n" + "\n".join(faults[:60])


if __name__ == "__main__":
    for implementation in IMPLEMENTATIONS:
        for path in SPECIMENS:
            found = lost(specimen(path, load(implementation)), load(implementation))
            print(implementation, path.parent.name, path.stem, len(found))
            members = Counter(re.sub(r" = .*", "", fault) for fault in found)
            for member, times in members.most_common():
                print("   ", times, member)
