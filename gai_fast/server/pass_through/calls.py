"""`PassedCall`: the upstream call of a request that is passed through, and the next call after a failed attempt.

Owns how such a request looks to `net/attempts/candidates.py`, whose rules hold for streams too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from gai_fast.model.errors import Error
from gai_fast.model.settings import ModelSettings, Price, StreamSettings, UpstreamSettings
from gai_fast.net.attempts.attempt import AttemptRunner
from gai_fast.net.attempts.candidates import Candidates

_NO_FALLBACKS: Final[dict[str, str]] = {}


class PassedCall:
    """A request that is passed on.

    Args:
        upstream: The upstream.
        path: The path below its base URL, with its query.
        body: The body, or its first bytes if the request has an upload.
        stream: The settings of the response.
        endpoint: The route, as a label.

    Attributes:
        model: The model that the request names, with its target. None if it is not known.
        price: The model's price. None if it has none.
        is_metered: Whether the answer should have counts: without them, the text of the request is charged.
        check: Called with further bytes of the body, and with none at its end; raises an `Error` if they name what its
            caller must not. None if all may be sent.
        images: The number of images that are asked for.
        session: The digest of the session that the request names; empty if it names none.
        is_repeatable: Whether the upstream may get it twice.
        wants_bearer: Whether the upstream wants the key as `Authorization: Bearer`, whatever its own header is.
        at: Returns the call for another target of the model; raises an `Error` if it has no such route. None if there
            is no other target.
    """

    def __init__(
        self, upstream: UpstreamSettings, path: str, body: bytes, stream: StreamSettings, endpoint: str
    ) -> None:
        self.upstream = upstream
        self.path = path
        self.body = body
        self.stream = stream
        self.endpoint = endpoint
        self.model: ModelSettings | None = None
        self.price: Price | None = None
        self.is_metered = False
        self.images = 0
        self.check: Callable[[bytes], object] | None = None
        self.session = ""
        self.is_repeatable = False
        self.wants_bearer = False
        self.at: Callable[[ModelSettings], PassedCall] | None = None


class AskedCall:
    """A call as `Candidates` sees it: an `Asked`.

    Args:
        call: The call.
        model: The model that it names, with its target; or any with its upstream.
        caller: The name of the caller.
        is_retry: Whether the client itself repeats the request.

    Attributes:
        call: As above.
        caller: As above.
        is_retry: As above.
        model: As above, without fallbacks: another model's embeddings cannot be compared with those that a client has.
        home: The session of the call, by which targets and keys are found.
    """

    def __init__(self, call: PassedCall, model: ModelSettings, caller: str, *, is_retry: bool) -> None:
        self.call = call
        self.model: ModelSettings = replace(model, fallback=(), fallback_on=_NO_FALLBACKS)
        self.caller: str = caller
        self.is_retry: bool = is_retry
        self.home: str = call.session

    def again(self, *, has_begun: bool) -> AskedCall:
        """Works as `Asked.again`."""
        return self

    def to(self, model: ModelSettings, *, has_begun: bool) -> AskedCall:
        """Works as `Asked.to`."""
        at = self.call.at
        if at is None:
            raise Error("unsupported", "an upstream's own paths have no other target")
        return AskedCall(at(model), model, self.caller, is_retry=self.is_retry)


class NextCalls:
    """The calls that may follow a failed attempt. Made for the first failure: most requests have none.

    Args:
        targets: Choose among targets, and have the budgets.
        call: The call that has failed.
        caller: The name of the caller.
        attempts: Attempts so far.
        commit_by: As for `Candidates`.
        is_retry: Whether the client itself repeats the request.
    """

    def __init__(
        self, targets: AttemptRunner, call: PassedCall, caller: str, attempts: int, commit_by: float, *, is_retry: bool
    ) -> None:
        model = call.model or ModelSettings("", call.upstream, "", call.stream)
        self._asked = AskedCall(call, model, caller, is_retry=is_retry)
        self._candidates = Candidates(targets, targets.settings, self._asked.model, commit_by)
        self._candidates.at_model = self._candidates.at_target = attempts

    def after(self, error: Error, now: float, *, has_key: bool) -> tuple[PassedCall, float] | None:
        """Returns the call after a failed one, and the seconds until it. None if there is none.

        Args:
            error: The failure.
            now: Monotonic seconds.
            has_key: As for `Candidates.after`.
        """
        after = self._candidates.after(error, self._asked, now, has_begun=False, has_content=False, has_key=has_key)
        if after is None:
            return None
        self._asked = after[0]
        return after[0].call, after[1]

    def has_others(self) -> bool:
        """Returns whether another target is left; as `Candidates.has_others`."""
        return self._candidates.has_others(self._asked.model)

    def other(self) -> PassedCall | None:
        """Returns the call for another target, in place of one that could not be made. None if there is none."""
        other = self._candidates.following(self._asked, has_begun=False)
        if other is None:
            return None
        self._asked = other
        return other.call

    def is_first(self) -> bool:
        """Notes an attempt, and returns whether it is the first one at its target."""
        candidates = self._candidates
        candidates.at_model += 1
        candidates.at_target += 1
        return candidates.at_target == 1

    def shorten_wait(self, error: Error) -> None:
        """Names the shortest wait in the last failure; as `Candidates.shorten_wait`."""
        self._candidates.shorten_wait(error, self._asked.model)
