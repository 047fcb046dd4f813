"""Google Gemini: `https://generativelanguage.googleapis.com/v1beta/models/{model}:streamGenerateContent`.

Source: google-genai 3.3 and Google's API reference. Builds the requests; `generate/answers.py` reads the responses.

    (candidates[].content.parts[]* | promptFeedback | usageMetadata)*, in each chunk some of them

What is unusual:

* There is no end mark: the response ends with the body. The finish reason is a candidate's `finishReason` or a blocked
  prompt. Older models repeat `STOP` in every chunk; the last reason holds.
* Without `alt=sse` the chunks are the elements of one JSON array. Bare JSON with a failure may occur between chunks.
* A function call is one part, or (on Vertex) arrives in pieces: values with their paths, which are written as JSON text
  piece by piece. A part without `willContinue` ends the call, and so does the next call.
* Any part may have a `thoughtSignature`, often a part with empty text. The signature must be sent back on its part.
* Most chunks have usage; the last usage that is not empty is the total. `candidatesTokenCount` does not include
  thoughts, `promptTokenCount` does not include tool use. Zeros are left out (protobuf).
* "At most 512 function declarations can be specified" (google-gemini/gemini-cli, issue 19083).
* Offsets of citations count the bytes of the text of all parts.
* Some models send ratings with every chunk. Only ratings above "negligible" become events, each once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Final

from msgspec import UNSET
from orjson import Fragment

from gai_fast.core.json.chunks import count, member
from gai_fast.core.requests.reading import conversation, turns
from gai_fast.core.requests.stored_ids import is_stored_address
from gai_fast.kernels import encode_json
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.limits import SHARED
from gai_fast.model.request import (
    AssistantMessage,
    FilePart,
    ImagePart,
    ProviderBlockPart,
    Reasoning,
    ReasoningPart,
    Request,
    ResponseFormat,
    SystemMessage,
    TextPart,
    Tool,
    ToolCallPart,
    ToolMessage,
    VideoPart,
)
from gai_fast.model.upstream_errors import UpstreamFailure
from gai_fast.providers.answers.failures import error_object, failure_of
from gai_fast.providers.answers.limits import LIMITS
from gai_fast.providers.generate.answers import GeminiAdapter
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.clouds import PROJECT, InCloud
from gai_fast.providers.requests.facts import Facts, nearest_effort
from gai_fast.providers.requests.own_tools import SHARED_OPTIONS, OwnTool, declared
from gai_fast.providers.requests.parts import (
    add_turn,
    argument_object,
    calls_of,
    image_data,
    in_call_order,
    joined,
    required_schema,
)
from gai_fast.providers.requests.paths import in_path
from gai_fast.providers.requests.routes import GEMINI_ROUTES, NOWHERE
from gai_fast.providers.requests.rules import RequestRules
from gai_fast.providers.requests.target import Target, UpstreamRequest
from gai_fast.providers.requests.tool_names import ToolNames
from gai_fast.runtime.breathing import breathe

_UNSET: Final = UNSET  # a constant: a name look-up costs 30 ns
_WORD: Final = "Continue."
"""The user message put before a conversation that begins with a call: clients cut long conversations anywhere."""
_SIGNATURE: Final = {"text", "thoughtSignature"}
"""The members of a part that is only a signature."""
_RESOURCES: Final = ("models/", "tunedModels/", "publishers/", "projects/")
_VERTEX: Final = ("publishers/", "projects/")
_LOCATION: Final = re.compile(r"^projects/[^/]+/locations/[^/]+/")
_IN_LOCATION: Final = ("publishers/", "endpoints/")
_TOOL_CHOICES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_MOST_STOPS: Final = 5
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576, "max": 24_576}
"""Thinking tokens for each effort, as in Google's OpenAI endpoint, for models without levels. All take the highest."""
_IMAGE_TYPES: Final = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "heic": "image/heic",
    "heif": "image/heif",
    "gif": "image/gif",
}


class Gemini(API):
    """`base_url` is the host alone, as in Google's SDK, which appends the version.

    A model's id may be the name of a resource (`projects/…/publishers/google/models/…`) of Vertex AI, if the
    configuration sets Vertex's `base_url` and an `authorization` header. `GeminiOnVertex` needs neither.
    """

    provider = "gemini"
    routes = GEMINI_ROUTES
    telemetry_name = "gcp.gemini"
    operation = "generate_content"
    base_url = "https://generativelanguage.googleapis.com"
    key_variable = "GEMINI_API_KEY"
    models_path = "/v1beta/models"
    most_tools = 512
    lacks = frozenset({"metadata"})
    rules: ClassVar = RequestRules("gemini", "google-genai 3.6.0, 2026-11-25")
    needs_user = True
    says_all = True
    tool_names = ToolNames("[a-zA-Z_][a-zA-Z0-9_.:-]*", 64)
    unions = "typed"
    signs_texts = True
    efforts = ("minimal", "low", "medium", "high", "xhigh")
    service_tiers = frozenset({"unspecified", "flex", "standard", "priority"})
    knobs: ClassVar = {
        "top_k": "generationConfig.topK",
        "frequency_penalty": "generationConfig.frequencyPenalty",
        "presence_penalty": "generationConfig.presencePenalty",
        "logprobs": "generationConfig.responseLogprobs",
        "top_logprobs": "generationConfig.logprobs",
        "service_tier": "serviceTier",
    }
    options: ClassVar = {"tools": list[dict[str, Any]]}
    own_tools: ClassVar = {
        "web_search": OwnTool({"googleSearch": {}}, {"blocked_domains": "googleSearch.excludeDomains"}),
        "code_execution": OwnTool({"codeExecution": {}}),
    }
    clouds: ClassVar = {"google": InCloud(f"https://{{vertex}}/v1beta1/{PROJECT}", "gemini:vertex")}
    answers_in_arrays = True
    finish_words: ClassVar = {
        # Old SDKs wrote the numbers of the enum. Above 4 the two APIs' numbers differ.
        "1": "stop",
        "2": "length",
        "3": "content_filter",
        "4": "content_filter",
    }

    def add_own_tool(self, body: dict[str, Any], tool: Tool, form: OwnTool) -> None:
        (name,) = form.form
        options = tool.options or {}
        shared = {key: value for key, value in options.items() if key in SHARED_OPTIONS}
        own = {key: value for key, value in options.items() if key not in SHARED_OPTIONS}
        whole = declared(form, shared)
        whole[name] = {**whole[name], **own}
        if any("functionDeclarations" in each for each in body.get("tools", ())):
            # Google requires the flag for tools of both sides in one request.
            body.setdefault("toolConfig", {})["includeServerSideToolInvocations"] = True
        body.setdefault("tools", []).append(whole)

    def adapter(self, model: str | None = None) -> GeminiAdapter:
        return GeminiAdapter(self, model)

    def choices_in(self, body: Mapping[str, Any]) -> int:
        return count(member(body, "generationConfig").get("candidateCount")) or 1

    def read_failure(self, body: Any) -> UpstreamFailure | None:
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
        failure = failure_of(error)
        words = tuple(word.lower() for word in (*reasons, *failure.words))
        return UpstreamFailure(failure.message, words, failure.status, wait, failure.details)

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        body: dict[str, Any] = {"contents": self._contents(request, target)}
        system = [{"text": text} for message in _instructions(request) for text in _texts(message) if text]
        if system:
            body["systemInstruction"] = {"parts": system}
        if request.tools:
            body["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in request.tools]}]
        generation = self._generation(request, target)
        if generation:
            body["generationConfig"] = generation
        self.add_knobs(body, request, target)
        if request.top_logprobs:
            body["generationConfig"]["responseLogprobs"] = True  # the API requires it with `logprobs`
        options = request.provider_options.get(self.provider, {})
        calling = _calling(request, options.get("tools", body.get("tools")))
        if not calling and request.tool_choice == "required":
            self.leave_out("tool_choice", target, "it needs functions")
        if calling:
            body["toolConfig"] = {"functionCallingConfig": calling}
        return body

    def post(self, body: dict[str, Any], target: Target) -> UpstreamRequest:
        return UpstreamRequest(_path(target.model), encode_json(body), self.headers(target))

    def key_header(self, api_key: str) -> tuple[str, str]:
        return "x-goog-api-key", api_key

    def _call_ids(self, request: Request, target: Target) -> frozenset[str]:
        """Returns the ids of calls that are sent."""
        return _ids(request, target)

    def _generation(self, request: Request, target: Target) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "temperature": request.temperature,
            "topP": request.top_p,
            "maxOutputTokens": request.max_tokens,
            "stopSequences": self.rules.first_items(request.stop, _MOST_STOPS, "stop", target.changes) or UNSET,
            "seed": request.seed,
        }
        if request.response_format:
            fields |= _response_format(request.response_format)
        if request.reasoning:
            fields["thinkingConfig"] = _shown(self._thinking(request.reasoning, target), request.reasoning)
        return {name: value for name, value in fields.items() if value is not _UNSET}

    def _thinking(self, wanted: Reasoning, target: Target) -> Any:
        """Returns the `thinkingConfig`: a budget or a level, never both, and the request for thoughts."""
        facts, budget = self.facts(target), wanted.max_tokens
        takes_budget = facts.thinking is None or "budget" in facts.thinking
        path = "reasoning.effort" if budget is _UNSET else "reasoning.max_tokens"
        if budget == 0 or (wanted.effort == "none" and budget is _UNSET):
            return self._least(path, target, facts)
        if budget is _UNSET:
            if not wanted.effort:
                return UNSET
            if not takes_budget or facts.thinking is None:
                return {"thinkingLevel": _level(self.effort(wanted.effort, target)), "includeThoughts": True}
            budget = _BUDGETS[wanted.effort]
        elif not takes_budget:
            effort = next((name for name, tokens in _BUDGETS.items() if tokens >= budget), "high")
            level = nearest_effort(facts.efforts or self.efforts, effort)
            target.changes.adjust(path, f"{level}")
            return {"thinkingLevel": _level(level), "includeThoughts": True}
        elif facts.least_budget and budget < facts.least_budget:
            budget = facts.least_budget
            target.changes.adjust(path, f"{budget}")
        return {"thinkingBudget": budget, "includeThoughts": True}

    def _least(self, path: str, target: Target, facts: Facts) -> dict[str, Any]:
        """Returns the `thinkingConfig` for no thinking, or for the least that the model does."""
        if facts.thinking is None or "disabled" in facts.thinking:
            return {"thinkingBudget": 0}
        if "budget" in facts.thinking:
            target.changes.adjust(path, f"{facts.least_budget}")
            return {"thinkingBudget": facts.least_budget}
        level = (facts.efforts or self.efforts)[0]
        target.changes.adjust(path, level)
        return {"thinkingLevel": _level(level)}

    def _contents(self, request: Request, target: Target) -> list[dict[str, Any]]:
        """Returns the turns. Adjacent messages of one role are one turn: parallel calls' results must be together."""
        sent: list[dict[str, Any]] = []
        names: dict[str, str] = {}
        ids = self._call_ids(request, target)
        has_begun = False
        for where, message in in_call_order(turns(request)):
            breathe()
            # Of another class, `isinstance` asks the metaclass: 800 instructions.
            if type(message) is SystemMessage:
                if has_begun:
                    parts = [{"text": text} for text in _texts(message) if text]
                    if parts:  # the API has no such text elsewhere, and at the beginning it would change each prompt
                        target.changes.adjust(f"{where}.role", "user")
                        add_turn(sent, "user", "parts", parts)
                        continue
                if not any(_texts(message)):
                    target.changes.drop_message(where)
                continue
            has_begun = True
            if type(message) is ToolMessage:
                role, parts = "user", self._tool_result(where, message, names, ids, target)
            else:
                role = "model" if type(message) is AssistantMessage else "user"
                content = [TextPart(text=message.content)] if isinstance(message.content, str) else message.content
                parts = []
                for at, part in enumerate(content):
                    if type(part) is ToolCallPart:
                        names[part.call_id] = part.name
                    parts += self._part(f"{where}.content[{at}]", part, ids, target)
                if len(parts) > 1:
                    parts = _without_repeated_signatures(parts)
            if not parts:
                target.changes.drop_message(where)
            elif _begins_with_call(sent, role, parts):
                target.changes.adjust(where, "after a word of the user")
                sent.insert(0, {"role": "user", "parts": [{"text": _WORD}]})
            add_turn(sent, role, "parts", parts)
        if "level" in (self.facts(target).thinking or ()):
            for turn in sent:
                _sign_first_call(turn["parts"])
        return sent

    def _part(self, where: str, part: Any, ids: frozenset[str], target: Target) -> list[dict[str, Any]]:
        """Returns a part in Gemini's form, or nothing for empty text and for another provider's reasoning."""
        if isinstance(part, TextPart):
            return [{"text": part.text}] if part.text else []
        if isinstance(part, ReasoningPart):
            if not part.signature or part.redacted or (part.provider and part.provider != self.provider):
                return []
            # A signature without a thought belongs to the visible text before it.
            thought = {"thought": True} if part.text else {}
            return [{"text": part.text, **thought, "thoughtSignature": part.signature}]
        if isinstance(part, ToolCallPart):
            arguments = argument_object(part, where, target.changes)
            call = {**_identifier(part.call_id, ids), "name": part.name, "args": arguments}
            return [{"functionCall": call} | ({"thoughtSignature": part.signature} if part.signature else {})]
        if isinstance(part, ProviderBlockPart):
            return self.own_blocks(where, part, target)
        if isinstance(part, FilePart) and part.file_id:
            if part.provider != self.provider:
                self.leave_out(where, target, f"a file of {part.provider[: LIMITS.kept_word]}")
                return []
            return [{"fileData": _kind_of_file(part) | {"fileUri": part.file_id}}]
        if isinstance(part, (FilePart, VideoPart, ImagePart)) and part.url:
            _check_public(where, part.url)
        if isinstance(part, (FilePart, VideoPart)) and part.url:
            return [{"fileData": _kind_of_file(part) | {"fileUri": part.url}}]
        if not isinstance(part, ImagePart):
            return [{"inlineData": {"mimeType": part.media_type, "data": part.data}}]
        inline = image_data(part)
        if inline is not None:
            return [{"inlineData": {"mimeType": inline[0], "data": inline[1]}}]
        return [{"fileData": _image_type(part) | {"fileUri": part.url}}]

    def _tool_result(
        self, where: str, message: ToolMessage, names: Mapping[str, str], ids: frozenset[str], target: Target
    ) -> list[dict[str, Any]]:
        """Returns the result of a call, and its images and files as parts: only new models accept them inside."""
        name = names.get(message.call_id)
        if name is None:
            raise InvalidRequest(message=f"No tool_call before `{where}` has its `call_id`", reason="validation")
        content = [TextPart(text=message.content)] if isinstance(message.content, str) else message.content
        text = joined(part.text for part in content if isinstance(part, TextPart))
        response = {"error" if message.is_error else "output": text}
        images = [
            shown
            for at, part in enumerate(content)
            if isinstance(part, (ImagePart, FilePart))
            for shown in self._part(f"{where}.content[{at}]", part, ids, target)
        ]
        answer = {**_identifier(message.call_id, ids), "name": name, "response": response}
        return [{"functionResponse": answer}, *images]


class GeminiOnVertex(Gemini):
    """Gemini on Vertex AI. `base_url` ends with the project and the location.

    A model's id is its bare name, or a resource in the location: `publishers/…`, `endpoints/…`.
    """

    telemetry_name = "gcp.vertex_ai"
    routes = NOWHERE
    base_url = ""
    base_url_form = f"https://HOST/v1beta1/{PROJECT}"
    key_variable = ""
    models_path = ""
    clouds: ClassVar = {"google": InCloud(f"https://{{vertex}}/v1beta1/{PROJECT}")}

    def post(self, body: dict[str, Any], target: Target) -> UpstreamRequest:
        resource = _LOCATION.sub("", target.model)
        if not resource.startswith(_IN_LOCATION):
            resource = f"publishers/google/models/{in_path(resource, 'a model')}"
        else:
            resource = in_path(resource, "a model", "/@")
        return UpstreamRequest(f"/{resource}:streamGenerateContent?alt=sse", encode_json(body), self.headers(target))

    def key_header(self, api_key: str) -> tuple[str, str]:
        return "authorization", f"Bearer {api_key}"

    def _call_ids(self, request: Request, target: Target) -> frozenset[str]:
        return frozenset()


_DELAY: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")
"""A duration in protobuf's JSON form."""


def _check_public(where: str, url: str) -> None:
    """Refuses the address of a stored file, which any caller could give: whose a `file_id` is, is checked.

    Raises:
        InvalidRequest: The text names the part.
    """
    if not url.startswith("data:") and is_stored_address(url):
        text = f"`{where}.url` names a file that Google stores: send a `file` with it as `file_id`, `provider` gemini"
        raise InvalidRequest(message=text, reason="validation")


def _kind_of_file(part: FilePart | VideoPart) -> dict[str, Any]:
    """Returns the media type of a file at an address, if the request has it."""
    return {"mimeType": part.media_type} if part.media_type else {}


def _without_repeated_signatures(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the parts without those that only repeat the signature of the part after them.

    A signed block of Gemini is two parts of a message: its signature, which every client keeps, and the block.
    """
    following = [*parts, {}][1:]
    return [
        part
        for part, after in zip(parts, following, strict=True)
        if part.keys() != _SIGNATURE or part["text"] or part["thoughtSignature"] != after.get("thoughtSignature")
    ]


def _begins_with_call(sent: list[dict[str, Any]], role: str, parts: list[dict[str, Any]]) -> bool:
    """Returns whether a message puts a call into the first turn, with no turn of the user before it.

    "Function call turn comes immediately after a user turn or after a function response turn."
    """
    is_first = not sent or (len(sent) == 1 and sent[0]["role"] == role)
    return is_first and any("functionCall" in part for part in parts)


@lru_cache(SHARED.known_values)
def _path(model: str) -> str:
    """Returns the path for a model. The name of a resource keeps its slashes.

    Raises:
        NotFound: The name would change the path.
    """
    version = "v1beta1" if model.startswith(_VERTEX) else "v1beta"
    if not model.startswith(_RESOURCES):
        resource = f"models/{in_path(model, 'a model')}"
    else:
        resource = in_path(model, "a resource", "/")
    return f"/{version}/{resource}:streamGenerateContent?alt=sse"


def _instructions(request: Request) -> Iterator[SystemMessage]:
    """Yields the system messages before all others."""
    for message in conversation(request):
        if type(message) is not SystemMessage:
            return
        yield message


def _texts(message: SystemMessage) -> list[str]:
    return [message.content] if isinstance(message.content, str) else [part.text for part in message.content]


def _ids(request: Request, target: Target) -> frozenset[str]:
    """Returns the ids that are sent. Vertex AI refuses all ids."""
    if target.model.startswith(_VERTEX):
        return frozenset()
    return frozenset([call.call_id for message in request.messages for call in calls_of(message)])


def _identifier(call_id: str, ids: frozenset[str]) -> dict[str, str]:
    return {"id": call_id} if call_id in ids else {}


def _image_type(image: ImagePart) -> dict[str, str]:
    """Returns the media type of an image that Google fetches: the request's, or the type for the URL's extension."""
    name = str(image.url).partition("?")[0]
    media_type = image.media_type or _IMAGE_TYPES.get(name.rpartition(".")[2].lower())
    return {"mimeType": media_type} if media_type else {}


def _declaration(tool: Tool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "parametersJsonSchema": Fragment(bytes(tool.parameters))}


def _sign_first_call(parts: list[dict[str, Any]]) -> None:
    """Adds Google's placeholder to the first call of a step without a signature: Gemini 3 refuses one without.

    Source: Google's guide to thought signatures. Such calls are of other providers, or of users.
    """
    for part in parts:
        if "functionCall" in part:
            part.setdefault("thoughtSignature", _NO_SIGNATURE)
            return


_NO_SIGNATURE: Final = "skip_thought_signature_validator"


def _calling(request: Request, tools: Any) -> dict[str, Any]:
    """Returns the `functionCallingConfig`. Mode `AUTO` does not enforce the schema of arguments, `VALIDATED` does."""
    wanted = request.tool_choice
    declared = isinstance(tools, list) and any("functionDeclarations" in tool for tool in tools)
    if isinstance(wanted, str) and not declared:
        return {}  # Google refuses the member without declarations
    if wanted is not _UNSET and not isinstance(wanted, str):
        return {"mode": "ANY", "allowedFunctionNames": [wanted.name]}
    if wanted in (_UNSET, "auto") and any(tool.strict is True for tool in request.tools):
        return {"mode": "VALIDATED"}
    return {"mode": _TOOL_CHOICES[wanted]} if wanted else {}


def _shown(thinking: Any, wanted: Reasoning) -> Any:
    """Returns a `thinkingConfig` that shows thoughts as the request asks for."""
    if not wanted.summary:
        return thinking
    known = thinking or {}
    if known.get("thinkingBudget") == 0:
        return known
    return {**known, "includeThoughts": wanted.summary != "none"}


def _response_format(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.type == "text":
        return {}
    if wanted.type == "json":
        return {"responseMimeType": "application/json"}
    return {"responseMimeType": "application/json", "responseJsonSchema": required_schema(wanted)}


def _level(effort: str | None) -> str:
    return "" if effort is None else effort.upper()


APIS: Final[dict[str, API]] = {"": Gemini(), "vertex": GeminiOnVertex()}
