"""`Passage`: one request on its way to its upstream, and `Gate`, the interface of what it passes.

`gates.py` has the gates, their order and the walk; `kinds/` and `pass_through/routes.py` the kinds of requests.

1. A request is read once: bytes → body → request. Then it is planned: what its upstream is asked, and how its client is
   answered. Gates stand before, between and after these two steps.
2. A gate lets a request on at once, or returns what must be awaited. If no gate waits, no task is made.
3. What a gate takes for a request, such as a claim or a place, it gives back in `leave`: when the request has begun, or
   has failed, or its client has left.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mypy_extensions import mypyc_attr

from gai_fast.core.processing.processor import StreamInfo
from gai_fast.core.requests.gateway_calls import ApprovalAnswer, GivenDecision
from gai_fast.core.requests.stored_ids import StoredId
from gai_fast.core.requests.texts import Text
from gai_fast.guards.active import ActiveGuard, GuardCounts, Guards
from gai_fast.guards.input import InputCheck, LetThrough
from gai_fast.ledger import NO_DEMAND, Demand
from gai_fast.model.limits import SHARED
from gai_fast.net.attempts.spec import StreamSpec
from gai_fast.net.sharing.answers import SharedAnswer
from gai_fast.net.stream.new_texts import NewTexts, new_texts
from gai_fast.server.http.replies import Reply
from gai_fast.server.requests.chains import Found, Turn
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.stores import StreamLog

if TYPE_CHECKING:
    from gai_fast.net.runs.offers import RunOffer, RunTools, RunWish
    from gai_fast.server.admission.approval_answers import Decisions


class Answered(NamedTuple):
    """The result of a wait in which a gate has answered the request itself.

    Attributes:
        reply: The response. None if a stream has started, which answers.
    """

    reply: Reply | None


_NO_DEMAND: Final = NO_DEMAND

Wait = Callable[[], Coroutine[Any, Any, Answered | None]]
"""Begins what a gate waits for; its result is None if the request may go on."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Gate:
    """One of the conditions for a request, or one of the steps between them."""

    def admit(self, passage: Passage) -> Wait | None:
        """Lets a request on, or returns what must be awaited before.

        Args:
            passage: The request.

        Raises:
            Error: The request is refused.
        """
        raise NotImplementedError

    def leave(self, passage: Passage) -> None:
        """Gives back what `admit` has taken for a request, unless its stream has it now.

        Args:
            passage: The request, which has called `hold`.
        """
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Passage:
    """One request on its way; a subclass is a kind of request.

    Args:
        incoming: The request.

    Attributes:
        rest: Reads the rest of a large body, where that takes long: shares nothing that changes with the loop. None if
            there is no rest.
        linked: Its body, if it may name earlier responses or items of them, until its conversation is whole.
        turn: What it goes on from, once its conversation is whole; None if it names nothing of the kind.
        named: The ids that its caller must own, from `read` on.
        key: Its idempotency key, and `body` with it until it is digested. None if it has none.
        body: The body of a request with a key.
        is_parsed: Its body is parsed, if it is large in parts.
        chat: The id of the chat whose stream it starts; empty if there is none.
        stream_id: The id of the stream that it starts, from `plan` on; empty if it starts none.
        demand: What it may use of its caller's limits, from `plan` on.
        spec: What it asks for, from `plan` on; None if its bytes are passed on.
        wants_shared: Its client wants an answer that others share.
        may_share: Its answer may be one that others share.
        sharing: The way to such an answer, if other processes may have it.
        log: The log of its durable stream, once that has started.
        decisions: What it has decided about calls of an earlier response. None if that is nothing.
        given: What it decides about calls of a run that waits, from `read` on: the run's stream answers it.
    """

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming
        self.rest: Callable[[], None] | None = None
        self.linked: dict[str, Any] | None = None
        self.turn: Turn | None = None
        self.named: Sequence[StoredId] = ()
        self.key: str | None = None
        self.body = b""
        self.is_parsed = True
        self.chat = ""
        self.stream_id = ""
        self.demand: Demand = _NO_DEMAND
        self.spec: StreamSpec | None = None
        self.wants_shared = False
        self.may_share = False
        self.sharing: SharedAnswer | None = None
        self.log: StreamLog | None = None
        self.decisions: Decisions | None = None
        self.given: Sequence[GivenDecision] = ()
        self._held: list[Gate] | None = None

    # -- the kind of request --

    def read(self) -> None:
        """Reads the body.

        Raises:
            Error: It is no request.
        """
        raise NotImplementedError

    def named_model(self) -> str:
        """Returns the model that it names; empty if it names none, or has not been read."""
        return ""

    def name_ids(self) -> None:
        """Fills `named`; called after `rest`."""

    def may_go_up(self) -> bool:
        """Returns whether an upstream that may answer has its dialect, and so may know what is not kept here.

        Raises:
            Error: There is no such model.
        """
        return False

    def join(self, body: dict[str, Any], found: Found) -> None:
        """Reads the body with the whole conversation. As `rest`, it shares nothing that changes with the loop.

        Args:
            body: Its `linked`.
            found: What it names.

        Raises:
            Error: The conversation cannot be joined.
        """
        raise NotImplementedError

    def run_wish(self, tools: RunTools) -> RunWish | None:
        """Returns what it may use of the gateway's tools, if it is a run.

        Args:
            tools: The tools.

        Raises:
            Error: It asks for what it may not use.
        """
        return None

    def answers(self) -> Sequence[ApprovalAnswer]:
        """Returns its answers to requests for approvals, if it is a run."""
        return ()

    def plan_run(self, offer: RunOffer) -> None:
        """Plans a run; as `plan`.

        Args:
            offer: What it offers.
        """
        self.incoming.run = offer
        self.plan()

    def plan(self) -> None:
        """Chooses the model, and makes what its upstream is asked.

        Raises:
            Error: There is no such model, or the request cannot be answered as its client wants.
        """
        raise NotImplementedError

    def guarded(self, guards: Guards) -> Sequence[ActiveGuard]:
        """Returns the guards that look at the request's texts.

        Args:
            guards: All guards.

        Raises:
            Error: A guard holds that cannot look.
        """
        return ()

    @property
    def is_long(self) -> bool:
        """Whether the texts are found beside the loop; after `plan`."""
        return False

    def texts(self) -> Sequence[Text]:
        """Returns the request's texts. As `rest`, it shares nothing that changes with the loop."""
        raise NotImplementedError

    def use_texts(self, new: NewTexts) -> None:
        """Goes on with other texts. It may have a `rest` then. As `rest`, it shares nothing that changes with the loop.

        Args:
            new: The texts.
        """
        raise NotImplementedError

    def plan_again(self, let: LetThrough) -> None:
        """Plans the same stream once more, with what guards have let through; as `plan`.

        Args:
            let: What they have let through.
        """
        raise NotImplementedError

    def check(self, looking: Sequence[ActiveGuard], texts: Sequence[Text], counts: GuardCounts) -> InputCheck:
        """Returns the check of the request's texts, which has had no turn.

        Args:
            looking: The guards that look at them, in their order.
            texts: The result of `texts`.
            counts: Counts what the guards do.
        """
        return InputCheck(looking, [string for text in texts for string in text.strings], self.info(), counts)

    def use_checked(self, texts: Sequence[Text], check: InputCheck) -> None:
        """Goes on with what guards have let through of the texts; as `use_texts`.

        Args:
            texts: The result of `texts`.
            check: Their check, which has ended.
        """
        new = new_texts(texts, check)
        if new is not None:
            self.use_texts(new)

    def plan_checked(self, check: InputCheck) -> None:
        """Plans the stream once more if guards have found something.

        Args:
            check: The check of the request, which has ended.
        """
        let = check.let_through()
        if let is not None:
            self.plan_again(let)

    def info(self) -> StreamInfo:
        """Returns whose request it is, for guards; after `plan`."""
        raise NotImplementedError

    def begin(self) -> Reply | None:
        """Starts the admitted request, and answers its client.

        Returns:
            The response. None if a stream has started, which answers.

        Raises:
            Error: It cannot start.
        """
        raise NotImplementedError

    def follow(self, log: StreamLog) -> Reply | None:
        """Answers with the stream of an earlier request with the same key; otherwise as `begin`.

        Args:
            log: The stream's log.
        """
        raise NotImplementedError

    def response(self) -> StreamResponse:
        """Returns the response, for a gate that waits."""
        raise NotImplementedError

    def note_refusal(self) -> None:
        """Notes what the line of a refused request shows."""
        self.incoming.named_model = self.named_model()[: SHARED.model_name]

    # -- what its gates have taken --

    def hold(self, gate: Gate) -> None:
        """Notes that a gate has taken something: its `leave` is called.

        Args:
            gate: The gate.
        """
        if self._held is None:
            self._held = []
        self._held.append(gate)

    def leave(self) -> None:
        """Lets each gate give back what it has taken, the last one first."""
        held, self._held = self._held, None
        if held is not None:
            for gate in reversed(held):
                gate.leave(self)
