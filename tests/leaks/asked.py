"""Random requests before guards: planted matches in each text of a conversation, by route and upstream.

The judge of a case is its request with other texts: those that must go up by others' code (`oracle.py`). Its upstream
must get from guards what it gets for that request without any, member by member; where nothing is found, byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

from gai_fast.core.processing.chain import Chain
from gai_fast.core.processing.processor import StreamInfo
from gai_fast.core.requests.reading import parse_request
from gai_fast.core.requests.texts import texts_of, with_texts
from gai_fast.formats import get_format
from gai_fast.guards.active import ActiveGuard
from gai_fast.guards.input import InputCheck
from gai_fast.guards.restore import Placeholders
from gai_fast.guards.stages.output import output_stage
from gai_fast.model.errors import Error
from gai_fast.net.stream.new_texts import new_texts
from gai_fast.providers import get_provider
from gai_fast.providers.requests.target import Target
from tests.guarding import Counts
from tests.leaks.cases import ACTIONS, FILLER, OWN_WORDS, SPELLED, some_guards, some_text
from tests.leaks.oracle import Wanted, matches, placeholders, restored
from tests.leaks.running import active
from tests.leaks.upstreams import DIALECTS

PLAIN: Final = 0.1
RESTORES: Final = 0.5
"""How many guards of personal data that mask give own words back."""
TAKEN: Final = ("<EMAIL_1>", "<IP_2>")
"""What looks like a placeholder before there are any: its number is skipped."""
SPEAKERS: Final = ("user", "assistant")
TRANSLATED: Final = ("agui", "vercel")
"""Formats whose requests are made native ones before guards look."""
OBJECTS: Final = ("call", "facts")
"""What has JSON for a text."""
CALLED: Final = ("gai", "openai", "anthropic", "responses")
"""Routes whose cases have calls and their results, and members that no dialect has."""


@dataclass
class Asked:
    """One request.

    Args:
        seed: What it is made from.
        route: The format of the request, of which `gai` is the native one.
        dialect: The upstream's provider.
        guards: The guards, in their order.
        restores: Which of them give own words back.
        texts: The role and the text of each turn. A `call` has JSON, a `result` stands behind it. `facts` are no turn
            but a member that no dialect has, whose keys and strings are texts; JSON too.
    """

    seed: int
    route: str
    dialect: str
    guards: list[Wanted]
    restores: list[bool]
    texts: list[tuple[str, str]] = field(default_factory=list)

    def has(self, role: str) -> bool:
        """Returns whether it has a text of a role."""
        return any(each == role for each, _ in self.texts)

    @property
    def strings(self) -> list[str]:
        """All texts, those in arguments one by one, in the order of the conversation."""
        found: list[str] = []
        for role, text in self.texts:
            found += _strings(json.loads(text)) if role in OBJECTS else [text]
        return found


def ask(seed: int) -> Asked:
    """Returns the request of a seed."""
    random = Random(f"asked {seed}")
    route = random.choice([*BODIES])
    guards, planted = some_guards(random)
    guards = [replace(each, action=random.choices(ACTIONS, (8, 1, 2))[0]) for each in guards]
    restores = [each.use == "pii" and each.action == "mask" and random.random() < RESTORES for each in guards]
    asked = Asked(seed, route, random.choice([*DIALECTS]), guards, restores)
    planted = [*FILLER] if random.random() < PLAIN else [*planted, *SPELLED, *TAKEN, *[value for _, value in OWN_WORDS]]

    def text() -> str:
        found = some_text(random, planted)
        return found if found.strip() else "the"  # some providers refuse a message that says nothing

    if route != "completions":
        if random.random() < 0.5:
            asked.texts.append(("system", text()))
        asked.texts += [(random.choice(SPEAKERS), text()) for _ in range(random.randint(1, 4))]
    if route in CALLED and random.random() < 0.6:
        value = {text(): text(), "n": 10**20, "l": [text(), None, {"k": 1.50}]}
        asked.texts.append(("call", json.dumps(value, ensure_ascii=random.random() < 0.5)))
        asked.texts.append(("result", text()))
    asked.texts.append(("user", text()))
    if route in CALLED and random.random() < 0.3:
        facts = {"id": text(), "data": {text(): text(), "name": [text()]}, "n": 1.50}
        asked.texts.append(("facts", json.dumps(facts, ensure_ascii=random.random() < 0.5)))
    return asked


# ---- what must go up -------------------------------------------------------------------------------------------------


@dataclass
class Expected:
    """What guards let through of a request.

    Args:
        texts: The turns that go up.
        own: The own words of each placeholder.
        said: The guards that have found something, by their place, each with its categories.
        stopped: Whether the request is refused.
    """

    texts: list[tuple[str, str]]
    own: Mapping[str, str]
    said: list[tuple[int, list[str]]]
    stopped: bool


def expected(asked: Asked) -> Expected:
    """Returns what must go up of a request: each guard sees what the one before has let through."""
    strings = asked.strings
    said: list[tuple[int, list[str]]] = []
    issued: list[tuple[str, str]] = []
    all_said = "\n".join(strings)
    for place, guard in enumerate(asked.guards):
        found = [[*matches(text, guard)] for text in strings]
        categories = [*dict.fromkeys(category for each in found for _, _, category in each)]
        if categories:
            said.append((place, categories))
        if categories and guard.action == "stop":
            return Expected([], {}, said, stopped=True)
        if guard.action != "mask":
            continue
        if asked.restores[place]:
            issued += [
                (category, text[begin:end])
                for text, spans in zip(strings, found, strict=True)
                for begin, end, category in spans
            ]
        named = {pair: name for name, pair in _named(issued, all_said).items()}
        strings = [
            _replaced(text, spans, named if asked.restores[place] else {})
            for text, spans in zip(strings, found, strict=True)
        ]
    left = iter(strings)
    texts = [(role, json.dumps(_filled(json.loads(text), left)) if role in OBJECTS else next(left))
             for role, text in asked.texts]  # fmt: skip
    return Expected(texts, placeholders(issued, all_said), said, stopped=False)


def _named(issued: Sequence[tuple[str, str]], said: str) -> dict[str, tuple[str, str]]:
    """Returns the kind and the own words of each placeholder."""
    names = [*placeholders(issued, said)]
    return dict(zip(names, dict.fromkeys(issued), strict=True))


def _replaced(text: str, spans: Sequence[tuple[int, int, str]], named: Mapping[tuple[str, str], str]) -> str:
    parts: list[str] = []
    at = 0
    for begin, end, category in spans:
        parts += (text[at:begin], named.get((category, text[begin:end]), f"[{category}]"))
        at = end
    return "".join([*parts, text[at:]])


def _strings(value: Any) -> list[str]:
    """Returns the keys and strings of a JSON value, in their order."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for each in value for text in _strings(each)]
    if isinstance(value, dict):
        return [text for key, each in value.items() for text in (key, *_strings(each))]
    return []


def _filled(value: Any, strings: Any) -> Any:
    """Returns a JSON value with other keys and strings."""
    if isinstance(value, str):
        return next(strings)
    if isinstance(value, list):
        return [_filled(each, strings) for each in value]
    if isinstance(value, dict):
        return {next(strings): _filled(each, strings) for each in value.values()}
    return value


# ---- what goes up ----------------------------------------------------------------------------------------------------


def faults_of(asked: Asked) -> list[str]:
    """Returns what is wrong with what the upstream of a request gets: nothing, if all is right."""
    wanted = expected(asked)
    body, form = BODIES[asked.route](asked.texts), get_format(asked.route)
    is_native = asked.route == "gai" or asked.route in TRANSLATED
    request = _native(asked.route, body) if is_native else body
    texts = texts_of(request) if is_native else form.texts(body)
    counts = Counts()
    check = InputCheck(_guards(asked), [each for text in texts for each in text.strings], StreamInfo("s"), counts)
    try:
        while not check.turn():
            pass
    except Error as problem:
        right = wanted.stopped and (problem.code, problem.reason) == ("content_filtered", "guard")
        return [] if right else [f"refused: {problem.code}"]
    if wanted.stopped:
        return [f"not refused: {asked.texts}"]
    found: list[str] = []
    let = check.let_through()
    said = [] if let is None else [(each["safety"]["guard"], each["safety"]["category"]) for each in let.said]
    if said != (all_said := [(f"g{place}", each) for place, categories in wanted.said for each in categories]):
        found.append(f"said: {said} for {all_said}")
    new = new_texts(texts, check)
    sent = request if new is None else with_texts(request, new.sent, new.left_out)
    plain = _up(asked, request)
    given = _up(asked, sent)
    other = BODIES[asked.route](wanted.texts)
    must = _up(asked, _native(asked.route, other) if is_native else other)
    if _parsed(given) != _parsed(must):
        found.append(f"upstream: {given!r} for {must!r}")
    if all(guard.action == "flag" for guard in asked.guards) or not wanted.said:
        found += [] if given == plain else [f"changed: {given!r} for {plain!r}"]
    own = check.placeholders
    if ({} if own is None else {**own.values}) != wanted.own:
        found.append(f"own words: {own and own.values} for {wanted.own}")
    if own is not None:
        found += _faults_of_own(asked, wanted, own)
        assert new is not None
        kept = _up(asked, with_texts(request, new.kept, new.left_out))
        back = BODIES[asked.route]([_with_own(role, text, wanted.own) for role, text in wanted.texts])
        stored = _up(asked, _native(asked.route, back) if is_native else back)
        found += [] if _parsed(kept) == _parsed(stored) else [f"kept: {kept!r} for {stored!r}"]
    return found


def matches_of(asked: Asked) -> int:
    """Returns the number of matches in the texts of a request."""
    return sum(len([*matches(text, guard)]) for text in asked.strings for guard in asked.guards)


def _guards(asked: Asked) -> list[ActiveGuard]:
    made = [active(each) for each in asked.guards]
    return [
        replace(each, settings=replace(each.settings, name=f"g{place}", restore=restores))
        for place, (each, restores) in enumerate(zip(made, asked.restores, strict=True))
    ]


def _faults_of_own(asked: Asked, wanted: Expected, own: Placeholders) -> list[str]:
    """Returns what is wrong with an answer that repeats the request, in any pieces."""
    random = Random(asked.seed)
    text = " ".join([text for role, text in wanted.texts if role not in OBJECTS])
    stage = output_stage((), StreamInfo("s"), own, Counts())
    assert stage is not None
    chain = Chain([stage])
    given: list[str] = []
    at = 0
    while at < len(text):
        size = random.choice((1, 2, 3, 9))
        given += [each["text"] for each in chain.process({"type": "text.delta", "text": text[at : at + size]})]
        at += size
    given += [each["text"] for each in chain.release()]
    back = restored(text, wanted.own)
    return [] if "".join(given) == back else [f"restored: {''.join(given)!r} for {back!r}"]


def _with_own(role: str, text: str, own: Mapping[str, str]) -> tuple[str, str]:
    if role not in OBJECTS:
        return role, restored(text, own)
    value = json.loads(text)
    return role, json.dumps(_filled(value, iter([restored(each, own) for each in _strings(value)])))


def _native(route: str, body: dict[str, Any]) -> Any:
    return parse_request(json.dumps(body).encode()) if route == "gai" else get_format(route).parse_request(body)[0]


def _up(asked: Asked, request: Any) -> bytes:
    """Returns the body that the upstream of a case gets."""
    api, target = get_provider(asked.dialect), Target("m")
    if not isinstance(request, dict):
        return bytes(api.build_request(request, target).body)
    form = get_format(asked.route)
    if api.dialect == form.name:
        return bytes(api.build_passthrough(form.read_request(request).body, target).body)
    return bytes(api.build_request(form.parse_request(request)[0], target).body)


def _parsed(body: bytes) -> Any:
    return _opened(json.loads(body))


def _opened(value: Any) -> Any:
    """Returns a JSON value in which JSON in strings is a value too: only its spaces and escapes may differ."""
    if isinstance(value, list):
        return [_opened(each) for each in value]
    if isinstance(value, dict):
        return [(key, _opened(each)) for key, each in value.items()]
    if isinstance(value, str) and value[:1] == "{":
        try:
            return _opened(json.loads(value))
        except ValueError:
            return value
    return value


# ---- routes ----------------------------------------------------------------------------------------------------------


def _native_body(turns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    body: dict[str, Any] = {"model": "m", "messages": messages}
    for role, text in turns:
        if role == "system":
            body["system"] = text
        elif role == "call":
            call = {"type": "tool_call", "call_id": "c1", "name": "f", "input": json.loads(text)}
            messages.append({"role": "assistant", "content": [call]})
        elif role == "result":
            messages.append({"role": "tool", "call_id": "c1", "content": text})
        elif role == "facts":
            body["extra"] = {"facts": json.loads(text)}
        else:
            messages.append({"role": role, "content": [{"type": "text", "text": text}]})
    return body


def _chat_body(turns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    body: dict[str, Any] = {"model": "m", "messages": messages, "stream": True}
    for role, text in turns:
        if role == "call":
            call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": text}}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif role == "result":
            messages.append({"role": "tool", "tool_call_id": "c1", "content": text})
        elif role == "facts":
            body["facts"] = json.loads(text)
        else:
            messages.append({"role": role, "content": text})
    return body


def _completions_body(turns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {"model": "m", "prompt": turns[0][1], "stream": True}


def _messages_body(turns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    body: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": messages, "stream": True}
    for role, text in turns:
        if role == "system":
            body["system"] = text
        elif role == "call":
            call = {"type": "tool_use", "id": "c1", "name": "f", "input": json.loads(text)}
            messages.append({"role": "assistant", "content": [call]})
        elif role == "result":
            result = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": text}]}
            messages.append({"role": "user", "content": [result]})
        elif role == "facts":
            body["facts"] = json.loads(text)
        else:
            messages.append({"role": role, "content": text})
    return body


def _responses_body(turns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    body: dict[str, Any] = {"model": "m", "input": items, "stream": True}
    for role, text in turns:
        if role == "system":
            body = {"model": "m", "instructions": text, "input": items, "stream": True}
        elif role == "call":
            items.append({"type": "function_call", "call_id": "c1", "name": "f", "arguments": text})
        elif role == "result":
            items.append({"type": "function_call_output", "call_id": "c1", "output": text})
        elif role == "facts":
            body["facts"] = json.loads(text)
        else:
            kind = "output_text" if role == "assistant" else "input_text"
            items.append({"type": "message", "role": role, "content": [{"type": kind, "text": text}]})
    return body


def _agui_body(turns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    messages = [{"id": f"{number}", "role": role, "content": text} for number, (role, text) in enumerate(turns)]
    return {"threadId": "t", "runId": "r", "messages": messages, "forwardedProps": {"model": "m"}}


def _vercel_body(turns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    messages = [
        {"id": f"{number}", "role": role, "parts": [{"type": "text", "text": text}]}
        for number, (role, text) in enumerate(turns)
    ]
    return {"id": "c", "model": "m", "messages": messages}


BODIES: Final = {
    "gai": _native_body,
    "openai": _chat_body,
    "completions": _completions_body,
    "anthropic": _messages_body,
    "responses": _responses_body,
    "agui": _agui_body,
    "vercel": _vercel_body,
}
"""The body of a request with some turns, by the name of its format."""
