"""One request that is passed through: the bytes of its body to an upstream, the bytes of the response back.

Owns its attempts, its response and its figures. Called by the loop; awaits nothing.

1. A failed attempt is followed by another one by the rules of streams (`net/attempts/candidates.py`), if the upstream
   has not been sent the request yet, or the request may come twice (`repetition.py`), and only with a body that was
   read whole. The same upstream is asked again if nothing was answered: an answer of any status is an answer. With
   `targets`, an error of one is a failure too, and other targets are asked until a byte of an answer has come.
2. A response is streamed, and paused if its client is slow. A short one is sent whole, with its length.
3. A response that breaks after its head was sent ends with its connection: it never looks complete. Before that it is
   an error. It is charged if any of its body has come.
4. An upstream's error goes back unchanged, unless it refuses our credentials or quotes them.
5. If the client disconnects, the upstream's connection is closed at once.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from gai_fast.core.requests.reading import estimated_usage
from gai_fast.core.usage import Known, absurd_count, completed, most_tokens
from gai_fast.kernels import FastPath
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import Outcome, StreamMetrics
from gai_fast.model.money import UNIT, Charge, cost_member, cost_of, decimal_text
from gai_fast.model.settings import UpstreamSettings
from gai_fast.net.attempts.attempt import AttemptPlaces
from gai_fast.net.attempts.candidates import LEFT_ALONE
from gai_fast.net.engine.engine import PASS_THROUGH, Engine
from gai_fast.net.engine.targets import credential_header
from gai_fast.net.identity.grant import Grant, Signed
from gai_fast.net.logs.writer import ResponseWriter
from gai_fast.net.sockets.sockets import unsent_error
from gai_fast.net.upstream.connection import Exchange, OpenExchange, Receiver
from gai_fast.providers import Target, UpstreamRequest, get_provider, missing_route
from gai_fast.server.http.replies import CommonHeaders, Headers, PassedHead, PassedReply
from gai_fast.server.limits import LIMITS
from gai_fast.server.pass_through.calls import NextCalls, PassedCall
from gai_fast.server.pass_through.headers import GUARDS, for_client, for_upstream, may_be_passed
from gai_fast.server.pass_through.upload import BodyUpload
from gai_fast.server.pass_through.usage import UsageReader, text_characters
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.stream_response import answering_headers, session_headers

COMPACT: Final = "/v1/responses/compact"
"""The route whose upstream may not have it, though it has all others of its API."""
_FAILED: Final = 400
_SERVER_FAILED: Final = 500
_WITHOUT_BODY: Final = (204, 304)
_ANSWERED: Final = ("redirect", "content_encoding")
"""Reasons of answers that are refused: an upstream that answers is well, and a caller has chosen the path."""
_clock: Final = time.perf_counter  # a constant: looking a name up in a module costs 30 ns
_NO_HEADERS: Final[dict[str, str]] = {}
_NO_KEY: Final = Target("")


class Transfer(Receiver):
    """One such request, its `Receiver` at the upstream and the `StreamCallbacks` of its client.

    Args:
        engine: Counts it, and has the upstreams.
        incoming: The request.
        call: What is asked for.
        stream_id: Its id.
        is_retry: Whether the client itself repeats the request.
    """

    def __init__(self, engine: Engine, incoming: Incoming, call: PassedCall, stream_id: str, *, is_retry: bool) -> None:
        self._engine = engine
        self._incoming = incoming
        self._call = call
        self._stream_id = stream_id
        self._is_retry = is_retry
        self._now: Callable[[], float] = engine.timers.clock
        self._client = incoming.http.transport
        self._writer: ResponseWriter  # from `_commit` on
        self._began = _clock()
        self._attempts = 0
        self._exchange: OpenExchange | None = None
        self._upload: BodyUpload | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next: NextCalls | None = None  # from the first failure on
        self._place: str
        self._places: AttemptPlaces
        self._use(call)
        self._status = 0  # the upstream's; 0 before its head
        self._headers = _NO_HEADERS
        self._held: bytes | None = None  # of a response that is not streamed yet
        self._usage: UsageReader | None = None  # from the head on
        self._first_byte: float | None = None
        self._received = self._sent = 0
        self._paused_at: float | None = None
        self._paused = 0.0
        self._absurd_tokens = 0
        self._is_hurried = False  # whether its head is awaited for a shorter time than the rest
        self._is_owed = False  # its client has left, and the upstream may have the request
        self._has_ended = False

    def start(self) -> None:
        """Starts.

        Raises:
            Error: A limit of the server refuses it, or nothing can be sent to its upstream now.
        """
        incoming, stream = self._incoming, self._call.stream
        self._engine.begin_transfer(self._stream_id, incoming.http.caller, self.fail)
        self._client.begin_stream(self, stream.client_buffer, stream.write_timeout)
        now = self._now()
        self._engine.targets.policy.budget(self._call.upstream.name).request(now)
        self._attempt(now)

    def fail(self, error: Error) -> None:
        """Ends with an error: as the response, or by ending the connection if the response has begun."""
        if not self._has_ended:
            self._close()
            self._places.leave(self._now(), is_finished=False)
            self._end_with(error)

    # ---- attempts

    def _use(self, call: PassedCall) -> None:
        """Makes a call the one that is asked next."""
        incoming, model = self._incoming, call.model
        self._call = call
        self._place = f"{incoming.http.method} {call.path.partition('?')[0]}" if model is None else model.id
        self._places = AttemptPlaces(
            self._engine.targets,
            call.upstream,
            incoming.http.caller,
            self._place,
            call.session,
            incoming.http.credential,
            is_model=model is not None,
        )

    def _ask(self) -> None:
        """Makes the next attempt."""
        self._timer = None
        self._attempt(self._now())

    def _attempt(self, now: float) -> None:
        """Makes an attempt; if its upstream is left alone, at the first target that is not.

        Raises:
            Error: It is the first, and nothing can be sent.
        """
        targets = self._engine.targets
        refused: Error | None = None
        while True:
            call = self._call
            self._attempts += 1
            try:
                self._places.enter(call.model, now)
                opened = self._open(call.upstream)
            except Error as error:
                self._places.leave(now, is_finished=False)
                refused = refused or error
            else:
                self._exchange = opened
                if self._attempts == 1 and call.model is not None:
                    self._places.note_move(call.model)
                if call.at is not None and call.is_repeatable and call.upstream.idle_timeout == "auto":
                    self._give_up_sooner(call, opened)
                if self._next is not None and self._next.is_first():
                    targets.policy.budget(call.upstream.name).request(now)
                return
            self._attempts -= 1
            may_follow = call.at is not None and (self._attempts or refused.reason in LEFT_ALONE)
            other = self._next_calls(now).other() if may_follow else None
            if other is None:
                if not self._attempts:
                    self._has_ended = True
                    self._engine.transfer_ended(self._measure("refused", refused), None)
                    raise refused
                self._end_with(refused)
                return
            self._use(other)

    def _give_up_sooner(self, call: PassedCall, opened: OpenExchange) -> None:
        """Shortens the silence before an answer, if another target is left: as rule 6 of `net/attempts/attempts.py`."""
        targets = () if call.model is None else call.model.targets
        if len(targets) > 1 if self._next is None else self._next.has_others():
            opened.limit_silence(SHARED.patience_with_others)
            self._is_hurried = True

    def _open(self, upstream: UpstreamSettings) -> OpenExchange:
        """Sends the request of an attempt, with a token if the upstream has an identity.

        Raises:
            Error: As `Targets.open`.
        """
        if upstream.identity is not None:
            caller, targets = self._incoming.http.caller, self._engine.targets
            return targets.open_with_grant(upstream, self, self._send, self._place, caller)
        try:
            return self._send(None)
        except Exception as problem:  # noqa: BLE001  # a bug ends one request, with an answer
            raise unsent_error(problem, upstream.name)  # noqa: B904  # compiled code sets no cause

    def _next_calls(self, now: float) -> NextCalls:
        if self._next is None:
            call, targets, caller = self._call, self._engine.targets, self._incoming.http.caller
            commit_by = now - (_clock() - self._began) + call.stream.commit_after
            self._next = NextCalls(targets, call, caller, self._attempts, commit_by, is_retry=self._is_retry)
        return self._next

    def _plans_another(self, error: Error, now: float, *, has_key: bool, was_sent: bool) -> bool:
        """Plans another attempt after a failed one, and returns whether there is one: rule 1.

        Args:
            error: The failure.
            now: Monotonic seconds.
            has_key: Whether the upstream has another key, which may do better.
            was_sent: Whether the upstream may have got the request.
        """
        if self._incoming.http.upload is not None or (was_sent and not self._call.is_repeatable):
            return False
        planned = self._next_calls(now).after(error, now, has_key=has_key)
        if planned is None:
            return False
        call, delay = planned
        self._status, self._headers, self._held, self._usage, self._first_byte = 0, _NO_HEADERS, None, None, None
        self._received = 0
        if call is not self._call:
            if call.upstream is not self._call.upstream:
                targets = self._engine.targets
                targets.failure_hidden(self._call.upstream, error, self._incoming.http.credential)
            self._use(call)
        self._timer = asyncio.get_running_loop().call_later(delay, self._ask)
        return True

    def _send(self, grant: Grant | None) -> Exchange:
        """Sends the request of an attempt.

        Args:
            grant: Gives the credential, if it comes from an identity.

        Raises:
            Error: The request cannot be sent.
        """
        call, upstream, http = self._call, self._call.upstream, self._incoming.http
        source = http.upload
        is_signed = grant is not None and isinstance(grant, Signed)  # asked of None this costs 1,700 instructions
        if source is not None and is_signed:
            text = f"upstream {upstream.name!r} wants bodies that are signed, {LIMITS.whole_upload} bytes at most"
            raise Error("unsupported", text, reason="signature")
        own = [] if grant is None else grant.headers(http.method, upstream.base_url, call.path, call.body)
        headers = self._request_headers(own)
        is_own = is_signed or upstream.takes_credentials  # heads of repeated requests are kept
        if source is None and http.repeated is not None and call.is_repeatable and not is_own:
            send_again = self._engine.upstreams.send_repeated
            return send_again(upstream, http.method, call.path, headers, call.body, self, http.caller)
        request, send = UpstreamRequest(call.path, call.body, headers, http.method), self._engine.upstreams.send_once
        if source is None:
            return send(upstream, request, self, http.caller, None, -1, call.is_repeatable)
        upload = self._upload = BodyUpload(source, self.fail, call.check)
        request.body = upload.framed(request.body)
        exchange = send(upstream, request, self, http.caller, upload, upload.length, call.is_repeatable)
        upload.start(exchange)
        return exchange

    def _request_headers(self, credential: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        upstream, http, key = self._call.upstream, self._incoming.http, self._places.key
        api = get_provider(upstream.provider)
        callers = http.credential if upstream.takes_credentials else None
        if callers is not None:
            key, credential = None, [credential_header(api, callers)]
        known = http.repeated
        if known is not None and known.upstream is upstream and known.key is key and not credential:
            return known.headers
        secret = None if key is None or upstream.identity is not None else key.reveal()
        own = [item for item in api.headers(_NO_KEY) if item[0].lower() not in ("content-type", "accept")]
        if secret:
            own.append(("authorization", f"Bearer {secret}") if self._call.wants_bearer else api.key_header(secret))
        headers = tuple(for_upstream(http.headers, [*own, *credential], upstream.headers))
        if known is not None and not credential:
            known.upstream, known.key, known.headers = upstream, key, headers
        return headers

    def _failed(self, error: Error, *, was_sent: bool) -> None:
        """Reports a failed attempt, and makes another one if nothing was answered: rule 1.

        Args:
            error: The failure.
            was_sent: Whether the upstream may have got the request.
        """
        targets, upstream, now, has_key = self._engine.targets, self._call.upstream, self._now(), False
        if error.reason in _ANSWERED:
            self._places.leave(now, is_finished=True)
        else:
            has_key = self._places.failed(error, now)
        targets.attempt_failed(upstream, error, self._incoming.http.credential)
        is_begun = bool(self._received) or self._is_committed
        if not is_begun and self._plans_another(error, now, has_key=has_key, was_sent=was_sent):
            return
        redact = targets.redaction(
            upstream, self._incoming.http.caller, keep_details=False, credential=self._incoming.http.credential
        )
        shown = redact(error)
        if self._next is not None:
            self._next.shorten_wait(shown)
        self._end_with(shown)

    # ---- Receiver

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        """Works as `Receiver.head_received`."""
        self._status, self._headers = status, headers
        if self._is_hurried and self._exchange is not None:
            self._is_hurried = False
            self._exchange.limit_silence(self._call.upstream.peer.idle_timeout)
        places = self._places
        if status < _SERVER_FAILED:
            places.succeeded()
        if status < _FAILED:
            places.served()
            if places.target_request is not None:
                places.target_request.answered(self._now())
        self._usage = UsageReader(headers.get("content-type", ""))
        length = headers.get("content-length")
        is_short = length is not None and length.isdecimal() and int(length) <= LIMITS.short_answer
        if is_short or status >= _FAILED or status in _WITHOUT_BODY or self._incoming.http.method == "HEAD":
            self._held = b""
        else:
            self._commit()

    def body_received(self, data: bytes) -> FastPath | None:
        """Works as `Receiver.body_received`."""
        if not data:
            return None
        if self._first_byte is None:
            self._first_byte = _clock() - self._began
        self._received += len(data)
        if self._held is None:
            self._write(data)
            return None
        self._held = self._held + data if self._held else data
        if len(self._held) > LIMITS.short_answer and not self._is_replaced(self._held):  # a long error
            held, self._held = self._held, None
            self._commit()
            self._write(held)
        return None

    def exchange_ended(self, error: Error | None) -> None:
        """Works as `Receiver.exchange_ended`."""
        exchange, self._exchange = self._exchange, None
        if self._upload is not None:
            self._upload.stop()
        if error is not None:
            self._failed(error, was_sent=exchange is None or exchange.sent or exchange.resent)
            return
        if self._status < _FAILED:
            places = self._places
            places.leave(0.0 if places.target_request is None else self._now(), is_finished=True)
            self._after(self._measure("finished"))
        elif self._held is None or not self._is_replaced(self._held):
            self._places.leave(self._now(), is_finished=self._status < _SERVER_FAILED)
            self._after(self._measure("failed"))

    # ---- the response

    @property
    def _is_committed(self) -> bool:
        """Whether the head of the response was sent."""
        return bool(self._status) and self._held is None

    def _is_replaced(self, body: bytes) -> bool:
        """Returns whether the client does not get an upstream's error: another target is asked, or by rule 4.

        Args:
            body: The error's body, or its first bytes.
        """
        call, targets, now = self._call, self._engine.targets, self._now()
        upstream, has_targets = call.upstream, call.at is not None
        error = get_provider(upstream.provider).decode_error(self._status, self._headers, body)
        if has_targets:  # as for streams
            has_key = self._places.failed(error, now)
        else:
            self._places.refused(error, now)
        targets.attempt_failed(upstream, error, self._incoming.http.credential)
        if has_targets and self._plans_another(error, now, has_key=has_key, was_sent=True):
            self._close_exchange()
            return True
        refusal: Error | None
        if call.endpoint == COMPACT and missing_route(error) != "no":
            text = f"upstream {upstream.name!r} compacts no conversation: ask a model of one that does"
            refusal = Error("unsupported", text, reason="compact")
        else:
            redact = targets.redaction(
                upstream, self._incoming.http.caller, keep_details=True, credential=self._incoming.http.credential
            )
            shown = redact(error, body)
            refusal = None if shown is error else shown
        if refusal is not None:
            self.fail(refusal)
        elif self._next is not None:
            self._shorten_wait(error)
        return refusal is not None

    def _shorten_wait(self, error: Error) -> None:
        """Names the shortest wait of all targets in the error of the last one."""
        asked = error.retry_after_ms
        if self._next is not None:
            self._next.shorten_wait(error)
        wait = error.retry_after_ms
        if wait is not None and wait != asked:
            self._headers = {**self._headers, "retry-after": str(math.ceil(wait / 1000))}
            self._headers.pop("retry-after-ms", None)

    def _head(self, more: Headers = ()) -> PassedHead:
        """Returns the headers of the response, with those that it has alone."""
        call, incoming = self._call, self._incoming
        own = [*incoming.answer_headers, *session_headers(call.session)] if call.session else incoming.answer_headers
        names = tuple([name for name, _ in own]) if own else ()
        model = "" if call.model is None else call.model.name
        common = _common_headers(may_be_passed(self._headers), names, model, call.upstream.name)
        return PassedHead(self._status, incoming.http.request_id, self._stream_id, [*own, *more], common)

    def _commit(self) -> None:
        head, framing = self._client.commit(self._head())
        self._writer = ResponseWriter(self._client)
        self._writer.start(head, framing)

    def _write(self, data: bytes) -> None:
        if self._usage is not None:
            self._usage.feed(data)
        self._sent += len(data)
        self._writer.write((data,))

    def _finish(self) -> None:
        """Ends a complete response."""
        if self._held is None:
            self._writer.end(())
            self._client.answered(self._status)
            return
        metrics, has_length = self._incoming.http.metrics, self._incoming.http.method != "HEAD"
        cost = None if metrics is None else metrics.cost
        head = self._head() if cost is None else self._head((("x-gai-cost", decimal_text(cost)),))
        self._client.send(PassedReply(head, self._held, has_length=has_length))

    def _end_with(self, error: Error) -> None:
        """Ends with an error: rule 3."""
        is_begun = self._is_committed
        metrics = self._measure("failed", error)
        if is_begun:
            self._after(metrics, self._client.abort)
            return
        own: Headers = [("x-gai-stream-id", self._stream_id), *session_headers(self._call.session)]
        reply = self._incoming.refusal(error, own)
        self._after(metrics, lambda: self._client.send(reply))

    def _after(self, metrics: StreamMetrics, finish: Callable[[], object] | None = None) -> None:
        """Reports the figures, and then finishes the response: by `_finish`, unless it must be another way."""
        self._has_ended = True
        self._incoming.http.metrics = metrics
        waits = self._engine.transfer_ended(metrics, self._incoming.http.trace)
        if waits is not None:
            done = self._finish if finish is None else finish
            waits.add_done_callback(lambda _: done())
        elif finish is None:
            self._finish()
        else:
            finish()

    def _close(self) -> None:
        """Ends the attempt, or the wait for the next one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._upload is not None:
            self._upload.stop()
        self._close_exchange()

    def _close_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()

    # ---- figures

    def _measure(self, outcome: Outcome, error: Error | None = None) -> StreamMetrics:
        call, incoming, now = self._call, self._incoming, _clock()
        self._end_pause(now)
        usage, charges = self._cost(outcome)
        code = None if error is None else error.code
        if code is None and outcome == "failed":
            code = get_provider(call.upstream.provider).decode_error(self._status, {}, b"").code
        return StreamMetrics(
            duration=now - self._began,
            time_to_first_token=self._first_byte if self._status < _FAILED else None,
            upstream_time_to_first_token=self._first_byte if self._status < _FAILED else None,
            backpressure=self._paused,
            bytes_in=self._received,
            bytes_out=self._sent if self._held is None else len(self._held),
            outcome=outcome,
            code=code,
            reason=None if error is None else error.reason,
            usage=usage,
            provider=call.upstream.provider.partition(":")[0],
            upstream=call.upstream.name,
            session=call.session,
            upstream_key=self._places.key_place,
            model="" if call.model is None else call.model.name,
            endpoint=call.endpoint,
            transport=PASS_THROUGH,
            stream_id=self._stream_id,
            request_id=incoming.http.request_id,
            trace_id=incoming.trace_id,
            retries=max(0, self._attempts - 1),
            key=incoming.http.caller,
            cost=charges[0].amount if charges else None,
            currency=charges[0].currency if charges else "",
            charges=charges,
            absurd_tokens=self._absurd_tokens,
        )

    def _cost(self, outcome: Outcome) -> tuple[dict[str, Any] | None, tuple[Charge, ...]]:
        """Returns the tokens and the cost of what the upstream has answered, or works on for a client that left.

        Of an answer that breaks they are what the upstream has counted, else an estimate: as of a stream.
        """
        call = self._call
        if not (self._status or self._is_owed) or self._status >= _FAILED:
            return None, ()
        if outcome == "failed" and not self._received:
            return None, ()
        source = "estimated" if outcome == "finished" else "partial"
        usage = None if self._usage is None else self._usage.usage(self._held or b"")
        if not (usage and usage.get("total_tokens", 1)) and call.is_metered:  # LM Studio counts nothing: 0
            usage = estimated_usage(text_characters(call.body), 0, source)
        elif usage is not None:
            usage = self._measured(usage, source)
            if outcome != "finished":
                usage["source"] = source
        price = call.price
        if price is None:
            return usage, ()
        amount = min(cost_of(usage or {}, price) + price.request + call.images * price.image, SHARED.charge * UNIT)
        if usage is not None:
            usage["cost"] = cost_member(amount, price.currency)
        provider = call.upstream.provider.partition(":")[0]
        return usage, (Charge(provider, call.upstream.name, amount, price.currency),)

    def _measured(self, usage: dict[str, Any], source: str) -> dict[str, Any]:
        """Returns a usage in which an estimate stands for a count that is missing or absurd (`core/usage.py`)."""
        into, out = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
        is_usual = isinstance(into, int) and isinstance(out, int) and into + out <= SHARED.usual_tokens
        if is_usual and "total_tokens" in usage:
            return usage  # nearly all
        model = self._call.model
        window = None if model is None else get_provider(model.upstream.provider).window(model)
        known = Known(len(self._call.body), self._received, window, zero_counts=True)
        self._absurd_tokens = absurd_count(usage, most_tokens(known))
        if "total_tokens" in usage and not self._absurd_tokens:
            return usage
        return completed(usage, replace(known, prompt=text_characters(self._call.body)), source)

    # ---- StreamCallbacks

    def connection_lost(self) -> None:
        """Works as `StreamCallbacks.connection_lost`: rule 5."""
        if self._has_ended:
            return
        self._is_owed = self._exchange is not None and self._exchange.sent
        self._close()
        self._places.leave(self._now(), is_finished=False)
        self._after(self._measure("disconnected"), _nothing)

    def pause_writing(self) -> None:
        """Works as `StreamCallbacks.pause_writing`: rule 2."""
        if self._exchange is not None:
            self._paused_at = _clock()
            self._exchange.pause_reading()

    def resume_writing(self) -> None:
        """Works as `StreamCallbacks.resume_writing`."""
        self._end_pause(_clock())
        if self._exchange is not None:
            self._exchange.resume_reading()

    def _end_pause(self, now: float) -> None:
        if self._paused_at is not None:
            self._paused += now - self._paused_at
            self._paused_at = None


def _nothing() -> None: ...


_Given = tuple[tuple[str, str], ...]
_KNOWN: Final[dict[str, tuple[_Given, tuple[str, ...], str, CommonHeaders]]] = {}
"""By upstream: the arguments and the result of the last call of `_joined_headers`."""


def _common_headers(given: _Given, own: tuple[str, ...], model: str, upstream: str) -> CommonHeaders:
    """Works as `_joined_headers`, whose cache costs 1,000 instructions, if the last response had the same."""
    known = _KNOWN.get(upstream)
    if known is not None and known[0] == given and known[1] == own and known[2] == model:
        return known[3]
    if len(_KNOWN) >= SHARED.known_values:
        _KNOWN.clear()
    headers = _joined_headers(given, own, model, upstream)
    _KNOWN[upstream] = given, own, model, headers
    return headers


@lru_cache(SHARED.known_values)
def _joined_headers(given: _Given, own: tuple[str, ...], model: str, upstream: str) -> CommonHeaders:
    """Returns the headers that responses of a model have in common, or of an upstream's own paths if it is empty."""
    who = answering_headers(model, upstream, False) if model else (("x-gai-upstream", upstream),)
    return CommonHeaders((*for_client(given, own), *who, *GUARDS))
