"""Writes the generated part of `docs/clients.md`: what of requests and answers each pair of client and provider keeps.

Nothing is declared for this page. One specimen of everything that a request can ask for goes through the format's
translation and the provider's API, and one of everything that an answer can hold through the format's encoders; then
the bytes are searched for it. The fixtures of the tests show which of these things a provider's answers hold.

    python -m tools.client_table
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

import gai_fast
from gai_fast.core.requests.reading import parse_request
from gai_fast.formats import FORMATS, Encoder, Format, StreamContext, get_format
from gai_fast.formats._base import Format as AnyFormat
from gai_fast.model.errors import Error, Unsupported
from gai_fast.model.events import Event
from gai_fast.providers import API, Target, UpstreamRequest
from tools.answer_specimens import CALL, SIGNATURE, THOUGHT, Answer, answer, answers
from tools.provider_table import FIXTURES, ROOT, apis
from tools.request_specimens import CALL_ID, DIALECTS, Body, Specimen

PAGE: Final = ROOT / "docs" / "clients.md"

_BLOCK: Final = re.compile(r"(<!-- generated: pairs -->\n).*?(<!-- end -->)", re.S)

Leaf: TypeAlias = tuple[str, Any]

KEPT, CHANGED, REFUSED, LEFT_OUT = "kept", "changed", "refused", "left out"


def context() -> StreamContext:
    """Returns the facts of a stream, for an encoder."""
    return StreamContext("stream-1", "request-1", None, "model-1", lambda: 1_700_000_000_000)


# ---- what was written ------------------------------------------------------------------------------------------------


def leaves(value: Any, path: str = "") -> Iterator[Leaf]:
    """Yields the values in JSON that are no objects and no lists, each with its path; places in lists do not count."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, f"{path}[]")
    else:
        yield path, value


def frames(body: bytes) -> Iterator[Leaf]:
    """Yields the values in the frames of an SSE body; paths begin with the frame's type, if it has one."""
    for frame in body.decode().split("\n\n"):
        data = "".join(line.removeprefix("data: ") for line in frame.split("\n") if line.startswith("data: "))
        if not data or data == "[DONE]":
            yield from [(data, None)] if data else []
            continue
        value = json.loads(data)
        kind = value.pop("type", None) if isinstance(value, dict) else None
        if kind is not None:
            yield str(kind), None
        yield from ((f"{kind}: {path}" if kind else path, leaf) for path, leaf in leaves(value))


def added(plain: Iterable[Leaf], holding: Iterable[Leaf]) -> list[Leaf]:
    """Returns the values that the second one has more than the first."""
    both = [Counter((path, type(value), value) for path, value in one) for one in (plain, holding)]
    return [(path, value) for path, _, value in both[1] - both[0]]


def found(mark: Any, value: Any) -> bool:
    """Returns whether a value holds a mark: text anywhere in it, anything else as it is."""
    return mark in value if isinstance(mark, str) and isinstance(value, str) else mark is value or _equal(mark, value)


def _equal(mark: Any, value: Any) -> bool:
    return type(mark) is type(value) and bool(mark == value)


# ---- requests --------------------------------------------------------------------------------------------------------


def reads_requests(form: Format) -> bool:
    """Returns whether a format has requests of its own."""
    return form.name == "gai" or type(form).parse_request is not AnyFormat.parse_request


def passes(form: Format, api: API) -> bool:
    """Returns whether a client's request and the upstream's answer pass as they are."""
    return api.dialect == form.name and form.passthrough("sse", context(), whole=False) is not None


def sent(form: Format, api: API, body: Body) -> Any:
    """Returns the body that the server sends an upstream for a client's.

    Raises:
        Unsupported: The request is refused, as by default.
    """
    target = Target("model-1", "key")
    request: UpstreamRequest
    if passes(form, api):
        request = api.build_passthrough(body, target)
    else:
        is_native = form.name == "gai"
        native, lost = (parse_request(json.dumps(body).encode()), []) if is_native else form.parse_request(body)
        for path in lost:
            api.leave_out(path, target)
        request = api.build_request(native, target)
    return json.loads(request.body)


def asked(form: Format, api: API, specimen: Specimen) -> str:
    """Returns the fate of a thing in a request."""
    try:
        upstream = sent(form, api, specimen.asking)
    except Unsupported:
        return REFUSED
    try:
        plain = sent(form, api, specimen.plain)
    except Unsupported:
        return REFUSED  # the thing is part of a refused one
    new = added(leaves(plain), leaves(upstream))
    if not new:
        has_less = bool(added(leaves(upstream), leaves(plain)))  # such as no tools, if none may be called
        return CHANGED if has_less else LEFT_OUT
    return KEPT if all(any(found(mark, value) for _, value in new) for mark in specimen.marks) else CHANGED


def sent_back(form: Format, api: API, held: Collection[str]) -> dict[str, Specimen]:
    """Requests that hold an answer of this API, as the format wrote it: one for each thing in it.

    Args:
        form: The format.
        api: The API.
        held: What its answers hold.
    """
    history = DIALECTS[form.name].history
    if history is None:
        return {}
    thought: Event = {"type": "reasoning.delta", "text": THOUGHT}
    signed: Event = {"type": "reasoning.signature", "signature": SIGNATURE}
    redacted: Event = {"type": "reasoning.signature", "signature": SIGNATURE, "redacted": True}
    signed_call: Event = {"type": "reasoning.signature", "signature": SIGNATURE, "call_id": CALL_ID}

    def asking(*events: Event) -> Body:
        whole = form.whole(context())
        ended = answer(api.provider, events, end={"finish_reason": "tool_calls"})
        return history(json.loads(_written(whole, ended)), "4 degrees")

    whole_thought = [thought, signed] if "reasoning signature" in held else [thought]
    specimens = {
        "reasoning": Specimen(asking(*CALL), asking(*whole_thought, *CALL), (THOUGHT,)),
        "reasoning signature": Specimen(asking(thought, *CALL), asking(thought, signed, *CALL), (SIGNATURE,)),
        "redacted reasoning": Specimen(asking(*CALL), asking(redacted, *CALL), (SIGNATURE,)),
        "call signature": Specimen(asking(*CALL), asking(*CALL[:-1], signed_call, CALL[-1]), (SIGNATURE,)),
    }
    return {what: specimen for what, specimen in specimens.items() if what in held}


def requests(form: Format, name: str, api: API) -> dict[str, str]:
    """Returns the fate of everything that a request to an API can ask for."""
    dialect = DIALECTS.get(form.name)
    if dialect is None:
        raise KeyError(f"format {form.name!r} reads requests: it needs its specimens in tools/request_specimens.py")
    fates = {what: asked(form, api, specimen) for what, specimen in dialect.specimens.items()}
    # Where answers pass as they are, what a client sends back is the upstream's own.
    back = {} if passes(form, api) else sent_back(form, api, held_by(name))
    return fates | {f"sent back: {what}": asked(form, api, specimen) for what, specimen in back.items()}


# ---- answers ---------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """The place of a thing in an answer.

    Args:
        fate: Kept, changed or left out.
        paths: Where it stands; where it was changed, what is there now.
    """

    fate: str
    paths: tuple[str, ...] = ()


def _written(encoder: Encoder, events: Iterable[Event]) -> bytes:
    for event in events:
        encoder.event(event)
    return encoder.take()


def streamed(form: Format, events: Iterable[Event]) -> list[Leaf]:
    """Returns the values in the stream of an answer."""
    return list(frames(_written(form.encoder("sse", context()), events)))


def whole(form: Format, events: Iterable[Event]) -> list[Leaf]:
    """Returns the values in a whole answer, or in the body of its error."""
    stream = list(events)
    failures = [event["error"] for event in stream if event["type"] == "error"]
    body = _written(form.whole(context()), stream)
    body = form.error_body(Error.from_payload(failures[0]), "request-1") if failures else body
    return list(leaves(json.loads(body))) if body else []


def _place(specimen: Answer, plain: list[Leaf], holding: list[Leaf]) -> Place:
    new = added(plain, holding)
    if not new:
        return Place(LEFT_OUT)
    at = [min((path for path, value in new if found(mark, value)), key=_depth, default="") for mark in specimen.marks]
    if all(at):
        return Place(KEPT, tuple(dict.fromkeys(at)) or (new[0][0],))
    values = [(path, value) for path, value in new if value is not None and not path.endswith(".id")]
    now = [f"{path} = {json.dumps(value)}" for path, value in values] or [new[0][0]]
    return Place(CHANGED, tuple(filter(None, at)) or (now[0],))


def _depth(path: str) -> int:
    return path.count(".") + path.count("[")


def in_stream(form: Format, specimen: Answer) -> Place:
    """Returns the place of a thing in a stream."""
    if "stream.reset" in specimen.kinds and not form.can_reset:
        return Place(LEFT_OUT)  # such a stream fails instead
    return _place(specimen, streamed(form, specimen.plain), streamed(form, specimen.holding))


def in_whole(form: Format, specimen: Answer) -> Place:
    """Returns the place of a thing in a whole answer."""
    if not {"stream.reset", "stream.gap"}.isdisjoint(specimen.kinds):
        return Place(LEFT_OUT)  # such an answer has no client yet
    return _place(specimen, whole(form, specimen.plain), whole(form, specimen.holding))


@cache
def held_by(name: str) -> frozenset[str]:
    """Returns the things in the answers that an API's fixtures hold.

    An API beside a provider's first is also shown the answers of OpenAI's API of the same name, whose dialect it is.
    """
    _, _, api = name.partition(":")
    folders = {name.replace(":", "-"), *([f"openai-{api}"] if api else [])}
    held: set[str] = set()
    for path in sorted(path for folder in folders for path in FIXTURES.glob(f"{folder}/*")):
        if path.name.endswith(".events.ndjson"):
            continue
        events = list(gai_fast.decode(name, [path.read_bytes()]))
        held |= {what for what, each in answers(name).items() if any(map(each.is_in, events))}
    return frozenset(held)


# ---- the page --------------------------------------------------------------------------------------------------------


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(heads), *(list(row) for row in rows)]
    text = [f"| {' | '.join(line)} |\n" for line in lines]
    return "".join([text[0], f"|{'---|' * len(lines[0])}\n", *text[1:]])


def places(form: Format) -> str:
    """Returns the table of where a format's streams hold each thing in an answer, and what its whole answers lack.

    Things of one place share a row. So do all counts of usage, and what has its own name in the format's extension.
    """
    specimens = answers("mistral")  # its own dialect is no format, and it signs texts
    rows: dict[tuple[str, ...], dict[str, Place]] = {}
    lacking = []
    for what, one in specimens.items():
        place = in_stream(form, one)
        if place.fate == LEFT_OUT:
            continue
        if in_whole(form, one).fate == LEFT_OUT:
            lacking.append(what)
        group, _, member = what.partition(": ")
        key = (group, "") if member else _EXTENSION if _is_extension(place) else place.paths
        rows.setdefault(key, {})[what] = place
    lines = [
        [key[0] if key[-1] == "" else _joined(things), _places(things, named=key == _REASONS)]
        for key, things in rows.items()
    ]
    table = _table(["in an answer", "in a stream"], lines)
    return table + (f"\nOnly in streams: {_joined(lacking)}.\n" if lacking else "")


_REASONS: Final = ("finish reason", "")
_EXTENSION: Final = ("x_gai", "CUSTOM")


def _is_extension(place: Place) -> bool:
    """Returns whether a thing stands among the gateway's own, under the name of its event."""
    return any(not set(re.split(r"[:.] ?", path)).isdisjoint(_EXTENSION) for path in place.paths[:1])


def _places(things: Mapping[str, Place], *, named: bool) -> str:
    """Returns the places of things that share a row; `named`: each place with its things, if there are several."""
    at: dict[tuple[str, ...], list[str]] = {}
    for what, place in things.items():
        at.setdefault(place.paths, []).append(what.partition(": ")[2])
    if named and len(at) > 1:
        return "; ".join(f"{_paths(paths)} ({', '.join(names)})" for paths, names in at.items())
    return _paths(path for paths in at for path in paths)


_OWN_MEMBERS: Final = re.compile(r"(\bx_gai\.[a-z_]+|^CUSTOM: value|\busage(?:\[\])?)[.\[](?!$).*")
"""The members of what has a gateway's own name, which are those of the event, and those of a dialect's usage."""


def _paths(paths: Iterable[str]) -> str:
    """Returns paths as a cell has them: a frame, or an object, stands once before its paths: `a: b.c` `d`."""
    shown: list[str] = []
    frame = before = ""
    for path in dict.fromkeys(_OWN_MEMBERS.sub(r"\1", path) for path in paths):
        at, colon, inner = path.rpartition(": ")
        shared = path[: path.rfind(".") + 1] or at + colon
        if before and shared == before:
            shown.append(f"`{path[len(shared) :]}`")
        else:
            shown.append(f"`{inner if colon and at == frame else path}`")
        frame, before = at, shared
    return " ".join(shown)


def _joined(names: Iterable[str]) -> str:
    """Returns a list of things; things of one group stand together."""
    groups: dict[str, list[str]] = {}
    for what in names:
        group, _, one = what.partition(": ")
        groups.setdefault(group, []).extend([one] if one else [])
    return ", ".join(f"{group} ({', '.join(ones)})" if ones else group for group, ones in groups.items())


@cache
def fates(form: Format) -> Mapping[str, Mapping[str, str]]:
    """What becomes of everything in requests, by the API; if they pass as they are, nothing changes."""
    return {name: requests(form, name, api) for name, api in apis().items() if not passes(form, api)}


def differing(form: Format) -> dict[tuple[str, str], list[str]]:
    """Returns the things of requests with another fate than in a native request: by thing and fate, the APIs."""
    native = {} if form.name == "gai" else fates(get_format("gai"))
    rows: dict[tuple[str, str], list[str]] = {}
    for name, became in fates(form).items():
        for what, fate in became.items():
            if fate != native.get(name, {}).get(what, KEPT):
                rows.setdefault((what, fate), []).append(name)
    return rows


def _named(names: list[str], every: Collection[str]) -> str:
    """Returns a list of APIs; if most are in it, the others."""
    if len(names) == len(every):
        return "all"
    others = [name for name in every if name not in names]
    fewer = names if len(names) <= len(others) else others
    listed = " ".join(f"`{name}`" for name in _abbreviated(fewer))
    return f"all but {listed}" if len(others) < len(names) else listed


def _abbreviated(names: Iterable[str]) -> Iterator[str]:
    """Names of APIs; `gemini*` for all APIs of a provider, `*:responses` for an API of all providers."""
    left = dict.fromkeys(names)
    every_one: dict[str, list[str]] = {}
    for name in apis():
        provider, _, api = name.partition(":")
        for short in (f"*:{api}", f"{provider}*") if api in ("completions", "responses") else (f"{provider}*",):
            every_one.setdefault(short, []).append(name)
    for short, every in sorted(every_one.items()):
        if len(every) > 1 and left.keys() >= {*every}:
            left = {name: None for name in left if name not in every}
            yield short
    yield from left


def pairs(form: Format) -> str:
    """Returns the table of things in requests with another fate than in a native request."""
    every = list(fates(form))
    alike: dict[tuple[str, ...], list[str]] = {}
    for (what, fate), names in differing(form).items():
        alike.setdefault((fate, _named(names, every)), []).append(what)
    rows = [[_joined(things), *cells] for cells, things in alike.items()]
    text = ""
    passed = [f"`{name}`" for name in apis() if name not in every]
    if passed:
        text += f"Requests and answers pass byte for byte: {', '.join(passed)}.\n"
    text += "Other requests" if passed else "Requests"
    text += " are treated as those of `gai`" + (", except:\n\n" if rows else ".\n")
    return text + (_table(["in a request", "is", "by"], rows) if rows else "")


def section(form: Format) -> str:
    """Returns the text of one format."""
    text = f"### `{form.name}`\n\n"
    if form.copies_upstream:
        return text + "Requests are those of `gai`; the answer of every provider arrives whole, as it came.\n"
    if form.name == "gai":
        text += "[Events](events.md#types) and [whole answers](http-api.md#one-json-object) hold everything.\n"
        return text + "[Providers](providers.md#what-requests-may-hold) has what becomes of requests.\n"
    text += places(form) + "\n"
    dialect = DIALECTS.get(form.name)
    if dialect is None or not reads_requests(form):
        return text + "Requests are those of `gai`.\n"
    lacking = [what for what in DIALECTS["gai"].specimens if what not in dialect.specimens]
    text += f"Requests have no place for: {_joined(lacking)}.\n\n" if lacking else ""
    return text + pairs(form)


def generated() -> str:
    """Returns the generated part of the page."""
    return "\n".join(section(get_format(name)) for name in FORMATS)


def written(page: str) -> str:
    """Returns the page with its generated part written again."""
    return _BLOCK.sub(lambda old: f"{old[1]}\n{generated()}\n{old[2]}", page)


if __name__ == "__main__":
    sys.stdout.write(f"writing {PAGE.relative_to(ROOT)}\n")
    PAGE.write_text(written(PAGE.read_text()))
