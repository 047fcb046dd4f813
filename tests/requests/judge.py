"""Sends specimens through a gateway and judges what each provider received.

(a) The provider's own types accept it, at every depth, extra members forbidden. (b) The provider's rules hold. (c)
Each meaning of the request reached the provider, or was refused by name and truly, or the client learned that it was
dropped or adjusted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.requests.answers import HISTORIES
from tests.requests.gateway import PATHS, Answer, Bench
from tests.requests.meanings import READERS, Asked, Meaning, compared
from tests.requests.recorded import RECORDED, VARIABLE, recorded
from tests.requests.rules import RULES, Received
from tests.requests.targets import MEMBERS, Target

SPECIMENS = Path(__file__).parent / "specimens"
OWN_WAYS = ("key", "processor", "fallback", "continue")
"""Ways in which a request in its provider's own dialect must arrive as it does without."""

_SIGNATURES = {"anthropic": "EqQBCgIYAhIM", "openai": "gAAAAsealed", "gemini": "Z2VtaW5p"}
"""The signatures in `HISTORIES`, by author."""
_SIGNED = {"anthropic": "anthropic", "openai:responses": "openai", "gemini": "gemini"}
"""The author whose signature a source's own history has."""
_OWNERS = ("openai", "azure", "anthropic", "anthropic-adaptive")
"""Who defines a dialect: a fault in a client's own body is the client's, and the provider says so. Real requests have
members of the provider that they were sent to, which others of its dialect get too, except strict ones."""


@dataclass
class Verdict:
    """What was found for one target.

    Attributes:
        failures: The ways in which each failure was seen, by `<door>/<specimen> · <failure>`.
        received: Requests that the provider received.
        accepted: Those that its types and rules accept.
        asked: Meanings of requests.
        kept: Those that were kept, refused by name, or reported.
    """

    failures: dict[str, list[str]] = field(default_factory=dict)
    received: int = 0
    accepted: int = 0
    asked: int = 0
    kept: int = 0

    def add(self, case: str, policy: str, failure: str) -> None:
        ways = self.failures.setdefault(f"{case} · {failure}", [])
        if policy not in ways:
            ways.append(policy)

    def lines(self, target: Target) -> list[str]:
        """Returns the failures as they are listed."""
        return [f"{target.name} · {failure} · {','.join(ways)}" for failure, ways in sorted(self.failures.items())]


@cache
def specimens() -> dict[str, dict[str, dict[str, Any]]]:
    """Returns the requests of each door by name: the specimens, and those that are `recorded`."""
    real = recorded(PATHS)
    return {door: {**json.loads((SPECIMENS / f"{door}.json").read_text()), **real[door]} for door in PATHS}


def sources() -> str:
    """Returns the line that says which requests were judged."""
    names = [name for bodies in specimens().values() for name in bodies]
    real = sum(name.startswith(RECORDED) for name in names)
    where = "" if real else f" ({VARIABLE} names a folder of them)"
    return f"requests judged: {len(names) - real} specimens, {real} recorded ones{where}, and histories of providers"


class Judge:
    """Judges targets with one gateway.

    Args:
        bench: The gateway and the fakes.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._histories: dict[str, dict[str, dict[str, Any]]] = {}

    def verdict(self, target: Target) -> Verdict:
        """Sends everything to one target."""
        verdict = Verdict()
        for door, bodies in specimens().items():
            for number, (name, body) in enumerate(bodies.items()):
                self._judge(verdict, target, door, name, body, number)
        for door, bodies in self._all_histories().items():
            for name, body in bodies.items():
                self._judge(verdict, target, door, name, body, -1)
        return verdict

    def _judge(self, verdict: Verdict, target: Target, door: str, name: str, body: dict[str, Any], number: int) -> None:
        case = f"{door}/{name}"
        body = body if door == "agui" else {"stream": True, **body}
        meaning = READERS[door](body)
        answer, plain = self._bench.ask(target, "plain", door, body)
        exchange = _Exchange(verdict, target, door, case, "plain", body, meaning)
        exchange.judge(answer, plain)
        if plain is None:
            answer, received = self._bench.ask(target, "drop", door, body)
            _Exchange(verdict, target, door, case, "drop", body, meaning).judge(answer, received)
            return
        if target.door != door or number < 0:
            return
        for policy in OWN_WAYS if number % 3 == 0 else OWN_WAYS[:2]:
            answer, received = self._bench.ask(target, policy, door, body)
            exchange = _Exchange(verdict, target, door, case, policy, body, meaning)
            exchange.judge(answer, received)
            if received is not None:
                exchange.compare(plain, received)

    def _all_histories(self) -> dict[str, dict[str, dict[str, Any]]]:
        if not self._histories:
            for door in ("chat", "responses", "messages", "gai"):
                self._histories[door] = {f"history of {each}": self._history(each, door) for each in HISTORIES}
        return self._histories

    def _history(self, source: str, door: str) -> dict[str, Any]:
        """Returns a request with the answer of a provider as a client of the door sends it back, and results."""
        base = specimens()[door]
        tools = {"tools": next(body["tools"] for body in base.values() if "tools" in body)[:1]}
        question = {"role": "user", "content": "What is the weather in Oslo and Rome?"}
        if door == "responses":
            asked: dict[str, Any] = {"input": [question], **tools}
            items = self._bench.history(source, door, asked)["output"]
            outputs = [
                {"type": "function_call_output", "call_id": item["call_id"], "output": f"{place} °C"}
                for item, place in zip(
                    [each for each in items if each["type"] == "function_call"], (4, 18), strict=True
                )
            ]
            return {"input": [question, *items, *outputs], **tools}
        asked = {"messages": [question], **tools, "stream": False}
        if door == "messages":
            asked["max_tokens"] = 1000
        answer = self._bench.history(source, door, asked)
        asked.pop("stream")
        if door == "messages":
            ids = [block["id"] for block in answer["content"] if block["type"] == "tool_use"]
            results = [
                {"type": "tool_result", "tool_use_id": each, "content": f"{place} °C"}
                for each, place in zip(ids, (4, 18), strict=True)
            ]
            said = [{"role": "assistant", "content": answer["content"]}, {"role": "user", "content": results}]
        elif door == "chat":
            message = answer["choices"][0]["message"]
            ids = [call["id"] for call in message["tool_calls"]]
            said = [message] + [
                {"role": "tool", "tool_call_id": each, "content": f"{place} °C"}
                for each, place in zip(ids, (4, 18), strict=True)
            ]
        else:
            message = answer["message"]
            ids = [part["call_id"] for part in message["content"] if part["type"] == "tool_call"]
            said = [message] + [
                {"role": "tool", "call_id": each, "content": f"{place} °C"}
                for each, place in zip(ids, (4, 18), strict=True)
            ]
        return {**asked, "messages": [question, *said]}


class _Exchange:
    """One request and what became of it."""

    def __init__(
        self,
        verdict: Verdict,
        target: Target,
        door: str,
        case: str,
        policy: str,
        body: dict[str, Any],
        meaning: Meaning,
    ) -> None:
        self._verdict = verdict
        self._target = target
        self._door = door
        self._case = case
        self._policy = policy
        self._body = body
        self._meaning = meaning

    def _fail(self, failure: str) -> None:
        self._verdict.add(self._case, self._policy, failure)

    def judge(self, answer: Answer, received: Received | None) -> None:
        """Judges an exchange; `received` is None if the gateway refused the request."""
        if received is None:
            self._refused(answer)
            return
        self._verdict.received += 1
        faults = list(dict.fromkeys(self._faults(received)))
        for fault in faults:
            self._fail(fault)
        self._verdict.accepted += not faults
        if answer.status != 200:
            self._fail(f"answer: {answer.status} {_plain(answer.error)}")
        seen = [
            *re.split(r",\s*", answer.headers.get("x-gai-dropped", "")),
            *re.split(r",\s*", answer.headers.get("x-gai-adjusted", "")),
        ]
        for path in self._silent():
            told = (path, path.replace("input[", "messages["))  # items of `input` become messages of a native request
            if set(seen).isdisjoint(told) and not _is_silent_somewhere(received.body):
                self._fail(f"lost: a message that says nothing, untold: {path}")
        sent = READERS[self._target.dialect](received.body)
        raw = json.dumps(received.body, ensure_ascii=False)
        always_strict = self._target.dialect in ("messages", "gemini", "cohere", "ollama")
        apart = self._target.dialect == "ollama"
        for asked, is_kept in compared(self._meaning, sent, raw, always_strict=always_strict, media_apart=apart):
            if asked.name == "cache_key" and not is_kept and not self._has(asked):
                continue  # left out where caching is automatic
            if asked.name == "effort" and self._meaning.settings["effort"] == "none" and not self._has(asked):
                continue  # the model does not think
            self._verdict.asked += 1
            is_named = any(_names(path, asked) for path in seen if path)
            is_adjusted = is_named and any(_names(path, asked) for path in seen if "=" in path)
            if is_kept:
                self._verdict.kept += 1
            elif not is_named:
                self._fail(f"lost: {asked.name}")
            elif (
                not is_adjusted
                and self._has(asked)
                and not self._is_too_much(asked)
                and not any(_names(path, asked) and self._is_of_another(path) for path in seen)
            ):
                self._fail(f"dropped although the provider has it: {asked.name}")
            else:
                self._verdict.kept += 1

    def _silent(self) -> list[str]:
        """Returns the paths of the assistant's messages that say nothing; of a prompt, which has no messages, none."""
        if self._target.dialect == "completions" or self._target.name == "ollama:generate":
            return []
        name = "input" if self._door == "responses" else "messages"
        given = self._body.get(name)
        return [f"{name}[{at}]" for at, each in enumerate(given if isinstance(given, list) else ()) if _is_silent(each)]

    def _refused(self, answer: Answer) -> None:
        """Judges a refusal: with `drop` there should be none; otherwise it names what the provider lacks."""
        wanted = [asked for asked, _ in compared(self._meaning, Meaning(), "")]
        text = answer.error
        if answer.status not in (400, 422):
            self._verdict.asked += 1
            self._fail(f"refused: {answer.status} {_plain(text)}")
            return
        paths = re.findall(r"`([^`]+)`", text)
        named = [asked for asked in wanted if any(_names(path, asked) for path in paths)]
        is_ours = "gai-fast cannot" in text and any(re.split(r"[.\[]", path)[0] in self._body for path in paths)
        self._verdict.asked += 1
        if self._policy == "drop" and not any(asked.name.startswith("content") for asked in named):
            self._fail(f"refused with drop: {_plain(text)}")
        elif is_ours or any(map(self._is_of_another, paths)):
            self._verdict.kept += 1
        elif not named:
            self._fail(f"refused: {_plain(text)}")
        elif all(self._has(asked) and not self._is_too_much(asked) for asked in named):
            self._fail(f"refused although the provider has it: {_plain(text)}")
        else:
            self._verdict.kept += 1

    def _is_of_another(self, path: str) -> bool:
        """Returns whether a path in a refusal leads to a member or a tool that only another provider has."""
        name, *inner = re.split(r"[.\[\]]+", path)
        value = self._body.get(name)
        if name == "tools" and isinstance(value, list):
            tools = value[int(inner[0]) :][:1] if inner else value
            kinds = {tool.get("type", "function") for tool in tools}
            return kinds.isdisjoint(("function", "custom")) or "defer_loading" in inner
        return name in self._body and name not in _types(self._target).names

    def _has(self, asked: Asked) -> bool:
        """Returns whether the provider's type has a member for a setting."""
        target = self._target
        key = asked.setting or asked.name
        if (
            key in target.lacks
            or key.partition(".")[0] in target.lacks
            or (asked.setting == "" and not asked.name.startswith("tools"))
            or (key == "store" and "responses" in (self._door, target.dialect) and self._door != target.dialect)
        ):
            return False
        members = MEMBERS[target.dialect].get(key, ())
        return not _types(target).names.isdisjoint(members)

    def _is_too_much(self, asked: Asked) -> bool:
        """Returns whether the provider has a setting, and not all that the request asks of it."""
        target, settings = self._target, self._meaning.settings
        if asked.name == "stop" and target.most_stops:
            return len(settings["stop"]) > target.most_stops
        return asked.name in target.one_of and target.one_of <= settings.keys()

    def _faults(self, received: Received) -> Iterator[str]:
        target = self._target
        is_clients = target.name.partition(":")[0] in _OWNERS or f"/{RECORDED}" in self._case
        # A history is what the gateway has answered.
        own = is_clients and target.door == self._door and "/history of " not in self._case
        before = set()
        types = _types(target)
        if own:
            asked = Received(received.path, received.headers, {**self._body, "model": target.model}, b"", target.model)
            before = {*types.problems(asked.body), *(fault for rule in RULES[target.name] for fault in rule(asked))}
        for problem in types.problems(received.body):
            if problem not in before:
                yield f"type: {problem}"
        for rule in RULES[target.name]:
            for fault in rule(received):
                if fault not in before:
                    yield f"rule: {fault}"
        source = self._case.partition("history of ")[2]
        if source:
            yield from self._signatures(source, received.raw.decode())

    def _signatures(self, source: str, raw: str) -> Iterator[str]:
        """A provider gets its own signatures alone."""
        provider = self._target.provider.partition(":")[0]
        for author, signature in _SIGNATURES.items():
            if signature in raw and author != provider and author not in self._target.takes_signatures:
                yield f"rule: a signature of {author}"
            if source == self._target.name and _SIGNED.get(source) == author and signature not in raw:
                yield "rule: its own signature is gone"

    def compare(self, plain: Received, received: Received) -> None:
        """Compares a request with the same request without a key, a processor or a fallback."""
        for name in sorted(plain.body.keys() | received.body.keys()):
            if name not in ("stream", "stream_options") and plain.body.get(name) != received.body.get(name):
                self._fail(f"differs from plain: {name}")


def _is_silent_somewhere(body: dict[str, Any]) -> bool:
    """Returns whether a request has a message of the assistant that says nothing."""
    return any(_is_silent(each) for name in ("messages", "input", "contents") for each in _listed(body.get(name)))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_silent(message: Any) -> bool:
    if not isinstance(message, dict) or message.get("role") not in ("assistant", "model"):
        return False
    texts = message.get("content", message.get("parts"))
    said = [each.get("text", each) if isinstance(each, dict) else each for each in _listed(texts)] or texts
    has_more = any(message.get(name) for name in ("tool_calls", "toolCalls", "audio", "function_call", "refusal"))
    return not has_more and not (any(said) if isinstance(said, list) else said)


@cache
def _types(target: Target) -> Any:
    return target.types()


def _names(path: str, asked: Asked) -> bool:
    """Returns whether a path in a refusal or in a header belongs to a meaning."""
    words = re.split(r"[.\[\]=$ ]+", path)
    return any(word in asked.members for word in words)


def _plain(text: str) -> str:
    """Returns the text of an error without what changes from run to run."""
    return re.sub(r"\s+", " ", text)[:140].strip()
