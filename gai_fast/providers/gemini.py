"""Google Gemini: `https://generativelanguage.googleapis.com/v1beta/models/{model}:streamGenerateContent`.

Source: PROVIDERS §4, read from google-genai 3.3.

    (candidates[].content.parts[]* | promptFeedback | usageMetadata)*, in each chunk some of them

What is unusual:

* No end mark: a candidate's `finishReason` or a blocked prompt says why, the end of the body that nothing follows.
  Older models repeat `STOP` on every chunk; the last word counts.
* Without `alt=sse` the chunks are the elements of one JSON array. A failure may stand between the chunks as bare JSON.
* A function call comes whole in one part, or (Vertex) in pieces: values with the path where they belong. They are
  written as JSON text while they come; a part in which nothing says `willContinue` ends the call, so does the next.
* A `thoughtSignature` may stand on any part, often on one of empty text, and must come back on it.
* Usage runs along; the last one that counts anything is the total. Thoughts are beside the candidates' tokens, what
  tools used is beside the prompt. Zeros are left out (protobuf).
* Offsets of citations count the bytes of the whole text, in all of its parts.
* Ratings stand on every chunk of some models: only those that say more than "negligible" are told, once.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, ClassVar, Final, cast
from urllib.parse import quote

from msgspec import UNSET
from orjson import Fragment

from gai_fast._impl import encode_json, escape
from gai_fast.errors import Error, InvalidRequest, Malformed, NotFound, Said
from gai_fast.events import Event
from gai_fast.limits import LIMITS
from gai_fast.providers._argument_pieces import ArgumentPiece, ArgumentWriter, argument_path
from gai_fast.providers._base import (
    API,
    Adapter,
    Target,
    ToolCall,
    ToolCalls,
    UpstreamRequest,
    citation,
    count,
    counted_usage,
    error_object,
    image_data,
    members,
    merged,
    parse_chunk,
    said_of,
    server_tool,
    text_of,
    too_many,
)
from gai_fast.reading import conversation, turns
from gai_fast.request import (
    AssistantMessage,
    ImagePart,
    Message,
    NamedTool,
    Reasoning,
    ReasoningPart,
    Request,
    ResponseFormat,
    SystemMessage,
    TextPart,
    Tool,
    ToolCallPart,
    ToolMessage,
)

_FINISH_WORDS: Final = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "pause",
    **dict.fromkeys(
        "SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT IMAGE_RECITATION "
        "MODEL_ARMOR".split(),
        "content_filter",
    ),
    # Old SDKs wrote the numbers of the enum; beyond these the two APIs differ.
    "1": "stop",
    "2": "length",
    "3": "content_filter",
    "4": "content_filter",
}
_FAILURE_WORDS: Final = frozenset(
    "MALFORMED_FUNCTION_CALL MALFORMED_RESPONSE UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS "
    "MISSING_THOUGHT_SIGNATURE".split()
)
_END: Final = "[DONE]"
"""Google sends no end mark, proxies do; and blank data, to keep a connection alive."""
_COMPLETE: Final = ("stop", "tool_calls")
"""Outcomes beside which every call that began is complete."""

_RESOURCES: Final = ("models/", "tunedModels/", "publishers/", "projects/")
_VERTEX: Final = ("publishers/", "projects/")
_TOOL_CHOICES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576}
"""Thinking tokens for an effort, as Google's own OpenAI endpoint takes them: Gemini 2.5 knows no levels."""
_NEVER_MINIMAL: Final = re.compile(
    r"(?:^|/)gemini-(?:[\d.]+-pro|pro-latest|flash-latest|(?:3\.[7-9]|[4-9][\d.]*)-flash(?!-lite))"
)
"""Models that think at least at the level `LOW`."""
_IMAGE_TYPES: Final = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "heic": "image/heic",
    "heif": "image/heif",
    "gif": "image/gif",
}


# ---- requests --------------------------------------------------------------------------------------------------------


class Gemini(API):
    """The official SDK takes the host as `base_url` and appends the version itself.

    A model that is a resource's name (`projects/…/publishers/google/models/…`) is asked for as it is: Vertex AI takes
    such names at its own `base_url`, with an `authorization` header of the configuration.
    """

    provider = "gemini"
    base_url = "https://generativelanguage.googleapis.com"
    key_variable = "GEMINI_API_KEY"
    lacks = frozenset({"metadata"})
    options: ClassVar = {"tools": list[dict[str, Any]]}
    answers_in_arrays = True

    def adapter(self, model: str | None = None) -> GeminiAdapter:
        return GeminiAdapter(self, model)

    def said(self, body: Any) -> Said | None:
        error = error_object(body)
        if error is None:
            return None
        details = error.get("details")
        reasons: list[str] = []
        wait: int | None = None
        for detail in details if isinstance(details, list) else ():
            if isinstance(detail, Mapping):
                reasons += [detail["reason"]] if isinstance(detail.get("reason"), str) else []
                delay = _DELAY.fullmatch(str(detail.get("retryDelay", "")))
                wait = int(float(delay[1]) * 1000) if delay else wait
        said = said_of(error)
        words = tuple(word.lower() for word in (*reasons, *said.words))
        return Said(said.message, words, said.status, wait, said.details)

    def build_request(self, request: Request, target: Target) -> UpstreamRequest:
        request = self.possible(request, target)
        body: dict[str, Any] = {"contents": self._contents(request, target)}
        system = [
            {"text": text}
            for message in conversation(request)
            if isinstance(message, SystemMessage)
            for text in _texts(message)
            if text
        ]
        if system:
            body["systemInstruction"] = {"parts": system}
        if request.tools:
            body["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in request.tools]}]
        generation = self._generation(request, target.model)
        if generation:
            body["generationConfig"] = generation
        options = request.provider_options.get(self.provider, {})
        calling = _calling(request, options.get("tools", body.get("tools")))
        if calling:
            body["toolConfig"] = {"functionCallingConfig": calling}
        body = merged(body, options)
        headers = [("content-type", "application/json"), ("accept", "text/event-stream")]
        if target.api_key:
            headers.append(("x-goog-api-key", target.api_key))
        return UpstreamRequest(_path(target.model), encode_json(body), headers)

    def _generation(self, request: Request, model: str) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "temperature": request.temperature,
            "topP": request.top_p,
            "maxOutputTokens": request.max_tokens,
            "stopSequences": request.stop or UNSET,
            "seed": request.seed,
        }
        if request.response_format:
            fields |= _response_format(request.response_format)
        if request.reasoning:
            fields["thinkingConfig"] = _thinking(request.reasoning, model)
        return {name: value for name, value in fields.items() if value is not UNSET}

    def _contents(self, request: Request, target: Target) -> list[dict[str, Any]]:
        """The turns. Neighbours of one role are one turn: the results of parallel calls must come together."""
        sent: list[dict[str, Any]] = []
        names: dict[str, str] = {}
        ids = _ids(request, target)
        for where, message in _in_order(turns(request)):
            if isinstance(message, SystemMessage):
                continue
            if isinstance(message, ToolMessage):
                role, parts = "user", self._tool_result(where, message, names, ids, target)
            else:
                role = "model" if isinstance(message, AssistantMessage) else "user"
                content = [TextPart(text=message.content)] if isinstance(message.content, str) else message.content
                parts = []
                for at, part in enumerate(content):
                    if isinstance(part, ToolCallPart):
                        names[part.call_id] = part.name
                    parts += self._part(f"{where}.content[{at}]", part, ids, target)
            if sent and sent[-1]["role"] == role:
                sent[-1]["parts"] += parts
            elif parts:
                sent.append({"role": role, "parts": parts})
        return sent

    def _part(self, where: str, part: Any, ids: frozenset[str], target: Target) -> list[dict[str, Any]]:
        """A part in Gemini's terms; nothing for empty text, and for reasoning that is not Gemini's own."""
        if isinstance(part, TextPart):
            return [{"text": part.text}] if part.text else []
        if isinstance(part, ReasoningPart):
            if not part.signature or part.redacted or (part.provider and part.provider != self.provider):
                return []
            # What no thought goes with was the signature of text, and came behind it.
            thought = {"thought": True} if part.text else {}
            return [{"text": part.text, **thought, "thoughtSignature": part.signature}]
        if isinstance(part, ToolCallPart):
            arguments = bytes(part.input)
            if not arguments.startswith(b"{"):
                self.leave_out(where, target, "a tool_call whose input is no object")
                return []
            call = {**_identifier(part.call_id, ids), "name": part.name, "args": Fragment(arguments)}
            return [{"functionCall": call} | ({"thoughtSignature": part.signature} if part.signature else {})]
        if not isinstance(part, ImagePart):
            return [{"inlineData": {"mimeType": part.media_type, "data": part.data}}]
        inline = image_data(part)
        if inline is not None:
            return [{"inlineData": {"mimeType": inline[0], "data": inline[1]}}]
        return [{"fileData": _image_type(part) | {"fileUri": part.url}}]

    def _tool_result(
        self, where: str, message: ToolMessage, names: Mapping[str, str], ids: frozenset[str], target: Target
    ) -> list[dict[str, Any]]:
        """The answer to a call, and the images that it holds beside it: only the newest models take them inside."""
        name = names.get(message.call_id)
        if name is None:
            raise InvalidRequest(message=f"No tool_call before `{where}` has its `call_id`", reason="validation")
        content = [TextPart(text=message.content)] if isinstance(message.content, str) else message.content
        text = "".join(part.text for part in content if isinstance(part, TextPart))
        response = {"error" if message.is_error else "output": text}
        images = [
            shown
            for at, part in enumerate(content)
            if isinstance(part, ImagePart)
            for shown in self._part(f"{where}.content[{at}]", part, ids, target)
        ]
        answer = {**_identifier(message.call_id, ids), "name": name, "response": response}
        return [{"functionResponse": answer}, *images]


_DELAY: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")
"""A duration as protobuf writes it in JSON."""


def _path(model: str) -> str:
    """Where a model answers; one that is a resource's name keeps its slashes.

    Raises:
        NotFound: The name would lead elsewhere.
    """
    version = "v1beta1" if model.startswith(_VERTEX) else "v1beta"
    if not model.startswith(_RESOURCES):
        resource = f"models/{quote(model, safe='')}"
    elif {"", ".", ".."}.isdisjoint(model.split("/")):
        resource = quote(model, safe="/")
    else:
        raise NotFound(message="The model's id is no name of a resource", reason="model")
    return f"/{version}/{resource}:streamGenerateContent?alt=sse"


def _texts(message: SystemMessage) -> list[str]:
    return [message.content] if isinstance(message.content, str) else [part.text for part in message.content]


def _in_order(turns: list[tuple[str, Message]]) -> Iterator[tuple[str, Message]]:
    """The turns, with results in the order of their calls: where they have no ids nothing else tells them apart."""
    asked: dict[str, int] = {}
    for are_results, run in groupby(turns, lambda turn: isinstance(turn[1], ToolMessage)):
        if are_results:
            yield from sorted(run, key=lambda turn: asked.get(getattr(turn[1], "call_id", ""), 0))
            continue
        for where, message in run:
            asked |= {call.call_id: at for at, call in enumerate(_calls_of(message), len(asked))}
            yield where, message


def _calls_of(message: Message) -> list[ToolCallPart]:
    content = () if isinstance(message.content, str) else message.content
    return [part for part in content if isinstance(part, ToolCallPart)]


def _ids(request: Request, target: Target) -> frozenset[str]:
    """The ids that go back: those of one call only, as ours may be of several; Vertex AI refuses them all."""
    if target.model.startswith(_VERTEX):
        return frozenset()
    used = Counter(call.call_id for message in conversation(request) for call in _calls_of(message))
    return frozenset(call_id for call_id, times in used.items() if times == 1)


def _identifier(call_id: str, ids: frozenset[str]) -> dict[str, str]:
    return {"id": call_id} if call_id in ids else {}


def _image_type(image: ImagePart) -> dict[str, str]:
    """The media type of an image that Google fetches: what is said, or what its name says."""
    name = str(image.url).partition("?")[0]
    said = image.media_type or _IMAGE_TYPES.get(name.rpartition(".")[2].lower())
    return {"mimeType": said} if said else {}


def _declaration(tool: Tool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "parametersJsonSchema": Fragment(bytes(tool.parameters))}


def _calling(request: Request, tools: Any) -> dict[str, Any]:
    """Whether and which of the tools that are sent are called; `AUTO` alone does not hold arguments to the schema."""
    wanted = request.tool_choice
    declared = isinstance(tools, list) and any("functionDeclarations" in tool for tool in tools)
    if wanted in ("auto", "none") and not declared:
        return {}  # it says nothing then, and is refused
    if isinstance(wanted, NamedTool):
        return {"mode": "ANY", "allowedFunctionNames": [wanted.name]}
    if wanted in (UNSET, "auto") and any(tool.strict is True for tool in request.tools):
        return {"mode": "VALIDATED"}
    return {"mode": _TOOL_CHOICES[wanted]} if wanted else {}


def _response_format(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.type == "text":
        return {}
    if wanted.type == "json":
        return {"responseMimeType": "application/json"}
    if not wanted.schema:
        raise InvalidRequest(message="`response_format` needs a `schema`", reason="validation")
    return {"responseMimeType": "application/json", "responseJsonSchema": Fragment(bytes(wanted.schema))}


def _thinking(wanted: Reasoning, model: str) -> Any:
    """The `thinkingConfig`: a budget or a level, since both together are refused, and that thoughts are told."""
    budget = wanted.max_tokens
    if budget is UNSET and wanted.effort and "gemini-2.5" in model:
        budget = _BUDGETS[wanted.effort]
    if budget is not UNSET:
        return {"thinkingBudget": budget} | ({"includeThoughts": True} if budget else {})
    if not wanted.effort:
        return UNSET
    level = "low" if wanted.effort == "minimal" and _NEVER_MINIMAL.search(model) else wanted.effort
    return {"thinkingLevel": level.upper(), "includeThoughts": True}


# ---- text ------------------------------------------------------------------------------------------------------------


_PIECE_COST: Final = 160
"""What a piece of text costs in memory besides its bytes."""


class _Text:
    """How long the text of an answer is, in bytes and in characters, up to every place.

    Of ASCII the length is enough; other text is kept, as far as `limits.cited_text` allows.
    """

    def __init__(self) -> None:
        self.size = 0
        """Bytes, in UTF-8."""
        self._length = 0
        self._kept = 0
        self._begins: list[int] = []
        self._pieces: list[tuple[int, str]] = []

    def add(self, text: str, characters: int) -> None:
        """Takes more text, of so many characters."""
        if len(text) != characters or self._kept > LIMITS.cited_text:
            self._kept = LIMITS.cited_text + 1  # from here on nothing can be placed
            return
        size = characters
        if not text.isascii():
            size = len(text.encode("utf-8", "surrogatepass"))
            self._begins.append(self.size)
            self._pieces.append((self._length, text))
            self._kept += size + _PIECE_COST
        self.size += size
        self._length += characters

    def span(self, start: Any, end: Any) -> tuple[int, int] | None:
        """A span of bytes as one of characters; `None` where it cannot be told."""
        first, last = count(start) or 0, count(end)
        if not last or last < first or last > self.size or self._kept > LIMITS.cited_text:
            return None
        return self._characters(first), self._characters(last)

    def _characters(self, offset: int) -> int:
        at = bisect_right(self._begins, offset) - 1
        if at < 0:
            return offset
        length, text = self._pieces[at]
        octets = text.encode("utf-8", "surrogatepass")
        within = offset - self._begins[at]
        if within >= len(octets):
            return length + len(text) + within - len(octets)
        return length + len(octets[:within].decode("utf-8", "ignore"))


# ---- answers ---------------------------------------------------------------------------------------------------------


_Reference = tuple[str, str, int, int | None]
"""Address and title of a source, and the span of bytes that cites it."""


# No dataclasses: mypyc leaves the `__init__` of one interpreted, and each chunk makes two.


class _Call:
    """What one part says of a function call."""

    def __init__(
        self, identifier: str, name: str, arguments: str, pieces: list[ArgumentPiece], continues: bool
    ) -> None:
        self.identifier = identifier
        self.name = name
        self.arguments = arguments
        """JSON text, where they come whole."""
        self.pieces = pieces
        self.continues = continues

    @property
    def says(self) -> bool:
        """Whether it is more than the end of a call."""
        return bool(self.name or self.arguments or self.pieces)


class _Part:
    """One part of a chunk, checked."""

    def __init__(self, text: str, is_thought: bool, signature: str) -> None:
        self.text = text
        self.is_thought = is_thought
        self.signature = signature
        self.call: _Call | None = None
        self.data: tuple[str, str] | None = None
        """Media type and base64."""
        self.tool: tuple[str, dict[str, Any]] | None = None
        """What a tool that Google runs says, under the name of the part's member."""

    @property
    def kind(self) -> str:
        """Of which kind its content is; empty where it has none."""
        if (self.call and self.call.says) or self.data or self.tool:
            return "other"
        return ("thought" if self.is_thought else "text") if self.text else ""


class _Candidate:
    """One candidate of an answer."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls = ToolCalls()
        self.open: ToolCall | None = None
        """The call whose arguments come in pieces."""
        self.arguments = ArgumentWriter()
        self.text = _Text()
        self.block = -1
        """The number of the content block: a run of text or of thoughts, or a part of another kind."""
        self.kind = ""
        self.runs: list[tuple[str, str]] = []
        """Names and ids of the tools that Google runs and that have not answered."""
        self.latest = ("", "")
        """The one that began last: what comes without an id when all have answered is its as well."""
        self.started = 0
        """How many of them began."""
        self.sources: list[tuple[Any, Any]] = []
        """Addresses and titles, as the last list of them says."""
        self.cited: set[_Reference] = set()
        self.ahead: list[_Reference] = []
        """Citations of text that has not come yet."""
        self.reason = ""
        """The provider's word for why it finished."""
        self.message = ""


class _Beside:
    """What one chunk says of a candidate beside its parts, checked."""

    def __init__(self, candidate: _Candidate, raw: dict[str, Any]) -> None:
        self.candidate = candidate
        self.ratings = _ratings(raw.get("safetyRatings"))
        """Category, action, probability and score."""
        self.refers = bool(raw.get("groundingMetadata") or raw.get("citationMetadata") or raw.get("urlContextMetadata"))
        """Whether it speaks of sources, which may come to no citation."""
        self.cited = _references(candidate, raw) if self.refers else []
        self.reason = str(raw.get("finishReason") or "")
        self.message = text_of(raw.get("finishMessage"))
        self.continuation = text_of(raw.get("continuationToken"))


class GeminiAdapter(Adapter):
    """Reads the chunks of an answer."""

    text_members = frozenset({"text"})
    ignored_members = frozenset({"createTime"})
    kept_members = frozenset({"usageMetadata"})
    collects_text = True  # the places of citations are found in it

    def __init__(self, api: API, model: str | None = None) -> None:
        super().__init__(api, model)
        self._candidates: dict[int, _Candidate] = {}
        self._rated: set[tuple[Any, ...]] = set()
        self._blocked: Error | None = None
        self._continuation = ""
        self._shape: Any = None
        """What the chunk before was like, but for what it said."""

    def receive(self, name: str, data: str) -> list[Event]:
        if name == "error":
            raise self.told(data)
        if not data.strip() or data.startswith(_END):
            self.ended = data.startswith(_END)
            return []
        return self._read(parse_chunk(data), data)

    def receive_whole(self, answer: Any, text: str = "") -> list[Event]:
        events = self._read(answer, text or encode_json(answer).decode())
        if not self._candidates and not self._blocked:
            raise Malformed("an answer without candidates")
        return events

    def _read(self, chunk: Any, text: str) -> list[Event]:
        """The events of one chunk; a whole answer is one."""
        said = self.api.said(chunk)
        if said is not None:
            raise self.error(said)
        if not isinstance(chunk, dict):
            raise Malformed(f"a chunk is a JSON {type(chunk).__name__}, not an object")
        self.chunk = text
        usage = _usage(chunk.get("usageMetadata"))
        self.usage = usage or self.usage
        # Everything is checked before anything is done, so that a chunk that cannot be read leaves nothing half begun.
        identifier, model = text_of(chunk.get("responseId")), text_of(chunk.get("modelVersion"))
        read = [
            (raw, parts, _Beside(self._candidate(raw.get("index")), raw)) for raw, parts in _candidates(chunk, text)
        ]
        feedback = chunk.get("promptFeedback")
        word = refusal = ""
        events: list[Event] = []
        if feedback:
            prompt, word = _ratings(feedback.get("safetyRatings")), str(feedback.get("blockReason") or "")
            refusal = text_of(feedback.get("blockReasonMessage"))
            events = self._safety(prompt)
        for _, parts, beside in read:
            candidate = beside.candidate
            told: list[Event] = []
            for part in parts:
                told += self._part(candidate, part)
            told += self._safety(beside.ratings)
            told += _cited(candidate, beside.cited)
            if beside.reason:
                candidate.reason, candidate.message = beside.reason, beside.message
            self._continuation = beside.continuation or self._continuation
            events += _numbered(candidate, told)
        # "Unspecified" beside an answer blocks nothing.
        if word and not (self._candidates and word.endswith("UNSPECIFIED")):
            self._block(word, refusal)
        # What chunks like this one change beside their text, this one and the one before have changed already.
        last, self._shape = self._shape, (bool(usage), [_shape(raw, parts) for raw, parts, _ in read])
        self.copyable = self._shape == last and not any(beside.refers for _, _, beside in read)
        if self.started and self.named:
            return events
        return self.start(identifier, model) + events if identifier or model or events else []

    def _candidate(self, index: Any) -> _Candidate:
        number = 0 if index is None else count(index)
        if number is None:
            raise Malformed("the index of a candidate is no number")
        candidate = self._candidates.get(number)
        if candidate is None:
            if len(self._candidates) >= LIMITS.choices:
                raise too_many("choices", LIMITS.choices)
            candidate = self._candidates[number] = _Candidate(number)
        return candidate

    def _block(self, word: str, message: str) -> None:
        """The prompt is refused: nothing else follows, and nothing that came before counts as an answer."""
        said = message or f"{self.api.provider} blocked the prompt: {word}"
        self._blocked = Error("content_filtered", said, reason=word.lower(), provider=self.api.provider)
        self.ended = True

    # -- parts --

    def _part(self, candidate: _Candidate, part: _Part) -> list[Event]:
        kind = part.kind
        if kind and (kind != candidate.kind or kind == "other"):
            candidate.kind = kind
            candidate.block += 1
        events: list[Event] = []
        if part.text:
            if not part.is_thought:
                candidate.text.add(part.text, len(part.text))
            events.append({"type": "reasoning.delta" if part.is_thought else "text.delta", "text": part.text})
        if part.call is not None and (part.call.says or candidate.open is not None):
            events += self._call(candidate, part.call, part.signature)
        elif part.signature:
            block = max(candidate.block, 0)
            events.append({"type": "reasoning.signature", "block": block, "signature": part.signature})
        if part.data is not None:
            events.append(_media(*part.data, is_draft=part.is_thought))
        if part.tool is not None:
            events.append(_tool_event(candidate, *part.tool))
        return events

    def _call(self, candidate: _Candidate, said: _Call, signature: str) -> list[Event]:
        """A call, or a piece of the one that is open; without a name and anything else it only ends that one."""
        call, writer = candidate.open, candidate.arguments
        if call is None or said.name:
            if not (said.name or said.arguments):
                raise Malformed("a piece of a call that has not begun")
            call, writer = None, ArgumentWriter()
        try:
            text = said.arguments + "".join(map(writer.write, said.pieces))
        except Malformed:
            candidate.open = None  # what is missing from it must not look complete
            raise
        events: list[Event] = []
        if call is None:
            events += self._close(candidate)
            call, opened = candidate.calls.open(said.identifier, said.name, self.seed(candidate.number))
            candidate.open, candidate.arguments = call, writer
            events += opened
        if signature:
            events.append({"type": "reasoning.signature", "call_id": call.call_id, "signature": signature})
        events += candidate.calls.add(call, text)
        if not said.continues:
            events += self._close(candidate)
        return events

    def _close(self, candidate: _Candidate) -> list[Event]:
        """The call whose arguments came in pieces is complete."""
        call, candidate.open = candidate.open, None
        if call is None:
            return []
        return candidate.calls.add(call, candidate.arguments.close()) + candidate.calls.close(call)

    def _safety(self, ratings: list[tuple[str, str, str, Any]]) -> list[Event]:
        """The ratings that have not been told."""
        events: list[Event] = []
        for *key, score in ratings:
            if tuple(key) not in self._rated:
                self._rated.add(tuple(key))
                said = {"category": key[0], "action": key[1]} | ({} if score is None else {"score": score})
                events.append({"type": "safety", "safety": said})
        return events

    def copied(self, event: Event, characters: int, text: str) -> None:
        if event["type"] == "text.delta":
            self._candidates[event.get("choice", 0)].text.add(text, characters)

    def kept(self, name: str, text: str) -> None:
        self.usage = _usage(parse_chunk(text)) or self.usage

    # -- the end --

    def finish(self) -> list[Event]:
        if self._blocked is not None:
            raise self._blocked
        first = self._candidates.get(0) or _Candidate(0)
        if not (first.reason or self.ended):
            raise self.truncated()
        if first.reason in _FAILURE_WORDS:
            message = first.message or f"{self.api.provider} stopped: {first.reason}"
            raise self.error(Said(message, (first.reason.lower(),)))
        events = self.start(None, None)
        for candidate in self._candidates.values():
            told = _rest(candidate)
            if _outcome(candidate) in _COMPLETE:
                told += self._close(candidate)
            events += _numbered(candidate, told)
        end = self.end(_outcome(first), first.reason)
        if self._continuation:
            end["provider_metadata"] = {"continuation_token": self._continuation}
        return [*events, end]

    def abort(self) -> list[Event]:
        # A call in pieces that nobody ended is cut off (CONTRACT §5 "Ends"); all others have been told.
        return [event for one in self._candidates.values() for event in _numbered(one, _rest(one))]


def _outcome(candidate: _Candidate) -> str:
    return candidate.calls.outcome(_FINISH_WORDS, candidate.reason)


def _numbered(candidate: _Candidate, events: list[Event]) -> list[Event]:
    if candidate.number:
        for event in events:
            event["choice"] = candidate.number
    return events


def _candidates(chunk: dict[str, Any], text: str) -> list[tuple[dict[str, Any], list[_Part]]]:
    """The raw candidates of a chunk with their parts.

    Raises:
        Malformed: A member is not what the API promises.
    """
    path = ("candidates", "content", "parts", "functionCall")
    has_calls = '"functionCall"' in text
    arguments = members(text, *path, "args") if has_calls else _NONE
    numbers = members(text, *path, "partialArgs", "numberValue") if has_calls else _NONE
    read = []
    for raw in chunk.get("candidates") or ():
        parts = (raw.get("content") or {}).get("parts") or ()
        read.append((raw, [_checked(part, arguments, numbers) for part in parts]))
    return read


_NONE: Final[Iterator[str]] = iter(())


def _checked(raw: dict[str, Any], arguments: Iterator[str], numbers: Iterator[str]) -> _Part:
    part = _Part(text_of(raw.get("text")), bool(raw.get("thought")), text_of(raw.get("thoughtSignature")))
    if part.text and raw.keys() <= _OF_TEXT:
        return part
    part.text = part.text or text_of((raw.get("audioTranscription") or {}).get("text"))
    call = raw.get("functionCall")
    if call is not None:
        part.call = _call(call, arguments, numbers)
    inline = raw.get("inlineData")
    if inline and inline.get("data"):
        part.data = text_of(inline.get("mimeType")), text_of(inline.get("data"))
    for name in _TOOLS:
        if raw.get(name) is not None:
            part.tool = name, dict(raw[name])
            break
    return part


_OF_TEXT: Final = frozenset(("text", "thought", "thoughtSignature"))
"""What a part that is text, or a thought, has."""


def _call(raw: dict[str, Any], arguments: Iterator[str], numbers: Iterator[str]) -> _Call:
    text = next(arguments, "") if "args" in raw else ""
    pieces = raw.get("partialArgs") or ()
    continues = any(one.get("willContinue") for one in (raw, *pieces))
    if raw.get("args") is None or (not raw["args"] and (pieces or continues)):
        text = ""  # none, or those that are still to come
    elif not text:  # a key that is written with escapes
        text = encode_json(raw["args"]).decode()
    return _Call(
        text_of(raw.get("id")),
        text_of(raw.get("name")),
        text,
        [_piece(piece, numbers) for piece in pieces],
        continues,
    )


def _opened(said: str) -> str:
    """A string as JSON without its closing quote; half of a surrogate pair at an edge stays for its other half."""
    first, whole, last = cast("re.Match[str]", _HALVES.fullmatch(said)).groups()
    return f'"{first}{escape(whole).decode()[1:-1]}{last}'


_HALVES: Final = re.compile(r"([\udc00-\udfff]?)(.*?)([\ud800-\udbff]?)", re.DOTALL)


def _piece(raw: dict[str, Any], numbers: Iterator[str]) -> ArgumentPiece:
    number = next(numbers, "") if "numberValue" in raw else ""
    text, is_string = "", raw.get("stringValue") is not None
    if is_string:
        text = _opened(text_of(raw["stringValue"]))
    elif raw.get("numberValue") is not None:
        text = number or encode_json(raw["numberValue"]).decode()
    elif raw.get("boolValue") is not None:
        text = "true" if raw["boolValue"] else "false"
    elif "nullValue" in raw:
        text = "null"
    return ArgumentPiece(argument_path(text_of(raw.get("jsonPath"))), text, is_string)


def _shape(raw: dict[str, Any], parts: list[_Part]) -> tuple[Any, ...]:
    """What a raw candidate changes beside its text."""
    return raw.get("index"), raw.get("finishReason"), [part.kind for part in parts]


def _ratings(ratings: Any) -> list[tuple[str, str, str, Any]]:
    """The ratings that say more than "negligible": category, action, probability and score."""
    said = []
    for rating in ratings or ():
        probability = str(rating.get("probability"))
        if rating.get("blocked") or probability in _PROBABLE:
            score = rating.get("probabilityScore")
            action = "blocked" if rating.get("blocked") else "flagged"
            known = isinstance(score, (int, float))
            said.append((str(rating.get("category")), action, probability, score if known else None))
    return said


_PROBABLE: Final = frozenset("LOW MEDIUM HIGH 2 3 4".split())
"""Old SDKs wrote the numbers of the enum."""


def _usage(raw: Any) -> dict[str, int] | None:
    """Usage in the terms of CONTRACT §5; `None` where nothing is counted."""
    if not isinstance(raw, dict):
        return None
    prompt, said = count(raw.get("promptTokenCount")), count(raw.get("candidatesTokenCount"))
    tools, thoughts = count(raw.get("toolUsePromptTokenCount")), count(raw.get("thoughtsTokenCount"))
    if (
        prompt is None
        and said is None
        and tools is None
        and thoughts is None
        and count(raw.get("totalTokenCount")) is None
    ):
        return None
    into, out, reasoning = (prompt or 0) + (tools or 0), (said or 0) + (thoughts or 0), thoughts or 0
    return counted_usage(into, out, cached=count(raw.get("cachedContentTokenCount")), reasoning=reasoning)


# -- media and tools that Google runs --

_TOOLS: Final = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")


def _media(media_type: str, data: str, *, is_draft: bool) -> Event:
    if media_type.startswith("audio/"):
        return {"type": "audio.delta", "audio": {"chunk": data, "format": media_type.removeprefix("audio/")}}
    image = {"data": data, "media_type": media_type} | ({"partial": True} if is_draft else {})
    return {"type": "image", "image": image}


def _tool_event(candidate: _Candidate, member: str, raw: dict[str, Any]) -> Event:
    """One step of a tool; an answer without an id is the last tool's that has not answered."""
    identifier = text_of(raw.pop("id", None))
    if member in ("executableCode", "toolCall"):
        name = text_of(raw.pop("toolType", None)).lower() or "code_execution"
        identifier = identifier or f"{name}_{candidate.started}"
        candidate.started += 1
        candidate.latest = identifier, name
        candidate.runs = [*candidate.runs[-LIMITS.tool_calls :], candidate.latest]
        value = raw.get("args") if member == "toolCall" else raw
        return server_tool(identifier, name, "started", encode_json(value).decode() if value else "")
    last = candidate.latest if not identifier and candidate.started else (identifier, "code_execution")
    run = next((run for run in reversed(candidate.runs) if identifier in ("", run[0])), last)
    candidate.runs = [other for other in candidate.runs if other is not run]
    if member == "toolResponse":
        name = text_of(raw.get("toolType")).lower() or run[1]
        return server_tool(run[0] or name, name, "completed", output=raw.get("response"))
    failed = raw.get("outcome") not in _SUCCESSES
    return server_tool(run[0] or run[1], run[1], "failed" if failed else "completed", output=raw.get("output"))


_SUCCESSES: Final = ("OUTCOME_OK", 1)


# -- citations --


def _references(candidate: _Candidate, raw: dict[str, Any]) -> list[_Reference]:
    """What a chunk cites."""
    cited = [
        *_grounded(candidate, raw.get("groundingMetadata") or {}),
        *_recited(raw.get("citationMetadata") or {}),
        *_retrieved(raw.get("urlContextMetadata") or {}),
    ]
    return [_reference(*one) for one in cited]


def _grounded(candidate: _Candidate, metadata: dict[str, Any]) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Sources with the spans that they support, and those that support none, as (address, title, start, end)."""
    chunks = metadata.get("groundingChunks")
    if chunks:
        candidate.sources = [_source(source) for source in chunks]
    sources = candidate.sources
    used: set[int] = set()
    for support in metadata.get("groundingSupports") or ():
        segment = support.get("segment") or {}
        for index in support.get("groundingChunkIndices") or ():
            if 0 <= index < len(sources):
                used.add(index)
                yield (*sources[index], segment.get("startIndex", 0), segment.get("endIndex"))
    if chunks:
        for index, source in enumerate(sources):
            if index not in used:
                yield (*source, None, None)


def _source(raw: dict[str, Any]) -> tuple[Any, Any]:
    """Address and title of a source; a document without an address is named by where it is kept."""
    inner: Mapping[str, Any] = next(
        (raw[name] for name in ("web", "retrievedContext", "maps", "image") if raw.get(name)), {}
    )
    names = ("uri", "sourceUri", "imageUri", "documentName", "fileSearchStore", "placeId")
    return next((inner[name] for name in names if inner.get(name)), None), inner.get("title")


def _recited(metadata: dict[str, Any]) -> Iterator[tuple[Any, Any, Any, Any]]:
    """What the text recites."""
    for one in metadata.get("citations") or metadata.get("citationSources") or ():
        yield one.get("uri"), one.get("title"), one.get("startIndex", 0), one.get("endIndex")


def _retrieved(metadata: dict[str, Any]) -> Iterator[tuple[Any, Any, Any, Any]]:
    """The pages that were read because the prompt named them."""
    for page in metadata.get("urlMetadata") or ():
        if page.get("urlRetrievalStatus") == "URL_RETRIEVAL_STATUS_SUCCESS":
            yield page.get("retrievedUrl"), None, None, None


def _reference(uri: Any, title: Any, start: Any, end: Any) -> _Reference:
    uri, title = (said if isinstance(said, str) else "" for said in (uri, title))
    return uri, title, count(start) or 0, count(end)


def _cited(candidate: _Candidate, cited: list[_Reference], *, last: bool = False) -> list[Event]:
    """One event for what has not been told; what cites text that has not come waits for the end."""
    told: list[dict[str, Any]] = []
    for one in cited:
        if one in candidate.cited and not last:
            continue
        uri, title, start, end = one
        span = candidate.text.span(start, end)
        if len(candidate.cited) < LIMITS.content_blocks:
            candidate.cited.add(one)
            if not last and (end or 0) > candidate.text.size:
                candidate.ahead.append(one)
                continue
        entry = citation(uri, title, *(span or ()))
        if not entry and span:  # recited from nobody knows where: which text it is counts all the same
            entry = {"start": span[0], "end": span[1]}
        told += [entry] if entry else []
    return [{"type": "citations", "citations": told}] if told else []


def _rest(candidate: _Candidate) -> list[Event]:
    """Citations whose text never came lose their span."""
    ahead, candidate.ahead = candidate.ahead, []
    return _cited(candidate, ahead, last=True)


APIS: Final[dict[str, API]] = {"": Gemini()}
