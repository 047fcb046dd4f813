"""The gates of requests that ask an upstream, in their one order.

Owns the order, the walk, and the condition of each gate: the check that costs a request without it next to nothing. The
modules named next to the gates own the awaited work. The route table (`routes/table.py`) says which gates a route has.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final, Literal

from gai_fast.model.errors import Error
from gai_fast.net.engine.engine import Engine
from gai_fast.runtime.beside import Beside
from gai_fast.server.admission.asking import admit, check_owner
from gai_fast.server.admission.run_requests import list_tools
from gai_fast.server.http.replies import Reply
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.caching import shared_answer
from gai_fast.server.requests.chains import Chains
from gai_fast.server.requests.chats import ChatClaims
from gai_fast.server.requests.durable import DurableRoutes
from gai_fast.server.requests.early import EarlyChecks, read_rest
from gai_fast.server.requests.guarding import InputGuards
from gai_fast.server.requests.idempotency import IdempotencyKeys
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.passage import Gate, Passage, Wait
from gai_fast.server.requests.pending import PendingAnswers, Work
from gai_fast.server.requests.stream_response import StreamResponse

GateName = Literal[
    "early limits", "chains", "named ids", "idempotency", "guards", "shared answers", "admission", "chat"
]

_EARLY_CHECK: Final[int] = LIMITS.early_check


class _EarlyLimits(Gate):
    """`early limits`: a large body is read only for a caller with a request and a stream left; `early.py`.

    Args:
        checks: The checks.
        takes_key: As for `EarlyChecks.admit`.
    """

    def __init__(self, checks: EarlyChecks, *, takes_key: bool) -> None:
        self._checks = checks
        self._takes_key = takes_key

    def admit(self, passage: Passage) -> Wait | None:
        if len(passage.incoming.http.body) <= _EARLY_CHECK or not passage.is_parsed:
            return None
        return self._checks.admit(passage.incoming, takes_key=self._takes_key)


class _Read(Gate):
    """The step from the body to the request. What takes long of it is done beside the loop."""

    def __init__(self, beside: Beside) -> None:
        self._beside = beside

    def admit(self, passage: Passage) -> Wait | None:
        passage.read()
        return None if passage.rest is None else partial(read_rest, passage, self._beside)


class _Chains(Gate):
    """`chains`: a request that names an earlier response, or items of one, gets its whole conversation; `chains.py`."""

    def __init__(self, chains: Chains) -> None:
        self._chains = chains

    def admit(self, passage: Passage) -> Wait | None:
        return None if passage.linked is None else partial(self._chains.join, passage)


class _NamedIds(Gate):
    """`named ids`: a caller names only what it got here from an upstream; `admission/stored_ids.py`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def admit(self, passage: Passage) -> Wait | None:
        if not passage.named:
            return None
        return partial(check_owner, self._engine.store.ids, passage.incoming.http.caller, passage.named)


class _Plan(Gate):
    """The step from the request to what its upstream is asked. A run waits for the lists of its tools.

    A request that decides about a run that waits asks no upstream: that run's stream answers it. One that names many
    tools is compared with the lists only if no limit refuses it.
    """

    def __init__(self, engine: Engine, durable: DurableRoutes, checks: EarlyChecks) -> None:
        self._engine = engine
        self._durable = durable
        self._checks = checks

    def admit(self, passage: Passage) -> Wait | None:
        if passage.given:
            return partial(self._durable.go_on, passage)
        tools = self._engine.run_tools
        if tools is not None:
            wish = passage.run_wish(tools)
            if wish is not None:
                caller = passage.incoming.http.caller
                look = partial(self._checks.look, passage.incoming, passage.key) if wish.names_many else None
                return partial(list_tools, tools, wish, passage.answers(), caller, passage.plan_run, look)
        passage.plan()
        return None


class _Idempotency(Gate):
    """`idempotency`: a repeated request is answered by the stream of the first; `idempotency.py`."""

    def __init__(self, keys: IdempotencyKeys) -> None:
        self._keys = keys

    def admit(self, passage: Passage) -> Wait | None:
        return None if passage.key is None else partial(self._keys.claim, passage, self)

    def leave(self, passage: Passage) -> None:
        self._keys.started(passage)


class _Guards(Gate):
    """`guards`: what must not be said is not sent up; `guarding.py`. A repeated request has been answered before."""

    def __init__(self, engine: Engine, checks: EarlyChecks) -> None:
        self._engine = engine
        self._checks = checks
        self._later = InputGuards(engine)

    def admit(self, passage: Passage) -> Wait | None:
        guards = self._engine.guards
        if guards is None:
            return None
        looking, later = passage.guarded(guards), self._later
        if not looking:
            return None
        if not self._checks.has_room(passage.incoming):
            return partial(later.wait, passage, looking, must_look=True)
        if passage.is_long:
            return partial(later.wait, passage, looking)
        texts = passage.texts()
        check = passage.check(looking, texts, self._engine.guarding.tallies)
        try:
            waits = bool(check.judges) or check.is_long or not check.turn()
        except Error as problem:
            return partial(later.refuse, passage, problem)
        if waits:
            return partial(later.go_on, passage, texts, check)
        passage.use_checked(texts, check)
        if passage.rest is not None:
            return partial(later.plan, passage, check)
        passage.plan_checked(check)
        return None


class _SharedAnswers(Gate):
    """`shared answers`: an answer that others have asked for is looked for; `caching.py`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def admit(self, passage: Passage) -> Wait | None:
        spec = passage.spec
        if spec is None or not (passage.wants_shared and passage.may_share):
            return None
        spec.sharing = sharing = shared_answer(self._engine, passage.incoming.http.caller)
        if sharing is None or not sharing.must_claim(spec):
            return None
        passage.sharing = sharing
        passage.hold(self)
        return partial(sharing.claim, spec)

    def leave(self, passage: Passage) -> None:
        if passage.sharing is not None:
            passage.sharing.release()


class _Admission(Gate):
    """`admission`: the limits of the caller's key and of the server count a request; `admission/asking.py`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def admit(self, passage: Passage) -> Wait | None:
        incoming, stream_id = passage.incoming, passage.stream_id
        if not stream_id:
            return None  # it starts no stream
        engine, key, caller = self._engine, incoming.http.key, incoming.http.caller
        limits = engine.limits
        is_shared = limits is not None and limits.ledger is not None  # by workers; else `Engine.start` decides
        # A chat waits for the store before it starts: without a place of its own, other requests would take the room.
        must_ask = is_shared and (bool(passage.chat) or engine.must_ask(caller))
        if key is None and not must_ask:
            return None  # counted nowhere before it starts
        passage.hold(self)
        if not must_ask and (key is None or engine.ledger.try_take(key, stream_id, passage.demand)):
            return None
        return partial(admit, engine, key, caller, stream_id, passage.demand)

    def leave(self, passage: Passage) -> None:
        """Takes the request off the count if its stream has not started."""
        self._engine.cancel_admission(passage.stream_id, passage.incoming.http.caller)


class _Chat(Gate):
    """`chat`: the chat's id finds the stream from now on; `chats.py`."""

    def __init__(self, claims: ChatClaims) -> None:
        self._claims = claims

    def admit(self, passage: Passage) -> Wait | None:
        return partial(self._claims.take, passage, self) if passage.chat else None

    def leave(self, passage: Passage) -> None:
        self._claims.started(passage)


class _Approvals(Gate):
    """Decides what a run's client has answered, once nothing else can refuse it: `admission/approval_answers.py`.

    The names of a run's tools are checked here: a repeated request has been answered before, whatever lists have since.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def admit(self, passage: Passage) -> Wait | None:
        offer = passage.incoming.run
        if offer is None:
            return None
        offer.check_names()
        if not offer.answered:
            return None
        from gai_fast.server.admission.approval_answers import Decisions  # most requests have none

        passage.decisions = decisions = Decisions(offer)
        passage.hold(self)
        return decisions.take

    def leave(self, passage: Passage) -> None:
        decisions = passage.decisions
        if decisions is not None and passage.stream_id not in self._engine.streams:
            decisions.give_back()


class Gates:
    """The gates of one server.

    Args:
        engine: The engine with the limits, the store and the streams.
        durable: Knows the streams of all workers. None: those of this process.
    """

    def __init__(self, engine: Engine, durable: DurableRoutes | None = None) -> None:
        self._engine = engine
        self._checks = EarlyChecks(engine)
        self._durable = durable or DurableRoutes(engine)
        self._chains = Chains(engine, self._durable.is_running, self._checks.look, read_rest)
        self._pending = PendingAnswers()
        self._keys = IdempotencyKeys(engine.store)
        self._chats = ChatClaims(engine.store)

    def of(self, names: frozenset[GateName]) -> tuple[Gate, ...]:
        """Returns the gates with these names, and the steps between them, in the order of all requests.

        Args:
            names: The names of a route's gates.
        """
        engine = self._engine
        order: tuple[tuple[str, Gate], ...] = (
            ("early limits", _EarlyLimits(self._checks, takes_key="idempotency" in names)),
            ("", _Read(engine.targets.beside)),
            ("chains", _Chains(self._chains)),
            ("named ids", _NamedIds(engine)),
            ("", _Plan(engine, self._durable, self._checks)),
            ("idempotency", _Idempotency(self._keys)),
            ("guards", _Guards(engine, self._checks)),
            ("shared answers", _SharedAnswers(engine)),
            ("admission", _Admission(engine)),
            ("chat", _Chat(self._chats)),
            ("", _Approvals(engine)),
        )
        return tuple([gate for name, gate in order if not name or name in names])

    def wait(self, incoming: Incoming, work: Work) -> None:
        """Answers a request that has no gates once its answer is found."""
        response = StreamResponse(incoming, "", "", self._engine.settings.stream, whole=False)
        self._pending.add(incoming, response, work)

    def walk(self, passage: Passage, gates: tuple[Gate, ...]) -> Reply | None:
        """Lets a request pass its gates, and starts it.

        Args:
            passage: The request.
            gates: The gates of its route.

        Returns:
            The response. None if a stream has started, or a gate waits: the answer comes later.

        Raises:
            Error: The request is refused.
        """
        left = iter(gates)
        wait: Wait | None = None
        try:
            wait = go_on(passage, left)
            if wait is None:
                return passage.begin()
        except Error:
            passage.note_refusal()
            raise
        finally:
            if wait is None:
                passage.leave()
        self._pending.walk(passage, wait, partial(go_on, passage, left))
        return None


def go_on(passage: Passage, left: Iterator[Gate]) -> Wait | None:
    """Lets a request pass the gates that are left.

    Args:
        passage: The request.
        left: The gates that it has not passed; those that it passes are taken.

    Returns:
        What must be awaited before the next one. None if all let the request on: then it may begin.

    Raises:
        Error: A gate refuses the request.
    """
    for gate in left:
        wait = gate.admit(passage)
        if wait is not None:
            return wait
    return None
