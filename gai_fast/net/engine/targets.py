"""The targets of each model: which can be used now, and the request that each is sent.

Owns the current configuration. By upstream: breakers, keys and warnings to the operator. By model: the choice among
targets. `upstreams.py` has the connections. Must not know running streams.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Container, Mapping
from functools import partial
from random import Random
from secrets import token_bytes
from typing import Any, Final, Literal

from gai_fast.core.requests.reading import members_for_scores
from gai_fast.core.session import NamedSession, beginning, cache_key, session_digest
from gai_fast.model.changes import Changes
from gai_fast.model.credentials import Credential
from gai_fast.model.errors import Error
from gai_fast.model.limits import OTHER, SHARED
from gai_fast.model.metrics import Tallies
from gai_fast.model.request import Request
from gai_fast.model.settings import (
    ANONYMOUS,
    IdentitySettings,
    ModelSettings,
    Secret,
    Settings,
    UpstreamSettings,
)
from gai_fast.model.upstream_errors import for_client, without_addresses
from gai_fast.net.attempts.attempt import AttemptRunner, Redact
from gai_fast.net.attempts.balance import (
    BalancedTarget,
    Balancer,
    MoveReason,
    TargetCondition,
    TargetKey,
    TargetRequest,
    as_target,
    target_key,
)
from gai_fast.net.attempts.caller_keys import CallerKeys, LimitedCredentials, is_callers
from gai_fast.net.attempts.error_redaction import ErrorRedaction
from gai_fast.net.attempts.key_ring import KeyRing, Keys
from gai_fast.net.attempts.recording import secrets_of
from gai_fast.net.attempts.refused_members import RefusedMembers
from gai_fast.net.attempts.refused_tools import RefusedTools
from gai_fast.net.attempts.retry import Breaker, RetryPolicy
from gai_fast.net.attempts.spec import StreamSpec
from gai_fast.net.engine.upstreams import Upstreams
from gai_fast.net.engine.written_exchange import WrittenExchange
from gai_fast.net.identity.fetch import fetch as fetch_token
from gai_fast.net.identity.grant import Grant, Signed
from gai_fast.net.identity.token_source import Fetch, TokenSource
from gai_fast.net.identity.waiting_exchange import Send
from gai_fast.net.limits import LIMITS
from gai_fast.net.sockets.sockets import unsent_error
from gai_fast.net.upstream.connection import OpenExchange, Receiver
from gai_fast.net.upstream.pool import UpstreamPool
from gai_fast.otel.trace import TracedTarget as TracedTarget
from gai_fast.providers import API, Adapter, Target, TokenCount, UpstreamRequest, get_provider, is_tuned
from gai_fast.runtime.beside import Beside
from gai_fast.runtime.timers import Timer, Timers

logger = logging.getLogger("gai_fast.engine")


_OF_REQUESTS: Final = ("invalid_request", "unsupported", "context_length_exceeded", "content_filtered", "rate_limited")
"""Codes of failures that a request has caused, or its caller's use: another target is the answer to them."""


class Targets(AttemptRunner):
    """The targets of one process, on one loop.

    Args:
        settings: The configuration of new streams.
        upstreams: The connections; they get the configuration's upstreams.
        tallies: Counts hedges.
        timers: The loop's timers.
        loop: The running loop.
        fetch: As for `TokenSource`. None if no other process needs the tokens.

    Attributes:
        settings: The configuration that new streams get.
        policy: Decides on failed attempts of all streams.
        tallies: As above.
    """

    def __init__(
        self,
        settings: Settings,
        upstreams: Upstreams,
        tallies: Tallies,
        timers: Timers,
        loop: asyncio.AbstractEventLoop,
        fetch: Fetch | None = None,
    ) -> None:
        self.settings = settings
        self.policy = RetryPolicy()
        self.tallies = tallies
        self._upstreams = upstreams
        self._timers = timers
        self._loop = loop
        self._fetch = fetch or fetch_token
        self._chance = Random()  # spreads requests
        self._apis: dict[str, API] = {}  # by provider
        self._balancers: dict[str, Balancer] = {}  # by model
        self._beginnings: dict[str, int] = {}  # by model: the characters of texts that name a session
        self._alone: set[str] = set()  # models without targets whose upstream is drained or limited
        self._breakers: dict[str, Breaker] = {}  # by upstream
        self._breaker_looks: dict[str, Timer] = {}  # by upstream: the next attempt to connect to it
        self._key_rings: dict[str, KeyRing] = {}  # by upstream
        self._token_sources: dict[IdentitySettings, TokenSource] = {}
        self._limited = LimitedCredentials(token_bytes(32))
        self._refused = RefusedMembers()
        self.refused_tools = RefusedTools(loop.time)
        self.beside = Beside(loop)
        """Reads and writes large requests."""
        self._silent_until: dict[str, float] = {}  # by upstream: the time of the next warning
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Uses another configuration from now on."""
        self.settings = settings
        self._operators = frozenset([ANONYMOUS, *(key.name for key in settings.keys if key.role == "admin")])
        upstreams = _upstreams(settings)
        self._use_upstreams(upstreams, self._upstreams.configured)
        self._use_targets(settings)
        self._upstreams.use(upstreams, settings.limits.streams)

    def _use_upstreams(
        self, upstreams: Mapping[str, UpstreamSettings], formers: Mapping[str, UpstreamSettings]
    ) -> None:
        """Makes breakers and key rings for the upstreams. Those that stay keep their state.

        They are made here and not for the first request: a request of an older stream would restore removed ones.
        """
        self.policy.keep(upstreams)
        breakers, rings = self._breakers, self._key_rings
        self._breakers, self._key_rings = {}, {}
        for name, new in upstreams.items():
            former = formers.get(name)
            is_there = former is not None and new.base_url == former.base_url  # else it is another server
            if new.breaker is not None:
                is_same = is_there and former is not None and new.breaker == former.breaker
                self._breakers[name] = breakers[name] if is_same else Breaker(new.breaker)
            if new.more_api_keys:
                ring = self._key_rings[name] = (rings.get(name) if is_there else None) or KeyRing(new)
                ring.use(new)
        identities = {new.identity for new in upstreams.values() if new.identity is not None}
        for identity in self._token_sources.keys() - identities:
            self._token_sources.pop(identity).close()
        for identity in identities:
            self._token_source(identity)

    def _use_targets(self, settings: Settings) -> None:
        now = self._loop.time()
        balancers: dict[str, Balancer] = {}
        alone: set[str] = set()
        for name in {**settings.models, **dict.fromkeys(self._alone)}:
            model, former = settings.model(name), self._balancers.get(name)
            if model is None:
                continue
            if not model.targets and former is not None:
                place = target_key(model)
                if former.is_drained(place) or (name in self._alone and not former.is_as_new(place, now)):
                    alone.add(name)
                    model = as_target(model)
            if model.targets:
                balancer = balancers[name] = former or self._balancer(model)
                balancer.use(model, now)
        self._balancers, self._alone = balancers, alone
        self._beginnings = _beginnings(settings)

    def _balancer(self, model: ModelSettings) -> Balancer:
        return Balancer(model, self._chance, self._key_wait, partial(self.note_move, model.name))

    def close(self) -> None:
        """Stops the attempts to connect to upstreams whose breakers are open, and the fetches of tokens."""
        for look in self._breaker_looks.values():
            look.cancel()
        for source in self._token_sources.values():
            source.close()
        self.beside.close()

    # -- the choice --

    def home(
        self, model: ModelSettings, session: NamedSession | None, request: Request | dict[str, Any], caller: str
    ) -> str:
        """Returns the digest by which the targets and keys of a request are found again; as `StreamSpec.home`.

        Args:
            model: The requested model.
            session: The session that the client has named.
            request: A native request, or a body in a client's dialect.
            caller: The caller's name.
        """
        if session is not None:
            return session.digest
        least = self._beginnings.get(model.name)
        if least is None:  # nearly always
            if not model.upstream.more_api_keys or model.name in self.settings.models:
                return ""
            least = _least_beginning(model)
            if least is None:
                return ""
        name = beginning(request, least)
        return session_digest(name, caller) if name else ""

    def note_move(self, model: str, reason: MoveReason) -> None:
        """Works as `AttemptRunner.note_move`."""
        moves, name = self.tallies.session_moves, model if model in self.settings.models else OTHER
        moves[name, reason] = moves.get((name, reason), 0) + 1

    def choose_target(
        self, model: ModelSettings, home: str, without: Container[TargetKey], caller: str
    ) -> ModelSettings | None:
        """Chooses a target of a model; as `TargetChoice.choose_target`."""
        balancer = self._balancers.get(model.name)
        if balancer is None:  # the new configuration has no such targets
            return None
        return balancer.choose(home, self._loop.time(), self._breaker_wait, without, caller)

    def with_target(
        self, model: ModelSettings, home: str, caller: str = ANONYMOUS, without: Container[TargetKey] = ()
    ) -> ModelSettings:
        """Returns the model with the target for a new request, before its spec is made.

        Args:
            model: The requested model.
            home: As for `StreamSpec`.
            caller: The name of the request's caller.
            without: Targets that must not be chosen; not all.

        Returns:
            The model itself if it has no targets. If no target is ready, the target that will be ready soonest: the
            attempt decides how to proceed.
        """
        if not model.targets:
            return self._placed_alone(model) if model.name in self._alone else model
        placed = self.choose_target(model, home, without, caller)
        if placed is None and model.name in self._balancers:
            placed = self._balancers[model.name].soonest(self._loop.time(), self._breaker_wait, without)
        return placed or model

    def _placed_alone(self, model: ModelSettings) -> ModelSettings:
        """Returns a model without targets with its one target, if that is still drained or limited."""
        if not self._balancers[model.name].is_as_new(target_key(model), self._loop.time()):
            return as_target(model)
        self._alone.remove(model.name)
        del self._balancers[model.name]
        return model

    def limited_target(self, model: ModelSettings) -> BalancedTarget | None:
        """Returns the one target of a model without targets that has met a limit; as `AttemptRunner.limited_target`.

        Its next requests have that target, as with `targets`.
        """
        name = model.name
        if model.targets or model.upstream.more_api_keys:  # keys have their own limits
            return None
        if name not in self._balancers:
            if len(self._alone) >= LIMITS.limited_places:
                self._forget_alone()
            if name in self.settings.models or len(self._alone) < LIMITS.limited_places:
                self._put_alone(model)
        balancer = self._balancers.get(name)
        return None if balancer is None else balancer.targets.get(target_key(model))

    def _forget_alone(self) -> None:
        """Forgets models without targets whose one target is as new, and that nobody asks for."""
        for name in [*self._alone]:
            model = self.settings.model(name)
            if model is not None:
                self._placed_alone(model)

    def _put_alone(self, model: ModelSettings) -> None:
        self._alone.add(model.name)
        self._balancers[model.name] = self._balancer(as_target(model))

    def has_connection(self, model: ModelSettings, taking: int) -> bool:
        """Returns whether a target of a model, or of its fallbacks, has a connection for one more request.

        Args:
            model: The model.
            taking: Requests that are about to be sent.
        """
        return any(self._upstreams.has_connection(each.upstream, taking) for each in self.settings.may_answer(model))

    def begin_request(self, model: ModelSettings, now: float) -> TargetRequest | None:
        """Starts a request at a target; as `AttemptRunner.begin_request`."""
        balancer = self._balancers.get(model.name)
        return None if balancer is None else balancer.begin(model, now)

    def is_premature(self, model: ModelSettings, now: float) -> bool:
        """Returns whether a request should wait before it is sent to a target; as `Balancer.is_premature`."""
        balancer = self._balancers.get(model.name)
        return balancer is not None and balancer.is_premature(model, now, self._breaker_wait)

    def target_wait(self, model: ModelSettings, *, any_target: bool) -> float:
        """Returns the seconds until the model's target, or any of its targets, is ready; 0 if it is ready."""
        balancer = self._balancers.get(model.name)
        if balancer is None:
            return 0.0
        now = self._loop.time()
        if any_target:
            return balancer.wait(now, self._breaker_wait)
        target = balancer.targets.get(target_key(model))
        return 0.0 if target is None else target.wait(now, self._upstream_wait(model))

    def key_ring(self, upstream: UpstreamSettings, credential: Credential | None = None) -> Keys:
        """Returns the keys of an upstream that has several, its tokens, or the caller's own credential.

        For a replaced upstream these are its old keys; arguments as for `AttemptRunner.key_ring`.
        """
        if upstream.takes_credentials:
            return CallerKeys(self._limited, upstream, credential)
        if upstream.identity is not None:
            return self._token_source(upstream.identity)
        ring = self._key_rings.get(upstream.name)
        if ring is not None and (ring.upstream is upstream or ring.upstream == upstream):
            return ring
        return KeyRing(upstream)

    def _upstream_wait(self, model: ModelSettings) -> float:
        """Returns the seconds until the breaker of a target's upstream admits a request and a key can be used.

        Args:
            model: The model with the target's upstream and id.

        Returns:
            0 if both do.
        """
        return max(self._breaker_wait(model.upstream), self._key_wait(model))

    def _key_wait(self, model: ModelSettings) -> float:
        upstream = model.upstream
        if upstream.identity is not None:
            return self._token_source(upstream.identity).wait(self._loop.time(), model.id)
        ring = self._key_rings.get(upstream.name)
        return 0.0 if ring is None else ring.wait(self._loop.time(), model.id)

    def _token_source(self, identity: IdentitySettings) -> TokenSource:
        source = self._token_sources.get(identity)
        if source is None:
            source = self._token_sources[identity] = TokenSource(identity, self._loop, self._fetch)
        return source

    def tokens(self, upstream: UpstreamSettings) -> Collection[bytes]:
        """Returns the texts of the tokens that an upstream was sent. Empty if it has no identity."""
        source = None if upstream.identity is None else self._token_sources.get(upstream.identity)
        return frozenset() if source is None else source.secrets

    def _breaker_wait(self, upstream: UpstreamSettings) -> float:
        breaker = self._breakers.get(upstream.name)
        return 0.0 if breaker is None else breaker.wait(self._loop.time())

    # -- the operator's view --

    def conditions(
        self, live: Mapping[tuple[str, TargetKey], int]
    ) -> list[tuple[str, TargetKey, TargetCondition, int]]:
        """Returns every target: its model, its upstream and id, its condition, and its live streams.

        A model without targets has one target: its upstream.

        Args:
            live: The number of live streams, by model and target.
        """
        now = self._loop.time()
        found: list[tuple[str, TargetKey, TargetCondition, int]] = []
        for name, model in self.settings.models.items():
            streams = live.get((name, target_key(model)), 0)
            if name in self._alone and self._balancers[name].is_drained(target_key(model)):
                found.append((name, target_key(model), "draining" if streams else "drained", streams))
            elif name not in self._balancers:
                found.append((name, target_key(model), self._upstream_condition(model) or "ready", streams))
            else:
                found += [
                    (
                        name,
                        place,
                        target.condition(now, self._upstream_condition(target.model)),
                        target.live if model.targets else streams,
                    )
                    for place, target in self._balancers[name].targets.items()
                ]
        return found

    def _upstream_condition(self, model: ModelSettings) -> Literal["open", "cooling"] | None:
        """Returns why no requests are sent to the upstream of a target now. `None` if requests are sent."""
        if self._breaker_wait(model.upstream) > 0:
            return "open"
        return "cooling" if self._upstream_wait(model) > 0 else None

    def drain(self, model: str, upstream: str, identifier: str) -> bool:
        """Drains a target: its streams continue, and no other starts. Returns whether the target exists."""
        place = (upstream, identifier)
        alone = self.settings.models.get(model)
        if model not in self._balancers and alone is not None and target_key(alone) == place:
            self._put_alone(alone)
        balancer = self._balancers.get(model)
        return balancer is not None and balancer.drain(place)

    def restore(self, model: str, upstream: str, identifier: str) -> bool:
        """Restores a drained target. Returns whether the target exists."""
        place = (upstream, identifier)
        configured = self.settings.models.get(model)
        if configured is not None and not configured.targets:
            is_there = target_key(configured) == place
            if is_there and model in self._alone:
                self._balancers[model].restore(place, self._loop.time())
                self._placed_alone(configured)
            return is_there
        balancer = self._balancers.get(model)
        return balancer is not None and balancer.restore(place, self._loop.time())

    # -- a request --

    def open(
        self, spec: StreamSpec, receiver: Receiver, stream_id: str, number: int, key: Secret | None
    ) -> tuple[Adapter, Redact, OpenExchange]:
        """Sends a request to the upstream of a spec.

        Args:
            spec: One attempt.
            receiver: Gets the response.
            stream_id: The stream's id.
            number: The number of the attempt, from 1.
            key: The upstream's key.

        Returns:
            The adapter for the answer, the redaction of its errors for clients, and the open request.

        Raises:
            Error: The upstream cannot serve the request; nothing was sent. `internal` if a bug in the adapter was the
                cause; the bug is logged.
        """
        try:
            secret = None if key is None or spec.model.upstream.identity is not None else key.reveal()
            if spec.sharing is None:
                return self._open(spec, stream_id, number, secret, receiver)
            return spec.sharing.open(spec, receiver, partial(self._open, spec, stream_id, number, secret))
        except Exception as problem:  # noqa: BLE001  # a bug ends one request, with an answer
            raise unsent_error(problem, spec.model.upstream.name)  # noqa: B904  # compiled code sets no cause

    def _open(
        self, spec: StreamSpec, stream_id: str, number: int, key: str | None, receiver: Receiver
    ) -> tuple[Adapter, Redact, OpenExchange]:
        upstream = spec.model.upstream
        api = self._apis.get(upstream.provider)
        if api is None:  # a call of `get_provider` costs 600 instructions
            api = self._apis[upstream.provider] = get_provider(upstream.provider)
        target = self._target(spec, None if upstream.takes_credentials else key)
        if spec.left_out or spec.ignored:  # seldom: two loops over nothing cost 400 instructions
            for path in spec.left_out:
                target.changes.leave_out_unsaid(api.provider, path)
            for path in spec.ignored:
                target.changes.drop(path)
        if spec.chain is not None and spec.chain.hides_scores:
            for path in members_for_scores(spec.request):
                target.changes.drop(path)
        adapter: Adapter
        if spec.counts:
            adapter = TokenCount(api, spec.model.id)
        else:
            adapter = api.adapter_for(spec.request, spec.model.id, upstream.reasoning_tags)
        redact = self.redaction(
            upstream, spec.caller, keep_details=api.dialect == spec.dialect, credential=spec.credential
        )
        asked = self.refused_tools.fitted(spec) if spec.offered else spec.request
        if spec.is_large:
            # The spec's request may be dropped before it is written.
            work = partial(_written, api, spec, asked, target)
            send = partial(self._send_written, api, spec, asked, target, adapter, receiver, stream_id, number, key)
            return adapter, redact, WrittenExchange(receiver, self.beside.do(work, spec.caller), send, upstream.name)
        written = _written(api, spec, asked, target)
        exchange = self._send_written(api, spec, asked, target, adapter, receiver, stream_id, number, key, written)
        return adapter, redact, exchange

    def _send_written(
        self,
        api: API,
        spec: StreamSpec,
        asked: Request | dict[str, Any],
        target: Target,
        adapter: Adapter,
        receiver: Receiver,
        stream_id: str,
        number: int,
        key: str | None,
        request: UpstreamRequest,
    ) -> OpenExchange:
        """Sends a request that is written, now or once there is a token; arguments as for `Upstreams.send`."""
        upstream = spec.model.upstream
        if target.has_changes:
            adapter.changes = target.changes
            _log_changes(stream_id, upstream, target.changes)
        if spec.trace is not None:
            traced = self._traced(api, spec.model)
            request.headers = [*request.headers, *spec.trace.attempted(traced, asked)]
            request.is_unique = True
        if upstream.takes_credentials and spec.credential is not None and key is not None:
            request.is_unique = True  # heads of requests are kept
            own = [credential_header(api, spec.credential)]
            return self._upstreams.send(api, spec.model, request, receiver, stream_id, number, key, own, spec.caller)
        if upstream.identity is None:
            return self._upstreams.send(api, spec.model, request, receiver, stream_id, number, key, (), spec.caller)
        send = partial(self._send_with, api, spec.model, spec.caller, request, receiver, stream_id, number)
        place = f"count {spec.model.id}" if spec.counts else spec.model.id
        return self.open_with_grant(upstream, receiver, send, place, spec.caller)

    def _target(self, spec: StreamSpec, key: str | None) -> Target:
        model = spec.model
        target = Target(model.id, key, spec.on_unsupported, model.facts, model if is_tuned(model) else None)
        target.is_kept = spec.is_kept
        if spec.session is not None:
            target.cache_key = cache_key(spec.session)
        if not self._refused.is_empty:
            target.refused = self._refused.left_out(target_key(model), spec.caller, self._loop.time())
        if spec.without is not None and spec.without[0] == target_key(model):
            target.refused = [*target.refused, spec.without[1]]
        return target

    def leaves_out(self, spec: StreamSpec, error: Error) -> bool:
        """Leaves out the member that an upstream's error names, if the request can do without it.

        If the error is about a signature, the request loses its earlier reasoning. This is not remembered: the next
        conversation may have the upstream's own. Of members, `RefusedMembers` decides what is remembered.
        """
        if not spec.request or spec.counts:
            return False
        api = get_provider(spec.model.upstream.provider)
        if api.refuses_signatures(error):
            request, paths = api.without_thoughts(spec.request)
            if paths:
                spec.request, spec.shape = request, None
                spec.ignored = [*spec.ignored, *paths]
            return bool(paths)
        target = self._target(spec, None)
        known = {*target.refused}
        try:
            member = api.refused_member(spec.request, target, error)
        except Error:
            return False
        if member is None or member.path in known:
            return False
        place, name = target_key(spec.model), spec.model.upstream.name
        spec.without = place, member.path
        if member.is_lacking:
            now, path = self._loop.time(), member.path
            is_for_all = self._refused.note(place, path, spec.caller, now, is_ours=member.is_ours)
            whose = "" if is_for_all else f" of {spec.caller!r}"
            text = "upstream %s refuses %r of requests for %s: left out for an hour%s"
            logger.warning(text, name, path, spec.model.id, whose)
        return True

    def client_member(self, spec: StreamSpec, error: Error) -> str | None:
        """Returns the path of the client's member that an upstream refuses, as `API.client_member`."""
        if not spec.request or spec.counts or spec.is_large:  # it would be read and written again
            return None
        model = spec.model
        target = Target(model.id, None, "drop", model.facts, model if is_tuned(model) else None)
        body, parse = spec.translated or (None, None)
        return get_provider(model.upstream.provider).client_member(spec.request, target, error, body, parse)

    def _send_with(
        self,
        api: API,
        model: ModelSettings,
        caller: str,
        request: UpstreamRequest,
        receiver: Receiver,
        stream_id: str,
        number: int,
        grant: Grant,
    ) -> OpenExchange:
        """Sends a request with the credential of a grant; the other arguments as for `Upstreams.send`."""
        credential = grant.headers(request.method, model.upstream.base_url, request.path, request.body)
        secret = grant.secret.reveal()
        request.is_unique = request.is_unique or isinstance(grant, Signed)
        return self._upstreams.send(api, model, request, receiver, stream_id, number, secret, credential, caller)

    def open_with_grant(
        self, upstream: UpstreamSettings, receiver: Receiver, send: Send, place: str, caller: str
    ) -> OpenExchange:
        """Sends a request with a token of its upstream's identity, or lets it wait for one; as `TokenSource.open`.

        Args:
            upstream: An upstream with an identity.
            receiver: Gets the response.
            send: Sends the request.
            place: As for `TokenSource.next`, as the next one.
            caller: The caller.

        Raises:
            Error: As `open`.
        """
        assert upstream.identity is not None
        source = self._token_source(upstream.identity)
        return source.open(upstream, receiver, partial(_sent, upstream, send), place, caller)

    def redaction(
        self, upstream: UpstreamSettings, caller: str, *, keep_details: bool, credential: Credential | None = None
    ) -> ErrorRedaction:
        """Returns the redaction of an upstream's errors for a caller.

        Args:
            upstream: The upstream.
            caller: The caller's name.
            keep_details: As for `ErrorRedaction`.
            credential: As for `ErrorRedaction`.
        """
        tokens = None if upstream.identity is None else self.tokens
        shows_addresses = caller in self._operators
        return ErrorRedaction(upstream.name, (upstream,), keep_details, shows_addresses, tokens, credential)

    def _traced(self, api: API, model: ModelSettings) -> TracedTarget:
        return TracedTarget(
            operation=api.operation,
            provider=api.telemetry_name or api.provider,
            model=model.id,
            is_known=model.name in self.settings.models,
            upstream=model.upstream.name,
            base_url=model.upstream.base_url,
        )

    def attempt_failed(self, upstream: UpstreamSettings, error: Error, credential: Credential | None = None) -> None:
        """Warns of failures that only the operator can fix, even if a fallback hides them from clients.

        With keys, it also warns of those whose address callers do not see.
        """
        if is_callers(upstream, error):
            return
        secrets = self.tokens(upstream)
        if credential is not None:
            secrets = {*secrets, *secrets_of(credential.secret.reveal(), {})}
        shown = for_client(error, upstream.name, keep_details=True, secrets=secrets, setting=upstream.credential)
        text = str(shown)
        if shown.code == error.code:
            if not self.settings.needs_key or without_addresses(shown, upstream) is shown:
                return
            text = f"upstream {upstream.name!r}: {shown}"
        now = self._loop.time()
        if now >= self._silent_until.get(upstream.name, now):
            self._silent_until[upstream.name] = now + SHARED.warning_interval
            logger.warning("%s", text, extra={"once": SHARED.warning_interval})

    def failure_hidden(self, upstream: UpstreamSettings, error: Error, credential: Credential | None = None) -> None:
        """Logs a failure behind which another target is asked: no client hears of it."""
        now = self._loop.time()
        is_of_request = error.code in _OF_REQUESTS or is_callers(upstream, error)
        if is_of_request or now < self._silent_until.get(upstream.name, now):
            return
        self._silent_until[upstream.name] = now + SHARED.warning_interval
        secrets = self.tokens(upstream)
        if credential is not None:
            secrets = {*secrets, *secrets_of(credential.secret.reveal(), {})}
        shown = for_client(error, upstream.name, keep_details=True, secrets=secrets, setting=upstream.credential)
        text = "upstream %r at %s: %s; another target is asked in its place"
        logger.info(text, upstream.name, upstream.base_url, shown, extra={"once": SHARED.warning_interval})

    # -- breakers --

    def breaker(self, upstream: UpstreamSettings) -> Breaker | None:
        """Returns the upstream's breaker. `None` if the current configuration has none."""
        return self._breakers.get(upstream.name)

    def breaker_states(self) -> dict[str, str]:
        """Returns the states of the breakers by upstream."""
        now = self._loop.time()
        return {name: breaker.state(now) for name, breaker in self._breakers.items()}

    def breaker_opened(self, upstream: UpstreamSettings, error: Error) -> None:
        """Warns that no requests are sent to an upstream for a while."""
        seconds = upstream.breaker.open if upstream.breaker is not None else 0.0
        why = f"{error.code}, {error.reason}" if error.reason else error.code
        logger.warning("upstream %r keeps failing (%s): nothing is sent to it for %g s", upstream.name, why, seconds)
        pool, breaker = self._upstreams.last_pool(upstream.name), self._breakers.get(upstream.name)
        if error.phase == "connect" and error.reason == "connect" and pool is not None and breaker is not None:
            self._look_later(upstream.name, breaker, pool, pool.stats.opened)

    def _look_later(self, upstream: str, breaker: Breaker, pool: UpstreamPool, opened: int) -> None:
        former = self._breaker_looks.get(upstream)
        if former is not None:
            former.cancel()
        due, look = self._timers.clock() + LIMITS.breaker_check, partial(self._look_at, upstream, breaker, pool, opened)
        self._breaker_looks[upstream] = self._timers.schedule(due, look)

    def _look_at(self, upstream: str, breaker: Breaker, pool: UpstreamPool, opened: int) -> None:
        """Ends the wait of an open breaker once a connection to its upstream can be opened, which costs no token.

        Args:
            upstream: The upstream's name.
            breaker: The breaker, which opened because no connection could be made.
            pool: The connections to the upstream.
            opened: The number of connections opened before the breaker opened.
        """
        del self._breaker_looks[upstream]
        now = self._loop.time()
        if self._breakers.get(upstream) is not breaker or breaker.state(now) != "open":
            return
        stats = pool.stats
        if stats.opened > opened and stats.idle:  # the connection must last: a proxy may accept it without an upstream
            breaker.end_wait(now)
        elif stats.connecting or pool.connect_ahead():
            self._look_later(upstream, breaker, pool, opened)


def _upstreams(settings: Settings) -> dict[str, UpstreamSettings]:
    """Returns the upstreams of a configuration by name, including those that only a model has."""
    return {**{model.upstream.name: model.upstream for model in settings.models.values()}, **settings.upstreams}


def credential_header(api: API, credential: Credential) -> tuple[str, str]:
    """Returns the header with a caller's credential: a bearer goes up as a bearer, another one as the provider's own.

    Args:
        api: The provider.
        credential: The credential.
    """
    secret = credential.secret.reveal()
    return ("authorization", f"Bearer {secret}") if credential.is_bearer else api.key_header(secret)


def _beginnings(settings: Settings) -> dict[str, int]:
    """Returns the characters from which the texts of a request name its session, by model.

    Not of models where there is nothing to choose by a session: one target and one key, or rules that look at none.
    """
    found: dict[str, int] = {}
    for name, model in settings.models.items():
        asked = {each.name: each for each in settings.may_answer(model)}  # each with all its targets
        least = [one for one in map(_least_beginning, asked.values()) if one is not None]
        if least:
            found[name] = min(least)
    return found


def _least_beginning(model: ModelSettings) -> int | None:
    """Returns the same of one model; None if there is nothing to choose."""
    has_others = len(model.targets) > 1
    if has_others and model.balance == "affinity":
        return 1
    upstreams = [model.upstream, *[each.upstream for each in model.targets]]
    has_keys = any(each.more_api_keys and each.key_by == "session" for each in upstreams)
    return LIMITS.named_beginning if has_keys or (has_others and model.balance == "auto") else None


def _sent(upstream: UpstreamSettings, send: Send, grant: Grant) -> OpenExchange:
    """Sends a request with a grant; the other arguments as for `Targets.open_with_grant`.

    Raises:
        Error: As `Targets.open`.
    """
    try:
        return send(grant)
    except Exception as problem:  # noqa: BLE001  # a bug ends one request, with an answer
        raise unsent_error(problem, upstream.name)  # noqa: B904  # compiled code sets no cause


def _written(api: API, spec: StreamSpec, asked: Request | dict[str, Any], target: Target) -> UpstreamRequest:
    """Writes a request for its upstream. Of a large request this is done beside the loop."""
    if not isinstance(asked, dict):
        return api.build_request(asked, target)
    if spec.counts:
        return api.build_count(asked, target, spec.headers)
    return api.build_passthrough(asked, target, spec.headers, spec.shape)


def _log_changes(stream_id: str, upstream: UpstreamSettings, changes: Changes) -> None:
    # A path may contain text from the client: logged as a literal, it cannot end the line.
    if changes.dropped:
        paths = ", ".join([repr(path) for path in changes.dropped])
        more = f" and {changes.more_dropped} more" if changes.more_dropped else ""
        logger.info("stream %s: upstream %s has no place for %s%s: left out", stream_id, upstream.name, paths, more)
    if changes.adjusted:
        pairs = ", ".join([f"{path!r} is {value!r}" for path, value in changes.adjusted.items()])
        more = f" and {changes.more_adjusted} more" if changes.more_adjusted else ""
        logger.info("stream %s: changed for upstream %s: %s%s", stream_id, upstream.name, pairs, more)
