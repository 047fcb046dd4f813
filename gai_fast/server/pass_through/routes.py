"""The handlers of the pass-through: `/p/{upstream}/{path}`, JSON routes with a model, forms, and compaction.

Owns who may ask for what, and the upstream that is asked. `transfer.py` does the rest.

1. `/p/…`: the upstream's `lane` has the path, and the key's `lane` the upstream.
2. JSON routes: the body names a `[[model]]` that the key may use, and its upstream's `lane` has the path. The model is
   replaced; nothing else changes.
3. Forms: the one upstream whose `lane` has the path. Of a form only ids are read, so it may name any model: a key with
   a list of models is refused. JSON at such a route is read as by rule 2. Both name only files that their caller got
   here.
4. Without keys no page of another origin may ask for these two: a browser sends it the GET or the form without asking
   the server first (Fetch, 2.2: CORS-safelisted), and the upstream would be paid with the gateway's credential.
5. What a request costs is known from the price of each request or image, or from the tokens of an answer of known
   shape. A key with a limit of spend is refused if neither is known. So is one with a limit of tokens at images, whose
   answers count none, but those of OpenAI's newer models.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Final
from urllib.parse import unquote

import msgspec

from gai_fast.core.reading import cut_body, estimated_tokens, parse_members
from gai_fast.kernels import encode_json
from gai_fast.ledger import NO_DEMAND, Demand, Reservation
from gai_fast.model.errors import Error
from gai_fast.model.lane_paths import offered_methods
from gai_fast.model.limits import SHARED
from gai_fast.model.money import UNIT, cost_of
from gai_fast.model.settings import ModelSettings, UpstreamSettings
from gai_fast.net.stream.streams import Engine
from gai_fast.providers import get_provider
from gai_fast.runtime.ids import new_stream_id
from gai_fast.server.admission.admit import check_coding, is_form
from gai_fast.server.admission.stored_ids import check_number
from gai_fast.server.http.replies import Reply
from gai_fast.server.pass_through.form_ids import FormIds
from gai_fast.server.pass_through.transfer import Call, Transfer
from gai_fast.server.pass_through.upstream_path import UpstreamPath, below, read_path, read_query
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.specs import is_retry
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.server.requests.streams import StreamRoutes

METERED: Final = frozenset(("/v1/embeddings", "/v1/moderations", "/v1/rerank", "/v1/responses/compact"))
"""The routes whose answers have counts of tokens; an answer without counts is charged for the text of its request."""
IMAGES: Final = frozenset(("/v1/images/generations", "/v1/images/edits", "/v1/images/variations"))
"""The routes of images: some models' answers have counts, others cost by the image, beside the request's text."""
_COUNTING_IMAGES: Final = "gpt-image"
"""A part of the ids of the models whose images have counts (openai-python, `ImagesResponse.usage`)."""
_BYTES_PER_TOKEN: Final = 4
_DECODE: Final = msgspec.json.Decoder().decode
_ENCODE: Final = msgspec.json.Encoder().encode


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
        self._check_limits(incoming, None)
        self._begin(incoming, upstream, below(upstream.base_url, path.sent), "/p/{}", None)

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
        path = _place_of(upstream, route)
        if path is None:
            self._offering(route)
            text = f"the upstream of model {model.name!r} does not offer {route}: add it to `lane` of"
            raise Error("not_found", f"{text} [[upstream]] {upstream.name!r}", reason="lane")
        self._begin(incoming, upstream, path, route, model, body)

    def _offering(self, route: str) -> list[UpstreamSettings]:
        """Returns the upstreams that offer a route.

        Raises:
            Error: There is none.
        """
        offering = [each for each in self._engine.settings.upstreams.values() if _place_of(each, route)]
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
            names = ", ".join([f"/p/{each.name}{route}" for each in offering])
            raise Error("invalid_request", f"several upstreams offer this path: ask one of {names}", reason="lane")
        key = incoming.key
        if key is not None and not key.may_use_all:
            text = "a form may name any model, and this key may only use some"
            raise Error("forbidden", text, reason="model")
        self._check_limits(incoming, None)
        upstream, ids, named = offering[0], None, []
        if key is not None:
            check_coding(incoming.http.headers)  # its ids must be readable
            ids = FormIds(incoming.http.headers["content-type"])
            named = ids.feed(incoming.http.body, is_last=incoming.http.upload is None)
            check_number(named)
            named = [each for each in named if not upstream.shares(each.identifier)]
        start = partial(self._begin, incoming, upstream, _place_of(upstream, route) or "", route, None, ids=ids)
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
        api, path = get_provider(upstream.provider), _place_of(upstream, route)
        if api.compact_path:
            path = below(upstream.base_url, api.compact_path)
        elif path is None or api.dialect != incoming.format.name:
            text = f"{api.provider} compacts no conversation: ask a model of an upstream that does, such as OpenAI's"
            raise Error("unsupported", text, reason="compact")
        self._begin(incoming, upstream, path, route, model, body)

    # ---- what is asked for

    def _model_and_body(self, incoming: Incoming) -> tuple[ModelSettings, bytes]:
        """Returns the target of the model that a JSON body names, and the body with the upstream's id of it."""
        body = incoming.json_body()
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

    def _check_limits(self, incoming: Incoming, model: ModelSettings | None, endpoint: str = "") -> None:
        """Rule 5."""
        key = incoming.key
        if key is None or endpoint in METERED:
            return
        limits, is_image = key.limits, endpoint in IMAGES and model is not None
        if limits.spend is None and (limits.tokens_per_minute is None or not is_image):
            return
        if is_image and model is not None and _COUNTING_IMAGES in model.id:
            return
        price = None if model is None else self._engine.settings.price(model)
        if price is None or not (price.request or (is_image and price.image)):
            kind, reason = ("spend", "spend") if limits.spend is not None else ("tokens", "tokens_per_minute")
            text = f"what this request costs is not known, and this key has a limit of {kind}"
            needed = "`request` or `image`" if is_image else "`request`"
            how = "" if model is None else f": give model {model.name!r} a `price` with {needed}"
            raise Error("forbidden", f"{text}{how}", reason=reason)

    # ---- the start

    def _begin(
        self,
        incoming: Incoming,
        upstream: UpstreamSettings,
        path: str,
        endpoint: str,
        model: ModelSettings | None,
        body: bytes | None = None,
        ids: FormIds | None = None,
    ) -> None:
        """Starts a request once it is admitted.

        Args:
            incoming: The request.
            upstream: The upstream.
            path: The path below its base URL.
            endpoint: The route, as a label.
            model: The model that the request names. None if it is not known.
            body: The body. None if it is passed on as it came.
            ids: Has read the body so far, if it is a form in which ids are checked.
        """
        engine, http, key = self._engine, incoming.http, incoming.key
        settings = engine.settings
        query = http.target.partition("?")[2]
        if query:
            path += read_query(query)
        call = Call(upstream, path, http.body if body is None else body, settings.stream, endpoint)
        call.ids = ids
        estimate = NO_DEMAND
        size = len(http.body) if http.upload is None or http.upload.length is None else http.upload.length
        if model is not None:
            self._check_limits(incoming, model, endpoint)
            is_image = endpoint in IMAGES
            is_metered = is_image or endpoint in METERED
            price = settings.price(model)
            if is_image and price is not None and price.image:
                call.images = _images_asked(call.body)
            call.stream, call.model, call.price, call.is_metered = model.stream, model, price, is_metered
            if key is not None and price is not None and price.currency == engine.ledger.currency:
                # Reserved by the size: only an answer without counts is worth reading the texts.
                cost = cost_of({"input_tokens": estimated_tokens(size)}, price) if is_metered else 0
                cost = min(cost + price.request + call.images * price.image, SHARED.charge * UNIT)
                estimate = Demand(0, Reservation(cost, cost))
        if key is not None and key.limits.tokens_per_minute is not None:
            estimate = estimate._replace(tokens=size // _BYTES_PER_TOKEN)
        http.body = b""  # `call` has it
        stream_id = new_stream_id()
        start = Transfer(engine, incoming, call, stream_id, is_retry=is_retry(incoming)).start
        if not self._quotas.try_begin(incoming, estimate, stream_id, start):
            waiting = StreamResponse(incoming, stream_id, "", call.stream, whole=True)
            self._quotas.wait(incoming, estimate, stream_id, waiting, start)


def _images_asked(body: bytes) -> int:
    """Returns the number of images that a JSON request asks for: `n`, else one."""
    asked = parse_members(body).get("n")
    number = 1 if asked is None else _DECODE(asked)
    return int(min(number, SHARED.priced_tokens)) if isinstance(number, (int, float)) and number > 1 else 1


def _check_page(incoming: Incoming) -> None:
    """Rule 4. A request with a key is never a page's that CORS does not allow."""
    if incoming.is_foreign and incoming.key is None:
        raise Error("forbidden", "a page of another origin may not use an upstream's own paths", reason="origin")


def _place_of(upstream: UpstreamSettings, route: str) -> str | None:
    """Returns the path of a route below the base URL of an upstream. None if the upstream's `lane` does not have it."""
    return _known_place(upstream.lane, upstream.base_url, route) if upstream.lane else None


@lru_cache(SHARED.known_values)
def _known_place(lane: tuple[str, ...], base_url: str, route: str) -> str | None:
    path = read_path(route)
    return below(base_url, path.sent) if "POST" in offered_methods(lane, path.segments) else None
