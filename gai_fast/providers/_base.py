"""The base classes of providers: `API` builds requests, `ProviderAdapter` is the base of all adapters.

A provider's file has one `API` object per API of that provider. `API.adapter()` creates one adapter per response. `API`
and adapters do no I/O and read no clock. Knows no provider by name. `gai_fast/core/adapter.py` has the interfaces that
the relay calls. Code that several providers share is in this folder: `_requests.py`, `_events.py`, `_failures.py`,
`_room.py` and `_tool_calls.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal

from msgspec import UNSET, Struct, defstruct
from msgspec.structs import replace
from mypy_extensions import mypyc_attr

from gai_fast.core.adapter import Adapter, Framing, ResponseAPI
from gai_fast.core.chunks import count, parse_chunk
from gai_fast.core.reading import check_members
from gai_fast.core.shapes import Shape
from gai_fast.core.stored_ids import stored_ids
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.changes import Changes, unsupported
from gai_fast.model.errors import Error, Malformed, Unsupported
from gai_fast.model.events import Event
from gai_fast.model.limits import SHARED
from gai_fast.model.money import Amount, amount_of
from gai_fast.model.request import (
    Message,
    NamedTool,
    ProviderBlockPart,
    Reasoning,
    Request,
    SystemMessage,
    Tool,
    UserMessage,
)
from gai_fast.model.retry_after import retry_after_ms
from gai_fast.model.settings import ModelSettings, Tuning
from gai_fast.model.upstream_errors import UpstreamFailure, from_upstream
from gai_fast.providers._clouds import InCloud
from gai_fast.providers._facts import SCALE, Facts, corrected, facts_of, nearest_effort
from gai_fast.providers._failures import error_object, failure_of
from gai_fast.providers._finish_words import FAILURE_WORDS
from gai_fast.providers._own_tools import CONTEXT_SIZE, OwnTool, declared, lacking
from gai_fast.providers._refusals import added_to, dispensable, may_name_a_member, named_member
from gai_fast.providers._requests import is_given, knobs_of, merged, paired
from gai_fast.providers._room import Room
from gai_fast.providers._rules import RequestRules
from gai_fast.providers._thoughts import refuses_signatures, without_thoughts
from gai_fast.providers._tuning import check_raw, filled_body, overridden_body, quirky, tuned, without
from gai_fast.providers.limits import LIMITS

_HEADERS: Final[dict[Framing, list[tuple[str, str]]]] = {
    "sse": [("content-type", "application/json"), ("accept", "text/event-stream")],
    "ndjson": [("content-type", "application/json"), ("accept", "application/x-ndjson")],
}
"""The headers of every request, by the framing of its response."""


_PROBE: Final = Request(query="-")
NO_CORRECTIONS: Final[Mapping[str, Any]] = MappingProxyType({})


class Target:
    """The model and the credential of a request, and the policy for fields that the provider does not support.

    Args:
        model: The upstream's id of the model.
        api_key: The credential in plain text; None if the upstream needs none.
        on_unsupported: Whether a field that the provider does not support is refused (`error`) or left out (`drop`).
        corrections: The facts of the model that the configuration corrects, by name (`_facts.checked_facts`).
        settings: The model, if the configuration changes its requests.
        refused: The paths of members that the upstream has refused: left out if a request can do without them.

    Attributes:
        changes: What was left out or changed; filled by `API.leave_out` and `API.adjust`.
    """

    __slots__ = ("api_key", "changes", "corrections", "model", "on_unsupported", "refused", "settings")

    def __init__(
        self,
        model: str,
        api_key: str | None = None,
        on_unsupported: Literal["error", "drop"] = "error",
        corrections: Mapping[str, Any] = NO_CORRECTIONS,
        settings: ModelSettings | None = None,
        refused: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.api_key = api_key
        self.on_unsupported = on_unsupported
        self.corrections = corrections
        self.settings = settings
        self.refused = refused
        self.changes = Changes(on_unsupported)


class UpstreamRequest:
    """An HTTP request to an upstream; `path` is appended to the configured `base_url`."""

    __slots__ = ("body", "headers", "method", "path")

    def __init__(self, path: str, body: bytes, headers: Sequence[tuple[str, str]] = (), method: str = "POST") -> None:
        self.path = path
        self.body = body
        self.headers = headers
        self.method = method


NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


@mypyc_attr(allow_interpreted_subclasses=True)
class API(ResponseAPI):
    """One API of one provider. Stateless; shared by all requests."""

    telemetry_name: ClassVar[str] = ""
    """The provider's name in OpenTelemetry's GenAI conventions (`gen_ai.provider.name`); empty: `provider`."""
    operation: ClassVar[str] = "chat"
    """The operation's name in these conventions (`gen_ai.operation.name`)."""
    base_url: ClassVar[str] = ""
    """The default, in the form that the provider's SDK uses; empty: the configuration must set one."""
    base_url_form: ClassVar[str] = "https://HOST/v1"
    """An example of the `base_url` that the configuration must set, for error messages."""
    key_variable: ClassVar[str] = ""
    """The usual environment variable of the credential; empty: none."""
    host_variable: ClassVar[str] = ""
    """The environment variable from which the provider's own SDK reads the server's address; empty: none."""
    local_servers: ClassVar[Mapping[str, str]] = {}
    """The default `base_url` of each server of this API that users run locally, by the server's name."""
    path: ClassVar[str] = ""
    """The path of requests below `base_url`."""
    recording: ClassVar[str] = ""
    """The name of a recording in this package that is played instead of a request to an upstream; empty: none."""
    description: ClassVar[str] = ""
    """What users should know of every answer; empty if the upstream's model answers."""
    clouds: ClassVar[Mapping[str, InCloud]] = {}
    """How clouds offer this API, by the value of `auth`."""
    stream_options: ClassVar[Mapping[str, bool]] = {}
    """The request's `stream_options`; empty: the field is not sent."""
    models_path: ClassVar[str] = ""
    """The path of the list of models, a request that is free of charge; empty: this API has none."""
    count_path: ClassVar[str] = ""
    """The path at which this API counts the tokens of a request; empty: this API counts none."""
    compact_path: ClassVar[str] = ""
    """The path at which this API compacts a conversation (OpenAI's Responses); empty: it compacts none."""
    lacks: ClassVar[frozenset[str]] = frozenset()
    """Names of the fields of a native request that this API does not support at all."""
    rules: ClassVar[RequestRules] = RequestRules("", "")
    """What the provider accepts of a request in its dialect."""
    knobs: ClassVar[Mapping[str, str]] = {}
    """The API's member for each of the `KNOBS` that it has; `a.b` is the member `b` of the object `a`."""
    service_tiers: ClassVar[frozenset[str]] = frozenset()
    """The values of `service_tier` that the API accepts. Empty: any."""
    has_quirks: ClassVar[bool] = False
    """Whether requests are of the chat dialect, which `quirks` of an upstream change."""
    own_tools: ClassVar[Mapping[str, OwnTool]] = {}
    """How this API declares the tools that it runs, by the `type` of a tool in a native request."""
    chooses_own_tools: ClassVar[bool] = False
    """Whether `tool_choice` of this API may name a tool that it runs."""
    has_custom_tools: ClassVar[bool] = False
    """Whether this API has tools whose input is text."""
    efforts: ClassVar[Sequence[str]] = SCALE
    """The words of this API for `reasoning.effort`, from the least on."""
    least_top_p: ClassVar[float] = 1.0
    """The least `top_p` that a model takes beside thinking, if it takes no other sampling parameters there."""
    encrypts_reasoning: ClassVar[bool] = False
    """Whether each signature of the provider, whatever API it came from, is its whole reasoning, encrypted."""
    signs_texts: ClassVar[bool] = False
    """Whether a signature without a reasoning text is of the visible text."""
    needs_user: ClassVar[bool] = False
    """Whether this API refuses a conversation of instructions alone; the last of them is then sent as the user's."""
    options: ClassVar[Mapping[str, Any]] = {}
    """The types (for `msgspec.convert`) of the members of `provider_options` that the gateway itself reads. Each member
    may also be `null`. All other members are sent unchanged; the upstream validates them."""

    def build_request(self, request: Request, target: Target) -> UpstreamRequest:
        """Builds the provider's request for a native request: `body` with `provider_options` merged in.

        Raises:
            InvalidRequest: An option has a wrong type or may not be given, or a field has a value that no provider
                accepts.
            Unsupported: The provider does not support a field, and `target` does not allow it to be left out. The text
                names the field.
        """
        sent = self._written(request, target)
        if target.refused:
            paths = [path for path in self._dispensable(request, sent, target) if path in target.refused]
            sent = without(sent, paths, target.changes)
        return self.post(sent, target)

    def _written(self, request: Request, target: Target) -> dict[str, Any]:
        """Returns the whole body for a native request. Raises as `build_request`."""
        options = request.provider_options.get(self.provider)
        if options:
            path = f"$.provider_options.{self.provider}"
            check_raw(options, path)
            self.check_options(options, path)
        if request.extra:
            check_raw(request.extra, "$.extra")
            self.check_options(request.extra, "$.extra")
        settings = target.settings
        if settings is not None and settings.tuning is not None:
            request = tuned(request, settings.tuning)
        own: list[tuple[Tool, OwnTool]] = []
        if request.tools:
            request, own = self._without_own_tools(request, target)
        if target.on_unsupported == "drop":
            request = paired(request, target.changes)
        written = self.body(self.supported(request, target, has_tools=bool(own)), target)
        for tool, form in own:
            self.add_own_tool(written, tool, form)
        body = self.rules.fitted(written, self.shape_of(written), target.changes)
        if settings is not None:
            body = self._with_raw(body, settings)
        if options:
            body = merged(body, options)
        if request.extra:
            body = merged(body, request.extra)
        return self._without_dropped(body, target)

    def _dispensable(self, request: Request | Mapping[str, Any], sent: Mapping[str, Any], target: Target) -> list[str]:
        """Returns the paths of the members that the gateway has added, or translated where it may leave them out."""
        if not isinstance(request, Request):
            return dispensable(sent, added_to(request, sent))
        if target.on_unsupported == "drop":
            return dispensable(sent, sent)
        plain = self._written(_PROBE, Target(target.model, None, "drop", target.corrections, target.settings))
        return dispensable(sent, [name for name, value in sent.items() if name in plain and plain[name] == value])

    def refused_member(self, request: Request | Mapping[str, Any], target: Target, error: Error) -> str | None:
        """Returns the path of a member that an upstream refuses and that a request can do without, or None.

        Args:
            request: A native request, or a client's body.
            target: The request's target.
            error: The upstream's error.
        """
        if not may_name_a_member(error):
            return None
        sent = self._written(request, target) if isinstance(request, Request) else self._fitted(request, target, None)
        return named_member(error, self._dispensable(request, sent, target))

    def refuses_signatures(self, error: Error) -> bool:
        """Returns whether an upstream's error is about a signature of earlier reasoning that a request has."""
        return refuses_signatures(error)

    def without_thoughts(self, request: Request | dict[str, Any]) -> tuple[Request | dict[str, Any], list[str]]:
        """Returns a request without earlier reasoning and signatures, and the paths of what was left out."""
        return without_thoughts(request)

    def _with_raw(self, body: dict[str, Any], settings: ModelSettings) -> dict[str, Any]:
        """Returns a body with the raw members of the configuration."""
        upstream, tuning = settings.upstream, settings.tuning
        if upstream.extra:
            body = merged(body, upstream.extra)
        return merged(body, tuning.extra) if tuning is not None and tuning.extra else body

    def _without_dropped(self, body: dict[str, Any], target: Target) -> dict[str, Any]:
        """Returns a body as the upstream's `quirks` and the model's `drop` want it."""
        settings = target.settings
        if settings is None:
            return body
        if settings.upstream.quirks:
            body = quirky(body, settings.upstream.quirks, target.changes)
        tuning = settings.tuning
        return body if tuning is None or not tuning.drop else without(body, tuning.drop, target.changes)

    def _tuned_body(self, body: Mapping[str, Any], target: Target, tuning: Tuning) -> Mapping[str, Any]:
        """Returns a client's body with `defaults` where it is silent, and with `overrides`."""
        if tuning.defaults is not None:
            body = filled_body(body, self._members(tuning.defaults, tuning.default_names, target))
        if tuning.overrides is not None:
            body = overridden_body(body, self._members(tuning.overrides, tuning.override_names, target))
        return body

    def _members(self, fields: Request, names: tuple[str, ...], target: Target) -> dict[str, Any]:
        """Returns fields of a native request in this API's words."""
        # Written twice, because each writer builds whole bodies; only models with these keys pay for it.
        plain = self.body(_PROBE, target)
        whole = self.body(self.supported(replace(fields, query=_PROBE.query), target), target)
        kept = {"max_tokens", "max_completion_tokens", "max_output_tokens"} if "max_tokens" in names else set()
        members = {name: value for name, value in whole.items() if name in kept or name not in plain}
        members.pop("include", None)  # of the form of an answer
        return members

    @abstractmethod
    def body(self, request: Request, target: Target) -> dict[str, Any]:
        """Builds the JSON body for a native request, without `provider_options`.

        Args:
            request: The request without the fields that this API `lacks`; its options have been checked.
            target: Model and credential, for `leave_out`, which handles everything else that the API does not support.

        Raises:
            InvalidRequest, Unsupported: As `build_request`.
        """
        # mypyc allows an abstract class to be instantiated, and crashes on an empty method body.
        raise NotImplementedError

    def recorded(self, request: UpstreamRequest, reads: Sequence[tuple[float, bytes]]) -> Sequence[tuple[float, bytes]]:
        """Returns what is played of the `recording` for a request.

        Args:
            request: The request.
            reads: Pairs of seconds since the request and the bytes of one read.
        """
        return reads

    def post(self, body: dict[str, Any], target: Target) -> UpstreamRequest:
        """Builds the HTTP request for a body. Overridden if the path or the headers depend on the body."""
        return UpstreamRequest(self.path, encode_json(body), self.headers(target))

    def headers(self, target: Target) -> list[tuple[str, str]]:
        """Returns the headers of a request, with the credential if there is one."""
        headers = _HEADERS[self.framing].copy()
        if target.api_key:
            headers.append(self.key_header(target.api_key))
        return headers

    def key_header(self, api_key: str) -> tuple[str, str]:
        """Returns the header that carries the credential."""
        return "authorization", f"Bearer {api_key}"

    @abstractmethod
    def adapter(self, model: str | None = None) -> Adapter:
        """Creates the adapter for one response.

        Args:
            model: The requested model; events have it if the provider names no model.
        """
        raise NotImplementedError

    def address(self, value: str) -> str:
        """Returns the base URL for a value of `host_variable`."""
        return value

    def read_failure(self, body: Any) -> UpstreamFailure | None:
        error = error_object(body)
        return None if error is None else failure_of(error)

    def build_passthrough(
        self,
        body: Mapping[str, Any],
        target: Target,
        headers: Mapping[str, str] = NO_HEADERS,
        shape: Shape | None = None,
    ) -> UpstreamRequest:
        """Builds the request for a client's body in this API's dialect. Replaces the model, and applies the `rules`.

        Args:
            body: The client's JSON object.
            target: Model and credential.
            headers: The client's headers that its format passes on (`Format.passed_headers`), by name.
            shape: The shape of the body, if its format has found it already.

        Raises:
            InvalidRequest: A member that `options` names has a wrong type.
            Unsupported: This API speaks no client dialect. Or the provider does not support a member, and `target` does
                not allow that it is left out.
        """
        if not self.dialect:
            raise Unsupported(message=f"{self.provider} does not take this request as it is")
        self.check_options(body, "$")
        sent = self._fitted(body, target, shape)
        if target.refused:
            paths = [path for path in self._dispensable(body, sent, target) if path in target.refused]
            sent = without(sent, paths, target.changes)
        return self.post(sent, target)

    def _fitted(self, body: Mapping[str, Any], target: Target, shape: Shape | None) -> dict[str, Any]:
        """Returns the whole body for a client's body. Raises as `build_passthrough`."""
        settings = target.settings
        if settings is not None and settings.tuning is not None:
            body = self._tuned_body(body, target, settings.tuning)
        sent = self.rules.fitted(body, self.shape_of(body) if shape is None else shape, target.changes)
        sent["model"] = target.model
        if settings is not None:
            sent = self._without_dropped(self._with_raw(sent, settings), target)
        return sent

    def shape_of(self, body: Mapping[str, Any]) -> Shape:
        """Returns the shape of a body in this API's dialect."""
        return Shape()

    def wanted_choices(self, request: Request | dict[str, Any]) -> int:
        """Returns the number of choices that a request asks for: a native one by its `provider_options`."""
        body = request.provider_options.get(self.provider) if isinstance(request, Request) else request
        return self.choices_in(body) if body else 1

    def choices_in(self, body: Mapping[str, Any]) -> int:
        """Returns the number of choices that a body in this API's dialect, or a part of it, asks for."""
        return count(body.get("n")) or 1

    def build_count(
        self,
        body: Mapping[str, Any],
        target: Target,
        headers: Mapping[str, str] = NO_HEADERS,
        shape: Shape | None = None,
    ) -> UpstreamRequest:
        """Builds the request to count the tokens of a client's body. `TokenCount` reads the response.

        Raises:
            InvalidRequest: As `build_passthrough`.
            Unsupported: This API counts no tokens.
        """
        if not self.count_path:
            raise Unsupported(message=f"{self.provider} counts no tokens")
        request = self.build_passthrough(body, target, headers, shape)
        request.path = self.count_path
        return request

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
        """Returns what is known of a target's model, with the corrections of the configuration."""
        known = facts_of(self.provider, target.model)
        return corrected(known, target.corrections) if target.corrections else known

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
        choice = request.tool_choice
        is_chosen = False
        for at, tool in enumerate(request.tools):
            kind = tool.type
            if kind == "function" or (kind == "custom" and self.has_custom_tools):
                kept.append(tool)
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
        if is_chosen:
            self.leave_out("tool_choice", target, "it names a tool that is no function")
            request = replace(request, tool_choice=UNSET)
        return (request if len(kept) == len(request.tools) else replace(request, tools=kept)), own

    def supported(self, request: Request, target: Target, *, has_tools: bool = False) -> Request:
        """Returns the request without the fields that this API `lacks`, and without a choice among no tools.

        Args:
            request: The request.
            target: Model and policy.
            has_tools: Whether tools are sent that the request no longer has.

        Raises:
            Unsupported: As `leave_out`.
        """
        if self.needs_user and request.query is UNSET:
            request = _with_a_user(request, target.changes)
        # Each access of a field by its name takes 160 instructions, so only those that the API lacks are looked at.
        lacking = [name for name in self.lacks if is_given(getattr(request, name))]
        if len(lacking) > 1:
            lacking.sort(key=request.__struct_fields__.index)
        choice = request.tool_choice
        own = request.provider_options.get(self.provider)
        chooses_nothing = choice is not UNSET and not (request.tools or has_tools) and not (own and "tools" in own)
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
        if request.temperature is not UNSET or request.top_p is not UNSET or request.top_k is not UNSET:
            lacking += self._refused_sampling(request, target)
        if not lacking:
            return request
        kept = {name: getattr(request, name) for name in request.__struct_fields__ if name not in lacking}
        return Request(**kept)

    def _refused_sampling(self, request: Request, target: Target) -> list[str]:
        """Returns the sampling parameters that the model does not take, after `leave_out`.

        The value 1 changes nothing, so it is left out without a refusal.
        """
        facts = self.facts(target)
        wanted = request.reasoning
        thinks = isinstance(wanted, Reasoning) and (
            wanted.max_tokens != 0 if wanted.max_tokens is not UNSET else wanted.effort not in (UNSET, "none")
        )
        refused: list[str] = []
        for name, value, least in (
            ("temperature", request.temperature, 1.0),
            ("top_p", request.top_p, self.least_top_p),
        ):
            if value is UNSET or name in self.lacks:
                continue
            what = ""
            if facts.sampling == "none":
                what = "this model takes no sampling parameters"
            elif facts.sampling == "one" and name == "top_p" and request.temperature is not UNSET:
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
        if request.top_k is not UNSET and (
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
        """Returns the model's word for `reasoning.effort`, the nearest one if it lacks the word. None: nothing is sent.

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

    def check_options(self, given: Mapping[str, Any], path: str) -> None:
        """Checks the members of a client's object that the gateway itself reads, by the types in `options`.

        Args:
            given: `provider_options` of this provider, or a body in this API's dialect.
            path: The path of the object in the client's request, starting with `$`.

        Raises:
            InvalidRequest: A member has another type. The text names its path and never quotes a value.
        """
        if not self.options.keys().isdisjoint(given):
            check_members(given, options_type(self), path)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes, now_ms: int | None = None) -> Error:
        text = body.decode("utf-8", "replace").removeprefix("\ufeff").strip()
        try:
            failure = self.read_failure(parse_chunk(text))
        except (ValueError, RecursionError):  # not JSON, or nested too deep for the parser
            failure = None
        if failure is None:
            message = "" if text.startswith("<") else text  # an HTML or XML page is no message
            failure = UpstreamFailure(message or f"{self.provider} answered with status {status}")
        failure = UpstreamFailure(failure.message, failure.words, status, failure.retry_after_ms, failure.details)
        if status != _TOO_MANY:
            # OpenAI sends its rate limits with every response; they explain no other status than 429.
            headers = {name: value for name, value in headers.items() if "ratelimit" not in name}
        wait = retry_after_ms(headers, failure.message, now_ms, failure.retry_after_ms)
        return from_upstream(failure, phase="first_event", provider=self.provider, retry_after_ms=wait)


def _with_a_user(request: Request, changes: Changes) -> Request:
    """Returns the request with its last instructions as a message of the user if it has no other messages."""
    for message in request.messages:
        if not isinstance(message, SystemMessage):
            return request
    if request.messages:
        last = request.messages[-1]
        changes.adjust(f"messages[{len(request.messages) - 1}].role", "user")
        user = UserMessage(content=last.content if isinstance(last.content, str) else [*last.content])
        return replace(request, messages=[*request.messages[:-1], user])
    if request.system is UNSET:
        return request
    changes.adjust("system", "user")
    return replace(request, query=request.system, system=UNSET)


@cache
def options_type(api: API) -> type[Struct]:
    """Returns a struct type for `msgspec.convert` with the members of `API.options`."""
    members = [(name, kind | None, None) for name, kind in api.options.items()]
    return defstruct(type(api).__name__, members)


_TOO_MANY: Final = 429
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


@mypyc_attr(allow_interpreted_subclasses=True)
class ProviderAdapter(Adapter):
    """The base of all adapters: the start and the end of a response, and its errors."""

    chunk: str = ""
    """The text of the current chunk; empty if the adapter does not set it."""

    def __init__(self, api: ResponseAPI, model: str | None = None) -> None:
        super().__init__(api)
        self.model = model
        self.named = False
        """Whether the provider has named the model; the first name holds."""
        self.room = Room()
        """Limits the memory for everything that the adapter keeps of the response."""

    def cost_in(self, usage: Mapping[str, Any]) -> Amount | None:
        """Returns the cost that the provider reports in its usage, or None. By default OpenRouter's `cost`, in dollars.

        Args:
            usage: The provider's usage object.
        """
        cost = usage.get("cost")
        return None if cost is None else amount_of(cost)  # `amount_of(None)` costs 1,200 instructions

    def keep_ids(self, raw: Any) -> None:
        """Adds the ids in a part of the answer to `stored_ids`.

        Args:
            raw: A part whose dialect has ids of files or containers there.
        """
        for each in stored_ids(raw):
            self.keep_id(each.identifier)

    def keep_id(self, identifier: str) -> None:
        """Adds an id to `stored_ids`, unless it is empty or too long, or there are too many."""
        if 0 < len(identifier) <= LIMITS.stored_id and len(self.stored_ids) < LIMITS.stored_ids:
            self.stored_ids.append(identifier)

    def abort(self) -> list[Event]:
        return []

    def seed(self, choice: int = 0) -> str:
        """Returns the text from which the id of a call without an id is derived.

        The text is from the current chunk, which holds the response's id or its time.

        Args:
            choice: The number of the call's choice.
        """
        return f"{choice} {self.chunk[:512]} {self.chunk[-512:]}"

    def start(self, identifier: str | None, model: str | None) -> list[Event]:
        if model and not self.named:
            # Formats repeat the model in every frame: a long name would turn one read of short deltas into megabytes.
            self.model, self.named = model[: SHARED.model_name], True
        if self.started:
            return []
        self.started = True
        event: Event = {"type": "start", "provider": self.api.provider}
        if self.model:
            event["model"] = self.model
        if identifier:
            self.identifier = identifier
            event["provider_metadata"] = {"id": identifier}
        return [event]

    def end(self, finish_reason: str, raw: str | None) -> Event:
        if self.model and self.usage and raw:  # nearly all responses; a single literal takes half of the time
            return {
                "type": "finish",
                "provider": self.api.provider,
                "model": self.model,
                "usage": self.usage,
                "finish_reason": finish_reason,
                "finish_reason_raw": raw,
            }
        event: Event = {"type": "finish", "provider": self.api.provider}
        if self.model:
            event["model"] = self.model
        if self.usage:
            event["usage"] = self.usage
        event["finish_reason"] = finish_reason
        if raw:
            event["finish_reason_raw"] = raw
        return event

    def word(self) -> str:
        return ""

    def check_word(self, word: str, message: str = "") -> None:
        """Checks the provider's finish reason.

        Args:
            word: The finish reason.
            message: The provider's explanation, empty if it sent none.

        Raises:
            Error: The word means that the answer failed.
        """
        if word in self.api.failure_words or word.lower() in FAILURE_WORDS:
            raise self.error(UpstreamFailure(message, (word.lower(),)))

    def error(self, failure: UpstreamFailure) -> Error:
        wait = retry_after_ms({}, failure.message, None, failure.retry_after_ms)
        return from_upstream(failure, phase="first_event", provider=self.api.provider, retry_after_ms=wait)

    def checked(self, chunk: Any, name: str = "") -> dict[str, Any]:
        """Checks that a parsed chunk is an object that reports no failure, and returns it.

        Args:
            chunk: Parsed JSON of any shape.
            name: The SSE event name, empty if there is none.

        Raises:
            Error: The chunk reports a failure.
            Malformed: The chunk is no object.
        """
        failure = self.failure(chunk, name)
        if failure is not None:
            raise self.error(failure)
        if not isinstance(chunk, dict):
            raise Malformed(f"a chunk is a JSON {type(chunk).__name__}, not an object")
        return chunk

    def failure(self, chunk: Any, name: str = "") -> UpstreamFailure | None:
        """Returns the failure that a chunk reports, or None. Overridden if the chunk's shape alone does not decide."""
        return self.api.read_failure(chunk)

    def error_event(self, data: str) -> Error:
        """Returns the error for an SSE event named `error`. Its data may have any shape."""
        try:
            failure = self.api.read_failure(parse_chunk(data))
        except Malformed:
            failure = None
        return self.error(failure or UpstreamFailure(data))

    def truncated(self) -> Error:
        return Error(
            "network",
            f"{self.api.provider} ended the answer before it was complete",
            reason="truncated",
            provider=self.api.provider,
        )

    def unreadable(self) -> Error:
        """Returns the error for text of the answer that cannot be read, in a chunk whose other parts were read."""
        return Error(
            "provider_unavailable",
            f"{self.api.provider} sent text of the answer that cannot be read",
            reason="malformed_chunk",
            provider=self.api.provider,
        )

    def spliced(self) -> Error:
        """Returns the error for a response that begins within another response: the two cannot be separated."""
        return Error(
            "provider_unavailable",
            f"{self.api.provider} began another answer amid the first",
            reason="spliced_answer",
            provider=self.api.provider,
        )
