"""The figures of one stream, read from its relay and its attempts. Reading them changes nothing."""

from __future__ import annotations

from gai_fast.core.relay import Relay
from gai_fast.model.metrics import Outcome, StreamMetrics
from gai_fast.model.money import total_of
from gai_fast.net.attempts.attempts import Attempts
from gai_fast.net.limits import LIMITS


def figures_of(relay: Relay, attempts: Attempts, model: str, outcome: Outcome) -> StreamMetrics:
    """Returns the figures of a stream without its times, which `StreamMeter.end` adds.

    Args:
        relay: The stream's relay.
        attempts: The stream's attempts.
        model: The name of the model that the client requested.
        outcome: How the stream ends.
    """
    spec, end = attempts.spec, relay.end
    usage = end.get("usage")
    if usage is None and (relay.has_content or (outcome == "disconnected" and not end)):
        usage = relay.usage_so_far()
    if usage:
        usage = relay.usage_here(usage)
    charges = relay.charges_so_far()
    total = total_of(charges)
    error = None if outcome == "finished" else relay.error
    metrics = StreamMetrics(
        outcome=outcome,
        events=relay.deltas + relay.others,
        code=None if error is None else error.code,
        finish_reason=end.get("finish_reason"),
        usage=usage,
        provider=end.get("provider") or attempts.upstream.provider.partition(":")[0],
        upstream=spec.answering,
        model=model,
        answered_by=end.get("model", ""),
        response_id=relay.response_id,
        endpoint=spec.endpoint,
        transport=spec.transport,
        stream_id=attempts.stream_id,
        request_id=spec.request_id,
        trace_id=spec.trace_id,
        retries=attempts.retries,
        fallbacks=attempts.fallbacks,
        key=spec.caller,
        cost=None if total is None else total[0],
        currency="" if total is None else total[1],
        charges=charges,
        cache=None if spec.sharing is None else spec.sharing.role,
    )
    if error is not None:
        metrics.reason = error.reason
    if spec.session is not None:
        metrics.session = spec.session.digest
    attempt = attempts.attempt
    if attempt is not None:
        if metrics.cache in (None, "miss"):  # else no upstream was asked
            metrics.upstream_key = attempt.key_place
        if attempt.adapter.changes is not None:
            metrics.dropped = tuple(attempt.adapter.changes.dropped[: LIMITS.logged_changes])
    if attempts.bill.absurd_tokens:
        metrics.absurd_tokens = attempts.bill.absurd_tokens
    return metrics
