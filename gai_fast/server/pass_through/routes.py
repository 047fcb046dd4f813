"""The handlers of the pass-through: `/p/{upstream}/{path}`, JSON routes with a model, forms, and compaction.

Owns who may ask for what, and the upstream that is asked. `transfer.py` does the rest.

1. `/p/…`: the upstream's `lane` has the path, and the key's `lane` the upstream. For a key with a list of models the
   body is read: it names only models of the list, by the upstream's ids.
2. JSON routes: the body names a `[[model]]` that the key may use, and its upstream's `lane` has the path. The model is
   replaced; nothing else changes. For a key with a list of models no other member names one. Of `targets` only those
   are asked that have the route, and whose cost is known if it must be.
3. Forms: the one upstream whose `lane` has the path. Of a form only ids are read, so it may name any model: a key with
   a list of models is refused. JSON at such a route is read as by rule 2. Both name only files that their caller got
   here.
4. Without keys no page of another origin may ask for these two: a browser sends it the GET or the form without asking
   the server first (Fetch, 2.2: CORS-safelisted), and the upstream would be paid with the gateway's credential.
5. What a request costs is known from the price of each request or image, or from the tokens of an answer of known
   shape. A key with a limit of spend is refused if neither is known. So is one with a limit of tokens at images, whose
   answers count none, but those of OpenAI's newer models.
6. Where a guard holds, what it cannot look into is closed: the paths of an upstream that a guarded model has, forms of
   speech there, and compaction; with a guard on input the JSON routes of its models, and forms of edits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import msgspec

from gai_fast.core.requests.reading import cut_body, estimated_tokens, parse_members, parse_object
from gai_fast.core.requests.shapes import responses_shape
from gai_fast.core.session import name_in_body
from gai_fast.formats._base import without_marked
from gai_fast.kernels import encode_json
from gai_fast.ledger import NO_DEMAND, Demand, Reservation
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.money import UNIT, cost_of
from gai_fast.model.pass_paths import offered_methods
from gai_fast.model.request import CheckedBody
from gai_fast.model.settings import GuardSide, KeySettings, ModelSettings, Price, UpstreamSettings
from gai_fast.net.engine.engine import Engine
from gai_fast.providers import API, get_provider
from gai_fast.providers.requests.routes import EDITS, TRANSCRIPTIONS, TRANSLATIONS, VARIATIONS
from gai_fast.runtime.breathing import breathe
from gai_fast.runtime.ids import new_stream_id
from gai_fast.server.admission.admit import check_coding, is_form
from gai_fast.server.admission.further_models import (
    LongBody,
    check_further_models,
    check_passed_models,
    kind_of,
    may_be_json,
)
from gai_fast.server.admission.stored_ids import check_number, ids_in_raw, not_found
from gai_fast.server.pass_through.calls import PassedCall
from gai_fast.server.pass_through.form_ids import FormIds
from gai_fast.server.pass_through.repetition import may_repeat
from gai_fast.server.pass_through.transfer import Transfer
from gai_fast.server.pass_through.upstream_path import UpstreamPath, below, read_path, read_query
from gai_fast.server.requests.chains import Found, whole
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.passage import Passage
from gai_fast.server.requests.stream_response import StreamResponse, session_headers

METERED: Final = frozenset(("/v1/embeddings", "/v1/moderations", "/v1/rerank", "/v1/responses/compact"))
"""The routes whose answers have counts of tokens; an answer without counts is charged for the text of its request."""
IMAGES: Final = frozenset(("/v1/images/generations", "/v1/images/edits", "/v1/images/variations"))
"""The routes of images: some models' answers have counts, others cost by the image and the request's text."""
_CLOSED: Final = frozenset(("/v1/responses/compact", TRANSCRIPTIONS, TRANSLATIONS))
"""The routes whose answers are texts that no guard sees."""
_NO_BODY: Final[dict[str, Any]] = {}
_CACHE_KEY: Final = "prompt_cache_key"
_COUNTING_IMAGES: Final = "gpt-image"
"""A part of the ids of the models whose images have counts (openai-python, `ImagesResponse.usage`)."""
CheckBytes = Callable[[bytes], object]
_BYTES_PER_TOKEN: Final = 4
_DECODE: Final = msgspec.json.Decoder().decode
_ENCODE: Final = msgspec.json.Encoder().encode


class UpstreamPlace(NamedTuple):
    """The place of a request at its upstream.

    Attributes:
        path: The path below the base URL.
        is_repeatable: As for `PassedCall`.
        wants_bearer: As for `PassedCall`.
    """

    path: str
    is_repeatable: bool
    wants_bearer: bool


Form = tuple[UpstreamSettings, UpstreamPlace, CheckBytes | None]
"""The upstream of a form, its place there, and what checks the rest of the form."""


class PassThroughRoutes:
    """Handlers over one engine.

    Args:
        engine: Has the upstreams.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._apis: dict[str, API] = {}  # by provider
        self._known: dict[str, tuple[UpstreamSettings, str, UpstreamPlace]] = {}  # by upstream: its last route

    def upstream(self, incoming: Incoming) -> Passage:
        """Handles `/p/{upstream}/{path}`: rule 1."""
        return _PathPassage(incoming, self)

    def with_model(self, incoming: Incoming) -> Passage:
        """Handles a JSON route whose body names a model: rule 2."""
        return _ModelPassage(incoming, self, checks_ids=False)

    def form(self, incoming: Incoming) -> Passage:
        """Handles a route whose body is a form or JSON: rule 3."""
        if is_form(incoming.http.headers):
            return _FormPassage(incoming, self)
        return _ModelPassage(incoming, self, checks_ids=True)

    def compact(self, incoming: Incoming) -> Passage:
        """Handles `POST /v1/responses/compact`: the upstream compacts a conversation, if its API or its `lane` can."""
        return _CompactPassage(incoming, self, checks_ids=True)

    # ---- what is asked for

    def plan_path(self, passage: TransferPassage) -> None:
        """Plans a request for an upstream's own path: rule 1."""
        incoming = passage.incoming
        _check_page(incoming)
        name, slash, rest = incoming.tail.partition("/")
        path = read_path(f"/{rest}")
        name, key = unquote(name), incoming.http.key
        if key is not None and name not in key.pass_upstreams:
            text = f"this key may not use the paths of upstream {name[:64]!r}: the operator can add it to its `lane`"
            raise Error("forbidden", text, reason="lane")
        upstream = self._engine.settings.upstreams.get(name)
        if upstream is None or not slash:
            raise Error("not_found", "no upstream has this name: the path is /p/<upstream>/<path>", reason="lane")
        self._check_method(upstream, path, incoming.http.method)
        self._check_guards_at(incoming, upstream, f"the paths of upstream {name!r}")
        self._check_limits(incoming, None)
        check = None if key is None or key.may_use_all else self._check_models(incoming, upstream, key)
        api, http = self._api(upstream), incoming.http
        own = api.routes.own_path(path.sent)
        sent = own or below(upstream.base_url, path.sent)
        is_repeatable = may_repeat(http.method, sent, http.headers, api.keyed_paths)
        place = UpstreamPlace(sent, is_repeatable, api.routes.wants_bearer and own is not None)
        self._plan(passage, upstream, place, "/p/{}", None, check=check)

    def _api(self, upstream: UpstreamSettings) -> API:
        """Returns the API of an upstream: a call of `get_provider` costs 600 instructions."""
        api = self._apis.get(upstream.provider)
        if api is None:
            api = self._apis[upstream.provider] = get_provider(upstream.provider)
        return api

    def _check_models(self, incoming: Incoming, upstream: UpstreamSettings, key: KeySettings) -> CheckBytes | None:
        """Checks the models that the body of a request for an upstream's own path names.

        Args:
            incoming: The request.
            upstream: The upstream.
            key: The caller's key, which may only use some models.

        Returns:
            What checks the rest of the body. None if all of it is known.

        Raises:
            Error: The body names a model that the key may not use, or may do so in a part that is not read.
        """
        http = incoming.http
        if not http.body and http.upload is None:
            return None
        check_coding(http.headers)  # the names must be readable
        if http.upload is None and may_be_json(http.body):
            http.body = check_passed_models(http.body, partial(self._may_use, upstream, key))
            return None
        if not is_form(http.headers):
            return None if http.upload is None else LongBody(http.body).check
        fields = FormIds(http.headers["content-type"], _model_field)
        check = partial(self._check_form_models, fields, upstream, key)
        check(http.body, is_last=http.upload is None)
        return check

    def _may_use(self, upstream: UpstreamSettings, key: KeySettings, identifier: str) -> bool:
        """Returns whether a key may use a model of an upstream, by the upstream's id of it."""
        place = (upstream.name, identifier)
        names = [
            model.name
            for model in self._engine.settings.models.values()
            if place in [(each.upstream.name, each.id) for each in model.targets or (model,)]
        ]
        return any(map(key.may_use, (f"{upstream.name}/{identifier}", *names)))

    def _check_form_models(
        self, fields: FormIds, upstream: UpstreamSettings, key: KeySettings, data: bytes, *, is_last: bool | None = None
    ) -> None:
        for named in fields.feed(data, is_last=not data if is_last is None else is_last):
            if not self._may_use(upstream, key, named.identifier):
                text = "this key may not use the model that the form names: ask for one that is in its `models`"
                raise Error("forbidden", text, reason="model")

    def plan_model(self, passage: TransferPassage) -> None:
        """Plans a request whose JSON body names a model: rule 2."""
        route = passage.incoming.path
        try:
            model, body = self._model_and_body(passage)
        except Error:
            self._offering(route)  # its refusal comes first
            raise
        self._check_guards(passage.incoming, model)
        self._plan_targets(passage, model, body, compacts=False)

    def _route_place(self, route: str, model: ModelSettings) -> UpstreamPlace:
        """Returns where a target of a model has a route.

        Raises:
            Error: It has none.
        """
        upstream = model.upstream
        known = self._known.get(upstream.name)  # the caches of the functions below cost 1,000 instructions
        if known is not None and known[0] is upstream and known[1] == route:
            return known[2]
        if not _offers(upstream, route):
            self._offering(route)
            text = f"the upstream of model {model.name!r} does not offer {route}: add it to `lane` of"
            raise Error("not_found", f"{text} [[upstream]] {upstream.name!r}", reason="lane")
        place = _place_of(upstream, route, model.id)
        if not upstream.extra:  # else the path may have the model's id
            if len(self._known) >= SHARED.known_values:
                self._known.clear()
            self._known[upstream.name] = upstream, route, place
        return place

    def _offering(self, route: str) -> list[UpstreamSettings]:
        """Returns the upstreams that offer a route.

        Raises:
            Error: There is none.
        """
        offering = [each for each in self._engine.settings.upstreams.values() if _offers(each, route)]
        if not offering:
            text = f"no upstream offers {route} here: add it to `lane` of an [[upstream]] that has it"
            raise Error("not_found", text, reason="route")
        return offering

    def read_form(self, passage: TransferPassage) -> Form:
        """Returns a form's upstream, and names the ids in the part received so far: rule 3."""
        incoming = passage.incoming
        _check_page(incoming)
        route = incoming.path
        offering = self._offering(route)
        if len(offering) > 1:
            offering = [each for each in offering if _place_at(each, route, None)] or offering[:1]
        if len(offering) > 1:
            names = ", ".join([f"/p/{each.name}{route}" for each in offering])
            raise Error("invalid_request", f"several upstreams offer this path: ask one of {names}", reason="lane")
        key = incoming.http.key
        if key is not None and not key.may_use_all:
            text = "a form may name any model, and this key may only use some"
            raise Error("forbidden", text, reason="model")
        self._check_limits(incoming, None)
        upstream, ids, named = offering[0], None, []
        self._check_guards_at(incoming, upstream, route)
        place = _place_of(upstream, route, None)
        if key is not None:
            check_coding(incoming.http.headers)  # its ids must be readable
            ids = FormIds(incoming.http.headers["content-type"])
            named = ids.feed(incoming.http.body, is_last=incoming.http.upload is None)
            check_number(named)
            named = [each for each in named if not upstream.shares(each.identifier)]
        passage.named = named
        return upstream, place, None if ids is None else partial(_check_ids, ids, upstream)

    def plan_form(self, passage: TransferPassage, form: Form) -> None:
        """Plans a request with a form; the last argument is the result of `read_form`."""
        upstream, place, check = form
        self._plan(passage, upstream, place, passage.incoming.path, None, check=check)

    def read_own_ids(self, passage: TransferPassage) -> None:
        """Reads a JSON body, whose caller must own the ids that it names.

        The body is written again: of duplicate members an upstream may read another one.
        """
        incoming, settings = passage.incoming, self._engine.settings
        body = parse_object(incoming.json_body())
        incoming.http.body = CheckedBody(encode_json(body))
        passage.named = ids_in_raw(settings, self._chosen(incoming, body), [body], ())

    def may_know_ids(self, passage: TransferPassage) -> bool:
        """Returns whether an upstream that may answer has the dialect of a request, and so may know ids in it."""
        incoming = passage.incoming
        model = self._chosen(incoming, parse_object(incoming.json_body()))
        upstreams = [model.upstream, *[each.upstream for each in model.targets]]
        return any(self._api(each).dialect == incoming.format.name for each in upstreams)

    def join(self, passage: TransferPassage, body: dict[str, Any], found: Found) -> None:
        """Writes a JSON body with its whole conversation; as `Passage.join`."""
        incoming, settings = passage.incoming, self._engine.settings
        conversation = whole(body, incoming.http.body, found)
        model = self._chosen(incoming, body)
        sent = without_marked(conversation.body, conversation.marks, self._api(model.upstream).provider)
        items = sent.get("input")
        if isinstance(items, list):
            written: list[msgspec.Raw] = []
            for item in items:
                breathe()
                written.append(msgspec.Raw(encode_json(item)))
            sent = {**sent, "input": written}
        checked = CheckedBody(_ENCODE(sent))
        checked.containers = conversation.containers
        incoming.http.body, passage.turn = checked, conversation.turn
        if incoming.http.key is not None:
            passage.named = ids_in_raw(settings, model, [conversation.unknown], ())

    def _chosen(self, incoming: Incoming, body: dict[str, Any]) -> ModelSettings:
        name = body.get("model")
        return self._named(incoming, name if isinstance(name, str) else None)

    def _named(self, incoming: Incoming, name: str | None) -> ModelSettings:
        incoming.named_model = name or ""
        return self._engine.settings.chosen(name, incoming.http.key)

    def plan_compact(self, passage: TransferPassage) -> None:
        """Plans a compaction."""
        if not passage.session:  # the body may be long, and other routes have no such member
            passage.session = _session_of(passage.incoming, _cache_key(passage.incoming.json_body()))
        model, body = self._model_and_body(passage)
        self._check_guards(passage.incoming, model)
        self._plan_targets(passage, model, body, compacts=True)

    def _compact_place(self, incoming: Incoming, model: ModelSettings) -> UpstreamPlace:
        """Returns where a target of a model compacts a conversation; as `_route_place`."""
        upstream, route = model.upstream, incoming.path
        api = self._api(upstream)
        if api.compact_path:
            return UpstreamPlace(api.compact_path, False, False)
        if _offers(upstream, route) and api.dialect == incoming.format.name:
            return _place_of(upstream, route, model.id)
        text = f"{api.provider} compacts no conversation: ask a model of an upstream that does, such as OpenAI's"
        raise Error("unsupported", text, reason="compact")

    def _plan_targets(self, passage: TransferPassage, model: ModelSettings, body: bytes, *, compacts: bool) -> None:
        """Plans a request that names a model.

        Args:
            passage: The request.
            model: The model, with the target that is asked first.
            body: The body, with the target's id of the model.
            compacts: Whether a conversation is compacted.
        """
        incoming = passage.incoming
        try:
            place = self._place(incoming, model, compacts=compacts)
        except Error:
            unfit = [
                (each.upstream.name, each.id)
                for each in model.targets
                if not self._has_place(incoming, replace(model, upstream=each.upstream, id=each.id), compacts=compacts)
            ]
            if len(unfit) == len(model.targets):
                raise
            model = self._engine.targets.with_target(model, passage.session, incoming.http.caller, unfit)
            place, body = self._place(incoming, model, compacts=compacts), _with_model(body, model.id)
        at = partial(self._call_at, incoming, body, passage.session, compacts) if model.targets else None
        self._plan(passage, model.upstream, place, incoming.path, model, body, at=at)

    def _place(self, incoming: Incoming, model: ModelSettings, *, compacts: bool) -> UpstreamPlace:
        """Returns where a target of a model is asked.

        Raises:
            Error: It has no such route, or its cost is not known and must be.
        """
        route = incoming.path
        place = self._compact_place(incoming, model) if compacts else self._route_place(route, model)
        self._check_limits(incoming, model, route)
        return place

    def _has_place(self, incoming: Incoming, model: ModelSettings, *, compacts: bool) -> bool:
        try:
            self._place(incoming, model, compacts=compacts)
        except Error:
            return False
        return True

    def _call_at(
        self, incoming: Incoming, body: bytes, session: str, compacts: bool, model: ModelSettings
    ) -> PassedCall:
        """Returns the call for another target of a model.

        Args:
            incoming: The request.
            body: The body for the first target.
            session: As for `PassedCall`.
            compacts: As for `_plan_targets`.
            model: The model with the other target.

        Raises:
            Error: As `_place`.
        """
        place = self._place(incoming, model, compacts=compacts)
        call = self._call(incoming, model.upstream, place, incoming.path, _with_model(body, model.id))
        self._name_model(call, model)
        call.at = partial(self._call_at, incoming, body, session, compacts)
        call.session = session
        return call

    def _model_and_body(self, passage: TransferPassage) -> tuple[ModelSettings, bytes]:
        """Returns the target of the model that a JSON body names, and the body with the upstream's id of it."""
        incoming = passage.incoming
        body = incoming.json_body()
        if incoming.http.key is not None and not incoming.http.key.may_use_all:
            read = parse_object(body)
            check_further_models(read, incoming.http.key)
            body = encode_json(read)  # of duplicate members an upstream may read another one
        cut = cut_body(body, b"model")
        if cut is not None:
            name, before, behind = cut
            model = self._target(name, passage)
            return model, before + encode_json(model.id) + behind
        members = parse_members(body)
        named = members.get("model")
        given = None if named is None else _DECODE(named)
        if not isinstance(given, str) or not given:
            what = "is missing" if named is None else "must be a string that is not empty"
            raise Error("invalid_request", f"The request is not valid: `model` {what} - at `$.model`", reason="model")
        model = self._target(given, passage)
        members["model"] = msgspec.Raw(encode_json(model.id))
        return model, _ENCODE(members)

    def _target(self, name: str, passage: TransferPassage) -> ModelSettings:
        model = self._named(passage.incoming, name)
        return self._engine.targets.with_target(model, passage.session, passage.incoming.http.caller)

    def _check_method(self, upstream: UpstreamSettings, path: UpstreamPath, method: str) -> None:
        methods = offered_methods(upstream.pass_paths, path.segments)
        if not methods:
            text = f"upstream {upstream.name!r} does not offer this path here: add it to its `lane`"
            raise Error("not_found", text, reason="lane")
        if method not in methods:
            allowed = ", ".join(methods)
            error = Error("invalid_request", f"this path accepts {allowed} here", reason="method", status=405)
            error.details = {"allow": allowed}
            raise error

    def _check_guards(self, incoming: Incoming, model: ModelSettings) -> None:
        """Refuses a request that names a model which is guarded: rule 6."""
        guards = self._engine.guards
        if guards is not None:
            route = incoming.path
            guards.check_closed(model.name, incoming.http.caller, route, None if route in _CLOSED else "input")

    def _check_guards_at(self, incoming: Incoming, upstream: UpstreamSettings, what: str) -> None:
        """Refuses a request past the guards of an upstream's models: rule 6."""
        guards = self._engine.guards
        if guards is not None:
            side: GuardSide | None = "input" if incoming.path == EDITS else None
            if incoming.path != VARIATIONS:  # which have no text
                guards.check_closed_at(upstream.name, incoming.http.caller, what, side)

    def _check_limits(self, incoming: Incoming, model: ModelSettings | None, endpoint: str = "") -> None:
        """Rule 5."""
        key = incoming.http.key
        if key is None or endpoint in METERED:
            return
        limits, is_image = key.limits, endpoint in IMAGES and model is not None
        if limits.spend is None and not (is_image and limits.of_tokens):
            return
        if is_image and model is not None and _COUNTING_IMAGES in model.id:
            return
        price = None if model is None else self._engine.settings.price(model)
        if price is None or not (price.request or (is_image and price.image)):
            kind, reason = ("spend", "spend") if limits.spend is not None else ("tokens", limits.of_tokens)
            text = f"what this request costs is not known, and this key has a limit of {kind}"
            needed = "`request` or `image`" if is_image else "`request`"
            how = "" if model is None else f": give model {model.name!r} a `price` with {needed}"
            raise Error("forbidden", f"{text}{how}", reason=reason)

    def _plan(
        self,
        passage: TransferPassage,
        upstream: UpstreamSettings,
        place: UpstreamPlace,
        endpoint: str,
        model: ModelSettings | None,
        body: bytes | None = None,
        check: CheckBytes | None = None,
        at: Callable[[ModelSettings], PassedCall] | None = None,
    ) -> None:
        """Plans a request.

        Args:
            passage: The request.
            upstream: The upstream.
            place: Where it is asked.
            endpoint: The route, as a label.
            model: The model that the request names. None if it is not known.
            body: The body. None if it is passed on as it came.
            check: As for `PassedCall`.
            at: As for `PassedCall`.
        """
        incoming, engine = passage.incoming, self._engine
        http, key = incoming.http, incoming.http.key
        call = self._call(incoming, upstream, place, endpoint, http.body if body is None else body)
        call.check, call.at = check, at
        call.session = passage.session
        estimate = NO_DEMAND
        size = len(http.body) if http.upload is None or http.upload.length is None else http.upload.length
        if model is not None:
            self._name_model(call, model)
            if key is not None:
                estimate = self._estimate(call, model, size)
        if key is not None and key.limits.of_tokens:
            estimate = estimate._replace(tokens=size // _BYTES_PER_TOKEN)
        http.body = b""  # `call` has it
        passage.stream_id = stream_id = new_stream_id()
        passage.demand = estimate
        passage.transfer = Transfer(engine, incoming, call, stream_id, is_retry=incoming.facts.is_retry)

    def _call(
        self, incoming: Incoming, upstream: UpstreamSettings, place: UpstreamPlace, endpoint: str, body: bytes
    ) -> PassedCall:
        """Returns what an upstream is asked; arguments as for `_plan`."""
        path, target = place.path, incoming.http.target
        if "?" in target:
            more = read_query(target.partition("?")[2])
            path += f"&{more[1:]}" if more and "?" in path else more
        call = PassedCall(upstream, path, body, self._engine.settings.stream, endpoint)
        call.is_repeatable, call.wants_bearer = place.is_repeatable, place.wants_bearer
        return call

    def _name_model(self, call: PassedCall, model: ModelSettings) -> None:
        """Puts a model with its target, and what it costs, into a call."""
        endpoint, price = call.endpoint, self._engine.settings.price(model)
        is_image = endpoint in IMAGES
        if is_image and price is not None and price.image:
            call.images = _images_asked(call.body)
        call.stream, call.model, call.price = model.stream, model, price
        call.is_metered = is_image or endpoint in METERED

    def _estimate(self, call: PassedCall, model: ModelSettings, size: int) -> Demand:
        """Returns what a request may cost at its first target, and at the dearest that may be asked."""
        engine = self._engine
        costs = [self._cost(call, size, call.price)]
        for each in model.targets:
            price = engine.settings.price(replace(model, upstream=each.upstream, id=each.id))
            costs.append(self._cost(call, size, price))
        most = max(costs)
        return Demand(0, Reservation(costs[0], most)) if most else NO_DEMAND

    def _cost(self, call: PassedCall, size: int, price: Price | None) -> int:
        """Returns what a request may cost at a price. Its tokens are estimated by its size: its text is not read."""
        if price is None or price.currency != self._engine.ledger.currency:
            return 0
        cost = cost_of({"input_tokens": estimated_tokens(size)}, price) if call.is_metered else 0
        images = _images_asked(call.body) if price.image and call.endpoint in IMAGES else 0
        return min(cost + price.request + images * price.image, SHARED.charge * UNIT)

    def waiting_response(self, passage: TransferPassage) -> StreamResponse:
        """Returns the response of a request that waits; a transfer makes its own when it begins."""
        incoming = passage.incoming
        body = incoming.http.body
        stream = self._engine.settings.stream
        response = StreamResponse(incoming, passage.stream_id, "application/json", stream, whole=True)
        response.headers = session_headers(passage.session)
        incoming.http.body = body
        return response


class TransferPassage(Passage):
    """A request whose bytes are passed on.

    Args:
        incoming: The request.
        routes: Know who may ask for what.

    Attributes:
        session: The digest of the session that it names; empty if it names none.
        transfer: Asks the upstream, from `plan` on.
    """

    def __init__(self, incoming: Incoming, routes: PassThroughRoutes) -> None:
        super().__init__(incoming)
        self.session = _session_of(incoming, _NO_BODY)
        self.transfer: Transfer
        self._routes = routes
        self._response: StreamResponse | None = None

    def read(self) -> None:
        """Reads nothing: the body is passed on unchanged."""

    def named_model(self) -> str:
        """Works as `Passage.named_model`."""
        return self.incoming.named_model

    def begin(self) -> None:
        """Works as `Passage.begin`."""
        self.transfer.start()

    def response(self) -> StreamResponse:
        """Works as `Passage.response`."""
        if self._response is None:
            self._response = self._routes.waiting_response(self)
        return self._response


class _PathPassage(TransferPassage):
    """`/p/{upstream}/{path}`."""

    def plan(self) -> None:
        self._routes.plan_path(self)


class _ModelPassage(TransferPassage):
    """A JSON body that names a model.

    Args:
        incoming: The request.
        routes: Know who may ask for what.
        checks_ids: Whether a caller with a key must own the ids in the body.
    """

    def __init__(self, incoming: Incoming, routes: PassThroughRoutes, *, checks_ids: bool) -> None:
        super().__init__(incoming, routes)
        self._checks_ids = checks_ids

    def read(self) -> None:
        if self._checks_ids and self.incoming.http.key is not None:
            self._routes.read_own_ids(self)

    def plan(self) -> None:
        self._routes.plan_model(self)


class _CompactPassage(_ModelPassage):
    """`POST /v1/responses/compact`."""

    def read(self) -> None:
        body = parse_object(self.incoming.json_body())
        if body.get("previous_response_id") is not None or responses_shape(body).may_refer:
            self.linked = body
        else:
            super().read()

    def may_go_up(self) -> bool:
        """Works as `Passage.may_go_up`."""
        return self._routes.may_know_ids(self)

    def join(self, body: dict[str, Any], found: Found) -> None:
        """Works as `Passage.join`."""
        self._routes.join(self, body, found)

    def plan(self) -> None:
        self._routes.plan_compact(self)


class _FormPassage(TransferPassage):
    """A form, of which only ids are read."""

    def __init__(self, incoming: Incoming, routes: PassThroughRoutes) -> None:
        super().__init__(incoming, routes)
        self.is_parsed = False
        self._form: Form  # from `read` on

    def read(self) -> None:
        self._form = self._routes.read_form(self)

    def plan(self) -> None:
        self._routes.plan_form(self, self._form)


def _session_of(incoming: Incoming, members: dict[str, Any]) -> str:
    """Returns the digest of the session that a request names; empty if it names none.

    Args:
        incoming: The request.
        members: The members of its body that may name one.
    """
    session = incoming.session(name_in_body(members))
    return "" if session is None else session.digest


def _cache_key(body: bytes) -> dict[str, Any]:
    """Returns the member of a JSON body that may name a session."""
    given = parse_members(body).get(_CACHE_KEY)
    return _NO_BODY if given is None else {_CACHE_KEY: _DECODE(given)}


def _with_model(body: bytes, identifier: str) -> bytes:
    """Returns a JSON body with another id of its model."""
    cut = cut_body(body, b"model")
    if cut is not None:
        return cut[1] + encode_json(identifier) + cut[2]
    members = parse_members(body)
    members["model"] = msgspec.Raw(encode_json(identifier))
    return _ENCODE(members)


def _check_ids(ids: FormIds, upstream: UpstreamSettings, data: bytes) -> None:
    """Checks further bytes of a form; empty at its end.

    Raises:
        Error: They name an id that is not shared by all callers.
    """
    for named in ids.feed(data, is_last=not data):
        if not upstream.shares(named.identifier):
            raise not_found(named)


def _model_field(name: str) -> str | None:
    return "model" if kind_of(name) == "model" else None


def _images_asked(body: bytes) -> int:
    """Returns the number of images that a JSON request asks for: `n`, else one."""
    asked = parse_members(body).get("n")
    number = 1 if asked is None else _DECODE(asked)
    return int(min(number, SHARED.priced_tokens)) if isinstance(number, (int, float)) and number > 1 else 1


def _check_page(incoming: Incoming) -> None:
    """Rule 4. A request with a key is never a page's that CORS does not allow."""
    if incoming.is_foreign and incoming.http.key is None:
        raise Error("forbidden", "a page of another origin may not use an upstream's own paths", reason="origin")


def _offers(upstream: UpstreamSettings, route: str) -> bool:
    return bool(upstream.pass_paths) and _is_offered(upstream.pass_paths, route)


@lru_cache(SHARED.known_values)
def _is_offered(paths: tuple[str, ...], route: str) -> bool:
    return "POST" in offered_methods(paths, read_path(route).segments)


def _place_at(upstream: UpstreamSettings, route: str, model: str | None) -> UpstreamPlace | None:
    """Returns where an upstream has a route; as `_place_of`, but None if nowhere."""
    if not upstream.extra:  # as nearly all have none
        return _known_place(upstream.provider, route)
    path = get_provider(upstream.provider).passed_path(route, upstream.extra, model)
    known = _known_place(upstream.provider, route)
    return None if path is None or known is None else known._replace(path=path)


@lru_cache(SHARED.known_values)
def _known_place(provider: str, route: str) -> UpstreamPlace | None:
    api = get_provider(provider)
    path = api.routes.path(route)
    return None if path is None else UpstreamPlace(path, may_repeat("POST", path, {}, ()), api.routes.wants_bearer)


def _place_of(upstream: UpstreamSettings, route: str, model: str | None) -> UpstreamPlace:
    """Returns where an upstream has a route.

    Args:
        upstream: The upstream.
        route: The route.
        model: The upstream's id of the model. None if it is not known.

    Raises:
        Error: The upstream's provider has no such route.
    """
    place = _place_at(upstream, route, model)
    if place is None:
        text = f"upstream {upstream.name!r} has no {route}: {upstream.provider} does not offer it"
        if model is None and upstream.extra.get("api_version"):
            text += " to forms with an `api_version`"
        raise Error("unsupported", f"{text}; its own paths are at /p/{upstream.name}/", reason="route")
    return place
