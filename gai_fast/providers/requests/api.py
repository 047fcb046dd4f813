"""The interface of providers: `API` builds requests and reads error bodies.

A provider's file has one `API` object per API of that provider. `API.adapter()` creates one adapter per response
(`answers/adapter.py`). `API` does no I/O and reads no clock. Knows no provider by name. `native_rules.py` has what an
API takes of native requests, `rules.py` what it accepts of written ones. What several providers share is in this folder
and in `answers/`; what one dialect has is in the dialect's.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from types import MappingProxyType
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from msgspec import UNSET, Struct, defstruct
from msgspec.structs import replace
from mypy_extensions import mypyc_attr

from gai_fast.core.adapter import Adapter, Framing
from gai_fast.core.json.chunks import count, parse_chunk
from gai_fast.core.requests.reading import check_members
from gai_fast.core.requests.shapes import RequestShape
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.changes import Changes
from gai_fast.model.errors import Error, Unsupported
from gai_fast.model.request import NamedTool, Request, Tool
from gai_fast.model.retry_after import retry_after_ms
from gai_fast.model.settings import ModelSettings, Tuning
from gai_fast.model.upstream_errors import UpstreamFailure, from_upstream
from gai_fast.providers.answers.failures import error_object, failure_of
from gai_fast.providers.answers.reasoning_tags import TaggedAdapter
from gai_fast.providers.requests.client_members import client_member
from gai_fast.providers.requests.clouds import InCloud
from gai_fast.providers.requests.native_rules import NativeRules, has_strict_schemas
from gai_fast.providers.requests.own_tools import OwnTool
from gai_fast.providers.requests.parts import has_cache_marks, merged, paired, with_cache_key, with_own_ids
from gai_fast.providers.requests.refusals import (
    RefusedMember,
    added_to,
    dispensable,
    has_path,
    is_lacking,
    may_name_a_member,
    unneeded,
    unquoted_member,
    value_at,
)
from gai_fast.providers.requests.routes import NOWHERE, Routes
from gai_fast.providers.requests.rules import RequestRules
from gai_fast.providers.requests.target import Target, UpstreamRequest
from gai_fast.providers.requests.thoughts import refuses_signatures, without_thoughts
from gai_fast.providers.requests.tool_names import RenamingAdapter, fitted_names, with_names
from gai_fast.providers.requests.tuning import check_raw, filled_body, overridden_body, quirky, tuned, without

_HEADERS: Final[dict[Framing, list[tuple[str, str]]]] = {
    "sse": [("content-type", "application/json"), ("accept", "text/event-stream")],
    "ndjson": [("content-type", "application/json"), ("accept", "application/x-ndjson")],
}
"""The headers of every request, by the framing of its response."""


_PROBE: Final = Request(query="-")


NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_NO_NAMES: Final[frozenset[str]] = frozenset()


@mypyc_attr(allow_interpreted_subclasses=True)
class API(NativeRules):
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
    key_host: ClassVar[str] = ""
    """The end of the host names whose servers need a credential; empty: the host of `base_url`."""
    host_variable: ClassVar[str] = ""
    """The environment variable from which the provider's own SDK reads the server's address; empty: none."""
    local_servers: ClassVar[Mapping[str, str]] = {}
    """The default `base_url` of each server of this API that users run locally, by the server's name."""
    path: ClassVar[str] = ""
    """The path of requests below `base_url`."""
    recording: ClassVar[str] = ""
    """The name of a recording in this package that is played instead of a request to an upstream; empty: none."""
    calls_function: ClassVar[bool] = False
    """Whether a function of the user's, which the configuration names, answers in place of a server."""
    description: ClassVar[str] = ""
    """A note for users about every answer; empty if the upstream's model answers."""
    clouds: ClassVar[Mapping[str, InCloud]] = {}
    """The clouds that offer this API, by the value of `auth`."""
    stream_options: ClassVar[Mapping[str, bool]] = {}
    """The request's `stream_options`; empty: the field is not sent."""
    models_path: ClassVar[str] = ""
    """The path of the list of models, a request that is free of charge; empty: this API has none."""
    most_tools: ClassVar[int] = 0
    """The most tools of a request; 0: no bound is known."""
    count_path: ClassVar[str] = ""
    """The path at which this API counts the tokens of a request; empty: this API counts none."""
    count_members: ClassVar[frozenset[str]] = frozenset()
    """The members that `count_path` accepts. A client's others are sent; those of the configuration are not added."""
    compact_path: ClassVar[str] = ""
    """The path at which this API compacts a conversation (OpenAI's Responses); empty: it compacts none."""
    routes: ClassVar[Routes] = NOWHERE
    """The provider's places of OpenAI's APIs other than chat."""
    keyed_paths: ClassVar[tuple[str, ...]] = ()
    """The paths below `base_url` at which the provider knows the header `Idempotency-Key`: of two requests with one key
    it carries out one. A `*` is any segment (`model/pass_paths.py`)."""
    rules: ClassVar[RequestRules] = RequestRules("", "")
    """The rules of a request in its dialect."""
    has_quirks: ClassVar[bool] = False
    """Whether requests have the chat dialect, which an upstream's `quirks` change."""
    encrypts_reasoning: ClassVar[bool] = False
    """Whether every signature of the provider, from any of its APIs, is its whole reasoning, encrypted."""
    signs_texts: ClassVar[bool] = False
    """Whether a signature without a reasoning text signs the visible text."""
    caches_by_key: ClassVar[bool] = False
    """Whether the API has `prompt_cache_key`. A native request of a named session gets one if it has none."""
    marks_cache: ClassVar[bool] = False
    """Whether the API has marks of cached parts."""
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
            sent = self._without_refused(request, sent, target)
        return self.post(sent, target)

    def _written(self, request: Request, target: Target) -> dict[str, Any]:
        """Returns the whole body for a native request. Raises as `build_request`."""
        changes = target.changes
        changes.places = changes.tools = ()
        given: dict[str, Any] = request.provider_options
        options = given.get(self.provider) if given else None
        if options:
            path = f"$.provider_options.{self.provider}"
            check_raw(options, path)
            self.check_options(options, path)
        if request.extra:
            check_raw(request.extra, "$.extra")
            self.check_options(request.extra, "$.extra")
        names = self._fitted_names(request)
        if names:
            request = with_names(request, names, changes)
        settings = target.settings
        if settings is not None and settings.tuning is not None:
            request = tuned(request, settings.tuning)
        request = with_own_ids(request)
        if self.marks_cache:
            target.marks_texts = has_cache_marks(request)
        if target.cache_key is not None and self.caches_by_key:
            request = with_cache_key(request, target.cache_key)
        if self.says_all:
            request = self._without_silent_end(request, target)
        own: list[tuple[Tool, OwnTool]] = []
        if request.tools and self.unions != "sent":
            request = self._with_objects(request, target)
        if self.closes_strict(target) and has_strict_schemas(request):
            request = self._with_strict_schemas(request, target)
        if request.tools:
            if type(request.tool_choice) is NamedTool:
                request = self._with_known_choice(request, target, options)
            request, own = self._without_own_tools(request, target)
        if target.on_unsupported == "drop":
            request = paired(request, changes)
        written = self.body(self.supported(request, target, has_tools=bool(own)), target)
        for tool, form in own:
            self.add_own_tool(written, tool, form)
        body = self.rules_of(target).fitted(written, self.shape_of(written), changes)
        if settings is not None:
            body = self._with_raw(body, settings)
        if options:
            body = merged(body, options)
        if request.extra:
            body = merged(body, request.extra)
        self._check_conversation(body, target)
        return self._without_dropped(body, target)

    def _with_known_choice(self, request: Request, target: Target, options: Any) -> Request:
        """Returns the request without a choice of a tool that it does not have, after `leave_out`.

        Args:
            request: The request, which has tools and names one.
            target: Model and policy.
            options: The request's options of this provider.
        """
        chosen: Any = request.tool_choice
        for tool in request.tools:
            if chosen.name == (tool.name if tool.type in ("function", "custom") else tool.type):
                return request
        settings = target.settings
        raw = [options, request.extra]
        if settings is not None:
            raw += [settings.upstream.extra, None if settings.tuning is None else settings.tuning.extra]
        for members in raw:
            if members and "tools" in members:
                return request
        self.leave_out("tool_choice", target, "it names none of the `tools`")
        return replace(request, tool_choice=UNSET)

    def _check_conversation(self, body: dict[str, Any], target: Target) -> None:
        """Refuses a request of whose conversation nothing is left: every API refuses it, and names nothing.

        Args:
            body: The whole body.
            target: Its `changes` have the paths that were left out.

        Raises:
            Unsupported: No message is left.
        """
        for name in _CONVERSATIONS:
            if body.get(name):
                return
        _check_silence(self.provider, body, target.changes)

    def _without_refused(
        self, request: Request | Mapping[str, Any], sent: dict[str, Any], target: Target
    ) -> dict[str, Any]:
        """Returns a body without the members that the target has refused and that the request can do without."""
        names = frozenset(unneeded(self._dispensable(request, sent, target)))
        paths = [path for path in target.refused if path.partition(".")[0] in names]
        return without(sent, paths, target.changes)

    def _dispensable(self, request: Request | Mapping[str, Any], sent: Mapping[str, Any], target: Target) -> list[str]:
        """Returns the names of the members that the gateway has added, or has translated and may leave out."""
        if not isinstance(request, Request):
            return added_to(request, sent)
        if target.on_unsupported == "drop":
            return [*sent]
        plain = self._plain(target)
        return [name for name, value in sent.items() if name in plain and plain[name] == value]

    def _plain(self, target: Target) -> dict[str, Any]:
        """Returns the body for an empty request: the members that the gateway itself sends to a target."""
        plain = Target(target.model, None, "drop", target.corrections, target.settings, cache_key=target.cache_key)
        return self._written(_PROBE, plain)

    def refused_member(
        self, request: Request | Mapping[str, Any], target: Target, error: Error
    ) -> RefusedMember | None:
        """Returns the member that an upstream refuses and that a request can do without, or None.

        Args:
            request: A native request, or a client's body.
            target: The request's target.
            error: The upstream's error.
        """
        if not may_name_a_member(error):
            return None
        sent = self._sent(target, request)
        path = unquoted_member(error, dispensable(sent, self._dispensable(request, sent, target)), request)
        if path is None:
            return None
        if isinstance(request, Request):
            plain = self._plain(target)
            is_ours = has_path(plain, path) and value_at(plain, path) == value_at(sent, path)
        else:
            is_ours = not has_path(request, path)
        return RefusedMember(path, is_lacking(error, path), is_ours)

    def client_member(
        self,
        request: Request | Mapping[str, Any],
        target: Target,
        error: Error,
        asked: Mapping[str, Any] | None = None,
        parse: Callable[[dict[str, Any]], tuple[Request, list[str]]] | None = None,
    ) -> str | None:
        """Returns the path of the client's member that an upstream refuses, or None if it is not known.

        None too if the client speaks this API's dialect, and the upstream named the member as the client did.

        Args:
            request: A native request, or a client's body in this API's dialect.
            target: The request's target, which allows members to be left out.
            error: The upstream's error.
            asked: The client's body in another dialect, from which the request was translated; None if it was not.
            parse: Translates such a body, as `Format.parse_request`.
        """
        if not may_name_a_member(error):
            return None
        if asked is None or parse is None:
            is_own = not isinstance(request, Request)
            return client_member(request, partial(self._sent, target), error, is_own=is_own)
        return client_member(asked, partial(self._translated, target, parse), error)

    def _sent(self, target: Target, request: Request | Mapping[str, Any]) -> dict[str, Any]:
        """Returns the whole body for a request. Raises as `build_request`."""
        return self._written(request, target) if isinstance(request, Request) else self._fitted(request, target, None)

    def _translated(
        self, target: Target, parse: Callable[[dict[str, Any]], tuple[Request, list[str]]], body: dict[str, Any]
    ) -> dict[str, Any]:
        """Returns the whole body for a body in another dialect. Raises as `build_request`."""
        return self._written(parse(body)[0], target)

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
        """Returns a client's body with the `defaults` that it lacks, and with `overrides`."""
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
        """Returns the part of the `recording` that is played for a request.

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

    def needs_key(self, base_url: str) -> bool:
        """Returns whether the provider itself answers at an address, and refuses requests without a credential. Other
        servers of this API may need none.

        Args:
            base_url: The address.
        """
        own = self.key_host or urlsplit(self.base_url).hostname or ""
        return bool(self.key_variable and own) and (urlsplit(base_url).hostname or "").endswith(own)

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

    def adapter_for(self, request: Request | dict[str, Any], model: str, tag: str | None = None) -> Adapter:
        """Creates the adapter for the response to a request.

        Args:
            request: A native request, or a client's body in this API's dialect.
            model: As for `adapter`.
            tag: The opening tag of reasoning that the upstream writes into its text; None if it does not.
        """
        adapter = self.adapter(model)
        adapter.wanted_choices = self.wanted_choices(request)
        # Of a body, `isinstance` with `Request` would ask the metaclass: 770 instructions.
        names = None if isinstance(request, dict) else self._fitted_names(request)
        adapter.tool_names = self._sent_names(request, names or {})
        if names:
            adapter = RenamingAdapter(adapter, names)
        return adapter if tag is None else TaggedAdapter(adapter, tag)

    def _fitted_names(self, request: Request) -> dict[str, str]:
        """Returns the names of tools that are sent in place of the request's; empty if this API accepts them."""
        rule = self.tool_names
        return {} if rule is None else fitted_names(request, rule)

    def _sent_names(self, request: Request | dict[str, Any], names: Mapping[str, str]) -> frozenset[str]:
        """Returns the names of a request's tools as they are sent; of a client's body, those that `tools_in` finds.

        Args:
            request: The request.
            names: As `fitted_names` returns them.
        """
        if isinstance(request, dict):
            found = self.tools_in(request)
            return frozenset(found) if found else _NO_NAMES
        tools = request.tools
        if not tools:
            return _NO_NAMES
        return frozenset([names.get(tool.name, tool.name) for tool in tools if isinstance(tool.name, str)])

    def tools_in(self, body: Mapping[str, Any]) -> Sequence[str]:
        """Returns the names of tools in a body of this API's dialect, if its answers may have names in pieces."""
        return ()

    def passed_path(self, route: str, extra: Mapping[str, Any], model: str | None) -> str | None:
        """Returns the path below `base_url` of a route that is passed through. None if the provider does not have it.

        Args:
            route: The route, such as `/v1/embeddings`.
            extra: The raw members that the upstream's configuration adds to every request.
            model: The upstream's id of the model. None if it is in a form, which is not read.

        Raises:
            NotFound: The path has the model's id, which leads elsewhere.
        """
        return self.routes.path(route)

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
        shape: RequestShape | None = None,
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
            sent = self._without_refused(body, sent, target)
        return self.post(sent, target)

    def _fitted(self, body: Mapping[str, Any], target: Target, shape: RequestShape | None) -> dict[str, Any]:
        """Returns the whole body for a client's body. Raises as `build_passthrough`."""
        settings = target.settings
        if settings is not None and settings.tuning is not None:
            body = self._tuned_body(body, target, settings.tuning)
            target.changes.places = ()  # of the requests whose members it took
        sent = self.rules_of(target).fitted(body, self.shape_of(body) if shape is None else shape, target.changes)
        sent["model"] = target.model
        if target.changes.dropped:
            self._check_conversation(sent, target)
        if settings is not None:
            sent = self._without_dropped(self._with_raw(sent, settings), target)
        return sent

    def rules_of(self, target: Target) -> RequestRules:
        """Returns the rules of a request to a model. Overridden if models of one API differ."""
        return self.rules

    def shape_of(self, body: Mapping[str, Any]) -> RequestShape:
        """Returns the shape of a body in this API's dialect."""
        return RequestShape()

    def wanted_choices(self, request: Request | dict[str, Any]) -> int:
        """Returns the number of choices that a request asks for: a native one by its raw members."""
        if isinstance(request, dict):
            return self.choices_in(request)
        given: dict[str, Any] = request.provider_options
        body = given.get(self.provider) if given else None
        extra = request.extra
        if extra:
            body = merged(body or {}, extra)
        return self.choices_in(body) if body else 1

    def choices_in(self, body: Mapping[str, Any]) -> int:
        """Returns the number of choices that a body in this API's dialect, or a part of it, asks for."""
        return count(body.get("n")) or 1

    def build_count(
        self,
        body: Mapping[str, Any],
        target: Target,
        headers: Mapping[str, str] = NO_HEADERS,
        shape: RequestShape | None = None,
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
        if target.settings is not None:
            sent: dict[str, Any] = parse_exact(request.body.decode())
            kept = {name: value for name, value in sent.items() if name in body or name in self.count_members}
            request.body = encode_json(kept)
        return request

    def check_options(self, given: Mapping[str, Any], path: str) -> None:
        """Checks the members of a client's object that the gateway itself reads, by the types in `options`.

        Args:
            given: `provider_options` of this provider, or a body in this API's dialect.
            path: The path of the object in the client's request, starting with `$`.

        Raises:
            InvalidRequest: A member has another type. The text names its path and never quotes a value.
        """
        if self.options and not self.options.keys().isdisjoint(given):
            check_members(given, options_type(self), path)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes, now_ms: int | None = None) -> Error:
        text = body.decode("utf-8", "replace").removeprefix("\ufeff").strip()
        try:
            failure = self.read_failure(parse_chunk(text))
        except (ValueError, RecursionError):  # not JSON, or nested too deep for the parser
            failure = None
        if failure is None:
            failure = UpstreamFailure("" if text.startswith("<") else text)  # an HTML or XML page is not a message
        message = failure.message
        if status in _NO_ROUTE and _NO_REASON.fullmatch(message):
            message = f"{self.provider} answered with status {status}: check base_url"
        elif not message:
            message = f"{self.provider} answered with status {status}"
        failure = UpstreamFailure(message, failure.words, status, failure.retry_after_ms, failure.details)
        if status != _TOO_MANY:
            # OpenAI sends its rate limits with every response; they explain no other status than 429.
            headers = {name: value for name, value in headers.items() if "ratelimit" not in name}
        wait = retry_after_ms(headers, failure.message, now_ms, failure.retry_after_ms)
        error = from_upstream(failure, phase="first_event", provider=self.provider, retry_after_ms=wait)
        error.upstream_status = status
        return error


def _check_silence(provider: str, body: Mapping[str, Any], changes: Changes) -> None:
    """Refuses a body without a conversation, as `API._check_conversation`, where its inner function costs a body with
    one 500 instructions.
    """
    has_none = any(body.get(name) == [] for name in _CONVERSATIONS) and _STORED.isdisjoint(body)
    if not has_none and (body.get("prompt") != "" or body.get("images")):
        return
    left = [f"`{path}`" for path in changes.dropped if path.startswith(_OF_CONVERSATION)]
    if left:
        paths = ", ".join(left[:_NAMED])
        text = f"No message is left for {provider} without {paths}: send a text beside it"
        raise Unsupported(message=text, reason="field")
    if has_none:
        text = f"No message of the request says anything that {provider} takes: send a text"
        raise Unsupported(message=text, reason="field")


@cache
def options_type(api: API) -> type[Struct]:
    """Returns a struct type for `msgspec.convert` with the members of `API.options`."""
    members = [(name, kind | None, None) for name, kind in api.options.items()]
    return defstruct(type(api).__name__, members)


_CONVERSATIONS: Final[tuple[str, ...]] = ("messages", "input", "contents", "prompt")
"""The member of a body that holds the conversation, by dialect."""
_STORED: Final = frozenset(("previous_response_id", "conversation", "prompt"))
"""Members of the Responses dialect that name a conversation, which needs no further message."""
_OF_CONVERSATION: Final = ("messages", "input", "contents", "system", "query")
_NAMED: Final = 8
"""The most paths that an error names."""
_TOO_MANY: Final = 429
_NO_ROUTE: Final = (404, 405)
_NO_REASON: Final = re.compile(r"(?:(?:404 )?(?:page |file )?not found|method not allowed)?\.?", re.IGNORECASE)
"""The message for a path that a server does not have: of FastAPI, Go, llama.cpp and proxies. An unknown model is always
named."""
