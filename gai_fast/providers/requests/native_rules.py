"""The parts of a native request that an API takes: fields, tools that the provider runs, sampling, knobs and efforts.

Owns what a native request loses or has changed before it is written in the provider's dialect. What a provider accepts
of the written body stands in its `RequestRules` (`requests/rules.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

from msgspec import UNSET, Raw
from msgspec.structs import replace
from mypy_extensions import mypyc_attr

from gai_fast.core.adapter import ResponseAPI
from gai_fast.core.requests.reading import turns
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.changes import Changes, unsupported
from gai_fast.model.errors import Unsupported
from gai_fast.model.request import (
    AssistantMessage,
    Message,
    NamedTool,
    ProviderBlockPart,
    Reasoning,
    Request,
    SystemMessage,
    TextPart,
    Tool,
    ToolMessage,
    UserMessage,
)
from gai_fast.model.settings import ModelSettings
from gai_fast.providers.answers.limits import LIMITS
from gai_fast.providers.requests.facts import SCALE, Facts, corrected, facts_of, nearest_effort
from gai_fast.providers.requests.own_tools import CONTEXT_SIZE, OwnTool, declared, lacking
from gai_fast.providers.requests.parts import is_given, knobs_of, object_schema
from gai_fast.providers.requests.strict_schemas import all_required
from gai_fast.providers.requests.target import Target
from gai_fast.providers.requests.tool_names import ToolNames

Unions = Literal["sent", "typed", "flat", "loose"]


@mypyc_attr(allow_interpreted_subclasses=True)
class NativeRules(ResponseAPI):
    """The parts of a native request that one API takes; the base of `API`."""

    lacks: ClassVar[frozenset[str]] = frozenset()
    """Names of the fields of a native request that this API does not support at all."""
    knobs: ClassVar[Mapping[str, str]] = {}
    """The API's member for each of the `KNOBS` that it has; `a.b` is the member `b` of the object `a`."""
    service_tiers: ClassVar[frozenset[str]] = frozenset()
    """The values of `service_tier` that the API accepts. Empty: any."""
    own_tools: ClassVar[Mapping[str, OwnTool]] = {}
    """The declarations of the tools that this API runs, by the `type` of a tool in a native request."""
    chooses_own_tools: ClassVar[bool] = False
    """Whether `tool_choice` of this API may name a tool that it runs."""
    has_custom_tools: ClassVar[bool] = False
    """Whether this API has tools whose input is text."""
    efforts: ClassVar[Sequence[str]] = SCALE
    """The words of this API for `reasoning.effort`, from the least on."""
    least_top_p: ClassVar[float] = 1.0
    """The least `top_p` that a model accepts with thinking, if it takes no other sampling parameters there."""
    tool_names: ClassVar[ToolNames | None] = None
    """The names of tools that this API accepts; None if it accepts all."""
    unions: ClassVar[Unions] = "sent"
    """The treatment of a union as the schema of a tool's arguments, which some APIs refuse. `flat`: an object with
    the properties of all members. `loose`: as `flat`, for an API whose objects need `properties`, and whose strict
    objects require all of them. `typed`: the union, with the type `object`. `sent`: the union as it is."""
    strict_is_closed: ClassVar[bool] = False
    """Whether this API takes strict schemas only if their objects are closed and all their properties are required."""
    says_all: ClassVar[bool] = False
    """Whether this API refuses empty texts, so that messages without another part are not sent."""
    needs_user: ClassVar[bool] = False
    """Whether this API refuses a conversation of instructions alone; the last of them is then sent as the user's."""

    def unsupported(self, field: str) -> Unsupported:
        """Returns the error for a field that this API does not support and that cannot be left out."""
        return unsupported(self.provider, field)

    def leave_out(self, field: str, target: Target, what: str = "") -> None:
        """Refuses a field of the native request that the API does not support, or records that it is left out.

        `build_request` calls this method for everything that the provider does not support. If the method returns,
        `build_request` leaves the field out.

        Args:
            field: The path in the native request: `seed`, `reasoning.max_tokens`, `tools[1].strict`,
                `messages[2].content[1]`; `reading.turns` returns the paths of messages.
            target: Its `changes` decide which, as `Changes.leave_out`.
            what: A detail for the error text, such as `audio parts in tool messages`.

        Raises:
            Unsupported: `on_unsupported` is `error`; the text names the field.
        """
        target.changes.leave_out(self.provider, field, what)

    def leave_out_part(
        self, path: str, part: Any, message: Message, target: Target, *, only_its_type: bool = False
    ) -> None:
        """Calls `leave_out` for a part of a message. Another provider's block is left out and recorded, never refused.

        Args:
            path: The path of the part in the native request.
            part: The part.
            message: The message that holds it.
            target: See `leave_out`.
            only_its_type: The API supports parts of this kind, but not with this media type.
        """
        if isinstance(part, ProviderBlockPart):
            # Blocks come with the messages of earlier answers: to other providers they mean nothing.
            target.changes.drop(path)
            return
        kind = part.__struct_config__.tag
        role = message.__struct_config__.tag
        what = f"{kind} of type {part.media_type}" if only_its_type else f"{kind} parts in {role} messages"
        if only_its_type and not part.data:
            what = f"a {kind} by its address" if part.url else f"a {kind} of {part.provider[: LIMITS.kept_word]}"
        self.leave_out(path, target, what)

    def hide_failure(self, path: str, message: ToolMessage, target: Target) -> None:
        """Notes that a tool's result is sent as any other, for an API without a flag of failed ones: its text remains.

        Args:
            path: The path of the result in the native request.
            message: The result.
            target: Its `changes` note it.
        """
        if message.is_error:
            target.changes.adjust(f"{path}.is_error", "false")

    def own_blocks(self, path: str, part: ProviderBlockPart, target: Target) -> list[dict[str, Any]]:
        """Returns the block of a part, with exact integers, or nothing if it is another provider's.

        Args:
            path: The path of the part in the native request.
            part: The part.
            target: Its `changes` record a block that is left out.
        """
        if part.provider != self.provider:
            target.changes.drop(path)
            return []
        return [parse_exact(bytes(part.block).decode())]

    def is_blind(self, path: str, target: Target) -> bool:
        """Returns whether the model reads no images; then calls `leave_out` for the image at a path."""
        if self.facts(target).images is not False:
            return False
        self.leave_out(path, target, "this model reads no images")
        return True

    def facts(self, target: Target) -> Facts:
        """Returns the facts about a target's model, with the configuration's corrections."""
        known = facts_of(self.provider, target.model)
        return corrected(known, target.corrections) if target.corrections else known

    def window(self, model: ModelSettings) -> int | None:
        corrections: Mapping[str, Any] = model.facts
        window: int | None = corrections.get("window", facts_of(self.provider, model.id).window)
        return window

    def own_tool(self, kind: str, target: Target) -> OwnTool | None:
        """Returns how this API declares a tool that it runs, or None if it has none for the target's model.

        Args:
            kind: `web_search` or `code_execution`.
            target: The model.
        """
        return self.own_tools.get(kind)

    def add_own_tool(self, body: dict[str, Any], tool: Tool, form: OwnTool) -> None:
        """Adds a tool that the provider runs to a body.

        Args:
            body: The body.
            tool: The tool of the request.
            form: How the API declares it.
        """
        body.setdefault("tools", []).append(declared(form, tool.options or {}))

    def _without_own_tools(self, request: Request, target: Target) -> tuple[Request, list[tuple[Tool, OwnTool]]]:
        """Returns the request with the client's own tools alone, and the tools that the provider runs.

        Raises:
            Unsupported: As `leave_out`, for a tool or an option that the API lacks.
        """
        kept: list[Tool] = []
        own: list[tuple[Tool, OwnTool]] = []
        places: list[str] = []
        own_places: list[str] = []
        choice = request.tool_choice
        is_chosen = False
        for at, tool in enumerate(request.tools):
            kind = tool.type
            if kind == "function" or (kind == "custom" and self.has_custom_tools):
                kept.append(tool)
                places.append(f"tools[{at}]")
                continue
            form = self.own_tool(kind, target)
            if isinstance(choice, NamedTool) and choice.name == (tool.name if kind == "custom" else kind):
                is_chosen = form is None or not self.chooses_own_tools
            if form is None:
                self.leave_out(f"tools[{at}]", target, f"tools of the type {kind}")
                continue
            for name in lacking(form, tool.options or {}):
                if name == CONTEXT_SIZE:  # a wish, without which the answer is another one at most in length
                    target.changes.drop(f"tools[{at}].options.{name}")
                else:
                    self.leave_out(f"tools[{at}].options.{name}", target)
            own.append((tool, form))
            own_places.append(f"tools[{at}]")
        if len(kept) < len(request.tools):
            target.changes.tools = [*places, *own_places]
        if is_chosen:
            self.leave_out("tool_choice", target, "it names a tool that is no function")
            request = replace(request, tool_choice=UNSET)
        return (request if len(kept) == len(request.tools) else replace(request, tools=kept)), own

    def _with_objects(self, request: Request, target: Target) -> Request:
        """Returns the request with arguments of tools that say that they are objects, without unions and references.

        Of unions `strict` is left out.
        """
        tools = [*request.tools]
        for at, tool in enumerate(tools):
            written = object_schema(
                bytes(tool.parameters), keeps_unions=self.unions == "typed", needs_properties=self.unions == "loose"
            )
            if written is None:
                continue
            schema, word = written
            strict = tool.strict
            if strict is True and self.unions == "loose" and word == "simplified":
                self.leave_out(f"tools[{at}].strict", target, "arguments that are a union")
                strict = UNSET
            if word:
                target.changes.adjust(f"tools[{at}].parameters", word)
            tools[at] = replace(tool, parameters=schema, strict=strict)
        return replace(request, tools=tools)

    def closes_strict(self, target: Target) -> bool:
        """Returns whether strict schemas for a model need `strict_is_closed`."""
        return self.strict_is_closed

    def _with_strict_schemas(self, request: Request, target: Target) -> Request:
        """Returns the request with strict schemas that OpenAI takes: closed, or not strict if that is not enough.

        Anthropic's strict schemas may have optional properties, and its schemas of answers are always strict.
        """
        tools: list[Tool] = [*request.tools]
        for at, tool in enumerate(tools):
            if tool.strict is True:
                schema, is_strict = _closed(bytes(tool.parameters), f"tools[{at}]", "parameters", target.changes)
                tools[at] = replace(tool, parameters=schema, strict=is_strict)
        form = request.response_format
        if form and form.strict is True and form.schema:
            schema, is_strict = _closed(bytes(form.schema), "response_format", "schema", target.changes)
            form = replace(form, schema=schema, strict=is_strict)
        return replace(request, tools=tools, response_format=form)

    def _without_silent_end(self, request: Request, target: Target) -> Request:
        """Returns the request without empty messages of the user at its end, after `leave_out`.

        An answer before them is left out too: as the last message, the model would continue it.
        """
        if request.query is not _UNSET:
            ends_silent = not self.is_visible(request.query)
        else:
            messages = request.messages
            ends_silent = bool(messages) and self._is_silent(messages[-1])
        if not ends_silent:  # nearly always, and `turns` takes 1,500 instructions
            return request
        given = turns(request)
        last = len(given)
        while last and self._is_silent(given[last - 1][1]):
            last -= 1
        if last and not isinstance(given[last - 1][1], AssistantMessage):
            return request
        kept = last
        while kept and isinstance(given[kept - 1][1], AssistantMessage):
            kept -= 1
        for path, _ in given[last:]:
            self.leave_out(path, target, "a last message that says nothing")
        if not kept:
            return request
        for path, _ in given[kept:last]:
            target.changes.drop(path)
        left = len(given) - kept - (request.query is not _UNSET)
        return replace(request, messages=request.messages[: len(request.messages) - left], query=UNSET)

    def _is_silent(self, message: Message) -> bool:
        """Returns whether a message is the user's and holds only texts that this API refuses."""
        if not isinstance(message, UserMessage):
            return False
        if isinstance(message.content, str):
            return not self.is_visible(message.content)
        return not any(not isinstance(part, TextPart) or self.is_visible(part.text) for part in message.content)

    def is_visible(self, text: str) -> bool:
        """Returns whether this API accepts a text."""
        return bool(text)

    def supported(self, request: Request, target: Target, *, has_tools: bool = False) -> Request:
        """Returns the request without the fields that this API `lacks`, and without a choice among no tools.

        Args:
            request: The request.
            target: Model and policy.
            has_tools: Whether tools are sent that the request no longer has.

        Raises:
            Unsupported: As `leave_out`.
        """
        if self.needs_user and request.query is _UNSET:
            request = _with_a_user(request, target.changes)
        # Each access of a field by its name takes 160 instructions, so only those that the API lacks are looked at.
        lacking = [name for name in self.lacks if is_given(getattr(request, name))]
        if len(lacking) > 1:
            lacking.sort(key=request.__struct_fields__.index)
        choice = request.tool_choice
        chooses_nothing = choice is not _UNSET and not (request.tools or has_tools) and not self._has_raw_tools(request)
        if choice == "auto" and not request.tools and "tool_choice" in self.lacks:
            chooses_nothing = True  # the provider's own tools alone, which it runs as it likes
        if chooses_nothing and choice in _NO_CHOICES:
            lacking = [name for name in lacking if name != "tool_choice"]
        for name in lacking:
            self.leave_out(name, target)
        if chooses_nothing and "tool_choice" not in lacking:
            if choice not in _NO_CHOICES:
                self.leave_out("tool_choice", target, "it needs `tools`")
            lacking.append("tool_choice")
        if request.temperature is not _UNSET or request.top_p is not _UNSET or request.top_k is not _UNSET:
            lacking += self._refused_sampling(request, target)
        if not lacking:
            return request
        kept = {name: getattr(request, name) for name in request.__struct_fields__ if name not in lacking}
        return Request(**kept)

    def _has_raw_tools(self, request: Request) -> bool:
        """Returns whether a request has tools in its options of this provider."""
        own = request.provider_options.get(self.provider)
        return own is not None and "tools" in own

    def _refused_sampling(self, request: Request, target: Target) -> list[str]:
        """Returns the sampling parameters that the model does not take, after `leave_out`.

        The value 1 changes nothing, so it is left out without a refusal.
        """
        facts = self.facts(target)
        wanted = request.reasoning
        thinks = isinstance(wanted, Reasoning) and (
            wanted.max_tokens != 0 if wanted.max_tokens is not _UNSET else wanted.effort not in (_UNSET, "none")
        )
        refused: list[str] = []
        for name, value, least in (
            ("temperature", request.temperature, 1.0),
            ("top_p", request.top_p, self.least_top_p),
        ):
            if value is _UNSET or name in self.lacks:
                continue
            what = ""
            if facts.sampling == "none":
                what = "this model takes no sampling parameters"
            elif facts.sampling == "one" and name == "top_p" and request.temperature is not _UNSET:
                what = "this model takes `temperature` or `top_p`"
            elif thinks and facts.sampling_with_thinking is False and value < least:
                what = "this model takes no sampling parameters while it thinks"
            if not what:
                continue
            if value == 1:
                target.changes.drop(name)
            else:
                self.leave_out(name, target, what)
            refused.append(name)
        if request.top_k is not _UNSET and (
            facts.sampling == "none" or (thinks and facts.sampling_with_thinking is False)
        ):
            self.leave_out("top_k", target, "this model takes no sampling parameters")
            refused.append("top_k")
        return refused

    def add_knobs(self, body: dict[str, Any], request: Request, target: Target) -> None:
        """Adds the `KNOBS` of a request to its body, under the API's names.

        What the API lacks is handled by `leave_out`, unless its value asks for the default, or it only identifies the
        end user: then it is left out and reported.
        """
        for name, value in knobs_of(request).items():
            if name == "parallel_tool_calls" and not request.tools:
                continue
            place = self.knobs.get(name)
            if place is None:
                if name in _IDENTITIES:
                    target.changes.drop(name)
                elif value not in _NEUTRAL.get(name, ()):
                    self.leave_out(name, target)
                continue
            if name == "service_tier" and self.service_tiers and value not in self.service_tiers:
                if value not in _NEUTRAL[name]:
                    self.leave_out(name, target)
                continue
            holder = body
            *outer, last = place.split(".")
            for key in outer:
                holder = holder.setdefault(key, {})
            holder[last] = value

    def effort(self, wanted: str, target: Target) -> str | None:
        """Returns the model's word for `reasoning.effort`, or the nearest it has. None if nothing is sent.

        Args:
            wanted: The effort of the request.
            target: Model and policy; another word is noted in its `changes`.

        Raises:
            Unsupported: As `leave_out`: the model does not think.
        """
        facts = self.facts(target)
        if facts.never_thinks:
            if wanted != "none":
                self.leave_out("reasoning.effort", target, "this model does not think")
            return None
        word = nearest_effort(self.efforts if facts.efforts is None else facts.efforts, wanted)
        if word is None:
            self.leave_out("reasoning.effort", target, "this model has no efforts")
        elif word != wanted:
            target.changes.adjust("reasoning.effort", word)
        return word


def has_strict_schemas(request: Request) -> bool:
    """Returns whether a request has a strict schema, of an answer or of a tool's arguments."""
    form = request.response_format
    if form and form.strict is True and form.schema:
        return True
    tools: list[Tool] = request.tools
    return any(tool.strict is True for tool in tools)


def _closed(raw: bytes, path: str, name: str, changes: Changes) -> tuple[Raw, bool]:
    """Returns a strict schema with closed objects, and whether it is still strict; notes what it changes.

    Args:
        raw: The schema's JSON.
        path: The path of its holder in the request.
        name: Its name in the holder.
        changes: Note it.
    """
    given = parse_exact(raw.decode())
    closed = all_required(given)
    if closed is None:
        changes.adjust(f"{path}.strict", "false")
        return Raw(raw), False
    if closed is given:
        return Raw(raw), True
    try:
        written = Raw(encode_json(closed))
    except ValueError:  # a number that JSON does not have: the provider refuses it
        return Raw(raw), True
    changes.adjust(f"{path}.{name}", "closed")
    return written, True


def _with_a_user(request: Request, changes: Changes) -> Request:
    """Returns the request with its last instructions as a message of the user if it has no other messages."""
    for message in request.messages:
        if type(message) is not SystemMessage:
            return request
    if request.messages:
        last = request.messages[-1]
        changes.adjust(f"messages[{len(request.messages) - 1}].role", "user")
        user = UserMessage(content=last.content if isinstance(last.content, str) else [*last.content])
        return replace(request, messages=[*request.messages[:-1], user])
    if request.system is _UNSET:
        return request
    changes.adjust("system", "user")
    return replace(request, query=request.system, system=UNSET)


_UNSET: Final = UNSET  # a constant: a name look-up costs 30 ns
_IDENTITIES: Final = frozenset({"user", "safety_identifier"})
"""Knobs that do not affect the answer."""
_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "parallel_tool_calls": (True,),
    "verbosity": ("medium",),
    "service_tier": ("auto", "default", "standard"),
}
"""The values of knobs that ask for the default."""
_NO_CHOICES: Final = ("auto", "none")
"""Values of `tool_choice` that mean nothing without tools."""
