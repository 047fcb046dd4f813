"""What answers a request for a number of tokens whose upstream counts none: an estimate.

Owns which upstreams are known to count none. An upstream of the dialect is asked first; if it has no such route, the
client gets an estimate all the same, and the upstream is not asked again for `limits.uncounted_for`.

1. Only what no client could have caused is remembered: the method and the path are the gateway's, the model is one of
   the configuration, and the refusal names nothing of the request.
2. It holds for the model alone: an upstream may be several servers behind one address.
"""

from __future__ import annotations

from collections.abc import Callable

from gai_fast.core.reading import estimated_tokens
from gai_fast.formats import ClientRequest
from gai_fast.model.errors import Error
from gai_fast.model.settings import ModelSettings
from gai_fast.providers import missing_route
from gai_fast.server.http.replies import Reply
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.incoming import Incoming

_Place = tuple[str, str, str, str]


class TokenCounts:
    """The estimates of one server.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._uncounted: dict[_Place, float] = {}  # until when

    def counts_none(self, model: ModelSettings, route: str) -> bool:
        """Returns whether a model's upstream is known to have no such route.

        Args:
            model: The model, with its target.
            route: The path of the request.
        """
        until = self._uncounted.get(_place(model, route)) if self._uncounted else None
        return until is not None and self._clock() < until

    def estimate(self, incoming: Incoming, asked: ClientRequest) -> Reply:
        """Returns the answer with an estimate.

        Args:
            incoming: The request.
            asked: Its body, read.
        """
        dialect = incoming.format
        reply = incoming.json_reply(dialect.count_body(estimated_tokens(dialect.counted_characters(asked))))
        reply.headers = [*reply.headers, ("x-gai-usage-source", "estimated")]
        return reply

    def instead(
        self, incoming: Incoming, asked: ClientRequest, model: ModelSettings, *, is_configured: bool
    ) -> Callable[[Error], Reply | None]:
        """Returns what answers in place of an upstream's error; None if the client gets the error.

        Args:
            incoming: The request.
            asked: Its body, read.
            model: The model, with its target.
            is_configured: Whether the configuration names the model: a client may write any other.
        """

        def answer(error: Error) -> Reply | None:
            missing = missing_route(error)
            if missing == "no":
                return None
            if missing == "surely" and is_configured:
                if len(self._uncounted) >= LIMITS.uncounted:
                    self._uncounted.clear()
                self._uncounted[_place(model, incoming.path)] = self._clock() + LIMITS.uncounted_for
            return self.estimate(incoming, asked)

        return answer


def _place(model: ModelSettings, route: str) -> _Place:
    upstream = model.upstream
    return upstream.name, upstream.base_url, model.id, route
