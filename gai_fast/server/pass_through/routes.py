"""The handlers of the pass-through: `/p/{upstream}/{path}`, JSON routes with a model, forms, and compaction.

Owns who may ask for what, and the upstream that is asked. `transfer.py` does the rest.

1. `/p/…`: the upstream's `lane` has the path, and the key's `lane` the upstream. For a key with a list of models the
   body is read: it names only models of the list, by the upstream's ids.
2. JSON routes: the body names a `[[model]]` that the key may use, and its upstream's `lane` has the path. The model is
   replaced; nothing else changes. For a key with a list of models no other member names one.
3. Forms: the one upstream whose `lane` has the path. Of a form only ids are read, so it may name any model: a key with
   a list of models is refused. JSON at such a route is read as by rule 2. Both name only files that their caller got
   here.
4. Without keys no page of another origin may ask for these two: a browser sends it the GET or the form without asking
   the server first (Fetch, 2.2: CORS-safelisted), and the upstream would be paid with the gateway's credential.
5. What a request costs is known from the price of each request, or from the tokens of an answer of known shape.
   A key with a limit of spend is refused if neither is known.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final, NamedTuple
from urllib.parse import unquote

import msgspec

from gai_fast.core.reading import cut_body, estimated_tokens, parse_members, parse_object
from gai_fast.kernels import encode_json
from gai_fast.ledger import NO_DEMAND, Demand, Reservation
from gai_fast.model.errors import Error
from gai_fast.model.lane_paths import offered_methods
from gai_fast.model.limits import SHARED
from gai_fast.model.money import cost_of
from gai_fast.model.settings import KeySettings, ModelSettings, UpstreamSettings
from gai_fast.net.stream.streams import Engine
from gai_fast.providers import API, get_provider
from gai_fast.runtime.ids import new_stream_id
from gai_fast.server.admission.admit import check_coding, is_form
from gai_fast.server.admission.further_models import (
    LongBody,
    check_further_models,
    check_passed_models,
    kind_of,
    may_be_json,
)
from gai_fast.server.admission.stored_ids import check_number, not_found
from gai_fast.server.http.replies import Reply
from gai_fast.server.pass_through.form_ids import FormIds
from gai_fast.server.pass_through.repetition import may_repeat
from gai_fast.server.pass_through.transfer import Call, Transfer
from gai_fast.server.pass_through.upstream_path import UpstreamPath, below, read_path, read_query
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.specs import is_retry
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.server.requests.streams import StreamRoutes

METERED: Final = frozenset(
    ("/v1/embeddings", "/v1/moderations", "/v1/rerank", "/v1/images/generations", "/v1/responses/compact")
)
"""The routes whose answers have counts of tokens; an answer without counts is charged for the text of its request."""
CheckBytes = Callable[[bytes], object]
_BYTES_PER_TOKEN: Final = 4
_DECODE: Final = msgspec.json.Decoder().decode
_ENCODE: Final = msgspec.json.Encoder().encode


class Place(NamedTuple):
    """Where a request goes at its upstream.

    Attributes:
        path: The path below the base URL.
        is_repeatable: As for `Call`.
        wants_bearer: As for `Call`.
    """

    path: str
    is_repeatable: bool
    wants_bearer: bool


class PassThroughRoutes:
    """Handlers over one engine.

    Args:
        engine: Has the upstreams.
        streams: Counts the requests, and knows whose the ids are that they name.
    """

    def __init__(self, engine: Engine, streams: StreamRoutes) -> None:
        self._engine = engine
        self._streams = streams
        self._quotas = streams.quotas
        self._apis: dict[str, API] = {}  # by provider

    def upstream(self, incoming: Incoming) -> None:
        """Handles `/p/{upstream}/{path}`: rule 1."""
        _check_page(incoming)
        name, slash, rest = incoming.tail.partition("/")
        path = read_path(f"/{rest}")
        name, key = unquote(name), incoming.key
        if key is not None and name not in key.lane:
            text = f"this key may not use the paths of upstream {name[:64]!r}: the operator can add it to its `lane`"
            raise Error("forbidden", text, reason="lane")
        upstream = self._engine.settings.upstreams.get(name)
        if upstream is None or not slash:
            raise Error("not_found", "no upstream has this name: the path is /p/<upstream>/<path>", reason="lane")
        self._check_method(upstream, path, incoming.http.method)
        self._check_spend(incoming, None, is_metered=False)
        check = None if key is None or key.may_use_all else self._check_models(incoming, upstream, key)
        api, http = self._api(upstream), incoming.http
        own = api.routes.own_path(path.sent)
        sent = own or below(upstream.base_url, path.sent)
        is_repeatable = may_repeat(http.method, sent, http.headers, api.keyed_paths)
        place = Place(sent, is_repeatable, api.routes.wants_bearer and own is not None)
        self._begin(incoming, upstream, place, "/p/{}", None, check=check)

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

    def with_model(self, incoming: Incoming) -> Reply | None:
        """Handles a JSON route whose body names a model: rule 2."""
        return self._quotas.read(incoming, self._read_with_model, takes_key=False)

    def _read_with_model(self, incoming: Incoming) -> None:
        route = incoming.path
        try:
            model, body = self._model_and_body(incoming)
        except Error:
            self._offering(route)  # its refusal comes first
            raise
        upstream = model.upstream
        if not _has_in_lane(upstream, route):
            self._offering(route)
            text = f"the upstream of model {model.name!r} does not offer {route}: add it to `lane` of"
            raise Error("not_found", f"{text} [[upstream]] {upstream.name!r}", reason="lane")
        self._begin(incoming, upstream, _place_of(upstream, route, model.id), route, model, body)

    def _offering(self, route: str) -> list[UpstreamSettings]:
        """Returns the upstreams that offer a route.

        Raises:
            Error: There is none.
        """
        offering = [each for each in self._engine.settings.upstreams.values() if _has_in_lane(each, route)]
        if not offering:
            text = f"no upstream offers {route} here: add it to `lane` of an [[upstream]] that has it"
            raise Error("not_found", text, reason="route")
        return offering

    def form(self, incoming: Incoming) -> Reply | None:
        """Handles a route whose body is a form or JSON: rule 3."""
        if not is_form(incoming.http.headers):
            return self._quotas.read(incoming, self._read_own_with_model, takes_key=False)
        _check_page(incoming)
        route = incoming.path
        offering = self._offering(route)
        if len(offering) > 1:
            offering = [each for each in offering if _place_at(each, route, None)] or offering[:1]
        if len(offering) > 1:
            names = ", ".join([f"/p/{each.name}{route}" for each in offering])
            raise Error("invalid_request", f"several upstreams offer this path: ask one of {names}", reason="lane")
        key = incoming.key
        if key is not None and not key.may_use_all:
            text = "a form may name any model, and this key may only use some"
            raise Error("forbidden", text, reason="model")
        self._check_spend(incoming, None, is_metered=False)
        upstream, ids, named = offering[0], None, []
        place = _place_of(upstream, route, None)
        if key is not None:
            check_coding(incoming.http.headers)  # its ids must be readable
            ids = FormIds(incoming.http.headers["content-type"])
            named = ids.feed(incoming.http.body, is_last=incoming.http.upload is None)
            check_number(named)
            named = [each for each in named if not upstream.shares(each.identifier)]
        check = None if ids is None else partial(_check_ids, ids, upstream)
        start = partial(self._begin, incoming, upstream, place, route, None, check=check)
        if named:
            return self._streams.answer_owner(incoming, named, start)
        start()
        return None

    def _read_own_with_model(self, incoming: Incoming) -> Reply | None:
        return self._streams.with_own_ids(incoming, partial(self._read_with_model, incoming))

    def compact(self, incoming: Incoming) -> Reply | None:
        """Handles `POST /v1/responses/compact`: the upstream compacts a conversation, if its API or its `lane` can."""
        return self._quotas.read(incoming, self._read_compact, takes_key=False)

    def _read_compact(self, incoming: Incoming) -> Reply | None:
        return self._streams.with_own_ids(incoming, partial(self._begin_compact, incoming))

    def _begin_compact(self, incoming: Incoming) -> None:
        model, body = self._model_and_body(incoming)
        upstream, route = model.upstream, incoming.path
        api = self._api(upstream)
        if api.compact_path:
            place = Place(api.compact_path, False, False)
        elif _has_in_lane(upstream, route) and api.dialect == incoming.format.name:
            place = _place_of(upstream, route, model.id)
        else:
            text = f"{api.provider} compacts no conversation: ask a model of an upstream that does, such as OpenAI's"
            raise Error("unsupported", text, reason="compact")
        self._begin(incoming, upstream, place, route, model, body)

    # ---- what is asked for

    def _model_and_body(self, incoming: Incoming) -> tuple[ModelSettings, bytes]:
        """Returns the target of the model that a JSON body names, and the body with the upstream's id of it."""
        body = incoming.json_body()
        if incoming.key is not None and not incoming.key.may_use_all:
            read = parse_object(body)
            check_further_models(read, incoming.key)
            body = encode_json(read)  # of duplicate members an upstream may read another one
        cut = cut_body(body, b"model")
        if cut is not None:
            name, before, behind = cut
            model = self._target(name, incoming)
            return model, before + encode_json(model.id) + behind
        members = parse_members(body)
        named = members.get("model")
        given = None if named is None else _DECODE(named)
        if not isinstance(given, str) or not given:
            what = "is missing" if named is None else "must be a string that is not empty"
            raise Error("invalid_request", f"The request is not valid: `model` {what} - at `$.model`", reason="model")
        model = self._target(given, incoming)
        members["model"] = msgspec.Raw(encode_json(model.id))
        return model, _ENCODE(members)

    def _target(self, name: str, incoming: Incoming) -> ModelSettings:
        engine = self._engine
        return engine.targets.with_target(engine.settings.chosen(name, incoming.key), {})

    def _check_method(self, upstream: UpstreamSettings, path: UpstreamPath, method: str) -> None:
        methods = offered_methods(upstream.lane, path.segments)
        if not methods:
            text = f"upstream {upstream.name!r} does not offer this path here: add it to its `lane`"
            raise Error("not_found", text, reason="lane")
        if method not in methods:
            allowed = ", ".join(methods)
            error = Error("invalid_request", f"this path accepts {allowed} here", reason="method", status=405)
            error.details = {"allow": allowed}
            raise error

    def _check_spend(self, incoming: Incoming, model: ModelSettings | None, *, is_metered: bool) -> None:
        """Rule 5."""
        key = incoming.key
        if key is None or key.limits.spend is None or is_metered:
            return
        price = None if model is None else self._engine.settings.price(model)
        if price is None or not price.request:
            text = "what this request costs is not known, and this key has a limit of spend"
            how = "" if model is None else f": give model {model.name!r} a `price` with `request`"
            raise Error("forbidden", f"{text}{how}", reason="spend")

    # ---- the start

    def _begin(
        self,
        incoming: Incoming,
        upstream: UpstreamSettings,
        place: Place,
        endpoint: str,
        model: ModelSettings | None,
        body: bytes | None = None,
        check: CheckBytes | None = None,
    ) -> None:
        """Starts a request once it is admitted.

        Args:
            incoming: The request.
            upstream: The upstream.
            place: Where it is asked.
            endpoint: The route, as a label.
            model: The model that the request names. None if it is not known.
            body: The body. None if it is passed on as it came.
            check: As for `Call`.
        """
        engine, http, key = self._engine, incoming.http, incoming.key
        settings = engine.settings
        path = place.path
        query = http.target.partition("?")[2]
        if query:
            more = read_query(query)
            path += f"&{more[1:]}" if more and "?" in path else more
        call = Call(upstream, path, http.body if body is None else body, settings.stream, endpoint)
        call.is_repeatable, call.wants_bearer = place.is_repeatable, place.wants_bearer
        call.check = check
        estimate = NO_DEMAND
        size = len(http.body) if http.upload is None or http.upload.length is None else http.upload.length
        if model is not None:
            is_metered = endpoint in METERED
            self._check_spend(incoming, model, is_metered=is_metered)
            price = settings.price(model)
            call.stream, call.model, call.price, call.is_metered = model.stream, model, price, is_metered
            if key is not None and price is not None and price.currency == engine.ledger.currency:
                # Reserved by the size: only an answer without counts is worth reading the texts.
                cost = cost_of({"input_tokens": estimated_tokens(size)}, price) if is_metered else 0
                estimate = Demand(0, Reservation(cost + price.request, cost + price.request))
        if key is not None and key.limits.tokens_per_minute is not None:
            estimate = estimate._replace(tokens=size // _BYTES_PER_TOKEN)
        http.body = b""  # `call` has it
        stream_id = new_stream_id()
        start = Transfer(engine, incoming, call, stream_id, is_retry=is_retry(incoming)).start
        if not self._quotas.try_begin(incoming, estimate, stream_id, start):
            waiting = StreamResponse(incoming, stream_id, "", call.stream, whole=True)
            self._quotas.wait(incoming, estimate, stream_id, waiting, start)


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


def _check_page(incoming: Incoming) -> None:
    """Rule 4. A request with a key is never a page's that CORS does not allow."""
    if incoming.is_foreign and incoming.key is None:
        raise Error("forbidden", "a page of another origin may not use an upstream's own paths", reason="origin")


def _has_in_lane(upstream: UpstreamSettings, route: str) -> bool:
    return bool(upstream.lane) and _is_offered(upstream.lane, route)


@lru_cache(SHARED.known_values)
def _is_offered(lane: tuple[str, ...], route: str) -> bool:
    return "POST" in offered_methods(lane, read_path(route).segments)


def _place_at(upstream: UpstreamSettings, route: str, model: str | None) -> Place | None:
    """Returns where an upstream has a route; as `_place_of`, but None if nowhere."""
    if not upstream.extra:  # as nearly all have none
        return _known_place(upstream.provider, route)
    path = get_provider(upstream.provider).passed_path(route, upstream.extra, model)
    known = _known_place(upstream.provider, route)
    return None if path is None or known is None else known._replace(path=path)


@lru_cache(SHARED.known_values)
def _known_place(provider: str, route: str) -> Place | None:
    api = get_provider(provider)
    path = api.routes.path(route)
    return None if path is None else Place(path, may_repeat("POST", path, {}, ()), api.routes.wants_bearer)


def _place_of(upstream: UpstreamSettings, route: str, model: str | None) -> Place:
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
