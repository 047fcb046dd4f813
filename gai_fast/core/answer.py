"""One response of an upstream: its body, its frames, their events, and their cost. Sans-IO.

Owns everything of one attempt: a new attempt is a new `UpstreamAnswer`. The relay decides which events the client gets,
in which order, and how the stream ends. Must not know providers or client formats.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

from gai_fast.core.account import Account
from gai_fast.core.adapter import Adapter
from gai_fast.core.body import Body, BodyKind, unavailable
from gai_fast.core.json.chunks import (
    WRONG_SHAPE,
    UnreadChunks,
    closed,
    has_unread_text,
    is_unfinished,
    keep_unread,
    parse_chunk,
    with_null_bytes,
)
from gai_fast.core.json.limits import LIMITS as JSON
from gai_fast.core.learning import Learning
from gai_fast.core.limits import LIMITS
from gai_fast.core.requests.reading import characters_of, estimated_tokens, estimated_usage
from gai_fast.core.sinks import DeltaSink
from gai_fast.core.transcript import Transcript
from gai_fast.core.usage import Known, absurd_count, completed, most_tokens, rest_of, sum_of
from gai_fast.kernels import ArrayFramer, DeltaCopier, Frame, LineFramer, SSEFramer
from gai_fast.model.errors import Error, Malformed
from gai_fast.model.events import NO_CONTENT, Event
from gai_fast.model.halves import Halves, join
from gai_fast.model.limits import SHARED
from gai_fast.model.money import Charge, amount_of, cost_member, total_of


class Progress(enum.Enum):
    """The progress of an answer."""

    AWAITED = "awaited"  # no event yet
    BEGUN = "begun"  # events, but no content
    CONTENT = "content"  # content, repeated content included


_AWAITED: Final[Progress] = Progress.AWAITED
_CONTENT: Final[Progress] = Progress.CONTENT
_UNKNOWN: Final[BodyKind] = BodyKind.UNKNOWN


class UpstreamAnswer:
    """Reads one response of an upstream for the relay.

    Args:
        adapter: Reads the provider's chunks.
        deltas: Receives copied deltas. `None` if deltas may not be copied.
        passes: Whether frames are passed on unchanged.
        on_malformed: As for `Relay`.
        redact: As for `Relay`.
        prompt_characters: As for `Relay`.
        transcript: As for `Relay`.
        account: As for `Relay`.
        goes_on: Whether the answer continues the delivered content of another attempt.
        characters: The characters of that content.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        deltas: DeltaSink | None,
        passes: bool,
        on_malformed: Literal["skip", "error"],
        redact: Callable[[Error, bytes], Error] | None,
        prompt_characters: int | None,
        transcript: Transcript | None,
        account: Account | None,
        goes_on: bool = False,
        characters: int = 0,
    ) -> None:
        self._generated = 0  # characters of this attempt, repeated ones included; counted if there is a transcript
        self._goes_on = goes_on
        self._has_come = False  # a part of a JSON answer that was cut off
        self._is_read = False  # the JSON answer, or the part that has arrived
        self._learning: Learning | None = None
        self._malformed_run = 0
        self._on_malformed: Literal["skip", "error"] = on_malformed
        self._passes = passes
        self._prompt_characters = prompt_characters
        self._redact = redact
        self._unread: UnreadChunks | None = None  # created on demand: 500 instructions
        self.account = account
        """The charges of the attempt. `None` if nothing is charged, or no upstream has been asked so far."""
        self.adapter = adapter
        self.body = Body(adapter.api)
        self.characters = characters
        """The characters that the client has received, including those of the attempt that this one continues."""
        self.former: dict[str, Any] | None = None
        self.recalled: dict[str, Any] | None = None
        """The usage of the turns before, if the stream is a run in a later turn."""
        self.recalled_charges: tuple[Charge, ...] = ()
        """What those of `recall_turns` cost, which was charged before."""
        self.copier = DeltaCopier(
            SSEFramer() if adapter.api.framing == "sse" else LineFramer(),
            passes,
            adapter.members.text,
            adapter.members.ignored,
            adapter.members.kept,
            adapter.members.label,
        )
        # A client that reads the upstream's own frames has the response's headers only.
        self.early_warnings: list[Event] = [] if passes or adapter.changes is None else [adapter.changes.warning()]
        """Warnings held back until `start`."""
        self.halves: Halves = {}
        """High surrogates that wait for the next delta of their place."""
        self.is_strict = on_malformed == "error"
        self.oversized = ""
        """The error text of a frame that was too large; no frame follows it."""
        self.progress = _AWAITED
        self.transcript = transcript
        self.learn_for(deltas)

    def next_attempt(
        self,
        adapter: Adapter,
        *,
        deltas: DeltaSink | None,
        passes: bool,
        redact: Callable[[Error, bytes], Error] | None,
        account: Account | None,
        goes_on: bool,
    ) -> UpstreamAnswer:
        """Returns the answer of the stream's next attempt. For the arguments see the class."""
        answer = UpstreamAnswer(
            adapter,
            deltas=deltas,
            passes=passes,
            on_malformed=self._on_malformed,
            redact=redact,
            prompt_characters=self._prompt_characters,
            transcript=self.transcript,
            account=account,
            goes_on=goes_on,
            characters=self.characters if goes_on else 0,
        )
        answer.former, answer.recalled, answer.recalled_charges = self.former, self.recalled, self.recalled_charges
        return answer

    def expect_turn(self, prompt_characters: int | None) -> None:
        """Notes that the next attempt is the first one of another turn.

        Args:
            prompt_characters: As for the class.
        """
        self._prompt_characters = prompt_characters
        if self.transcript is not None:
            self.transcript.forget()

    def recall_turns(self, usages: Sequence[dict[str, Any]]) -> None:
        """Notes the usage of turns that were charged before: their costs are told, and not charged again."""
        former, charges = _sum_of_turns(usages)
        self.former = self.recalled = former or None
        self.recalled_charges = charges

    def learn_for(self, deltas: DeltaSink | None) -> None:
        """Enables copied deltas for a sink. `None` if deltas may not be copied."""
        self._learning = None
        if deltas is not None and self.adapter.members.text and not self.body.is_array:
            self._learning = Learning(self.adapter, deltas, self.copier)

    # -- the body --

    def receive(self, data: bytes) -> bytes:
        """Receives bytes of a body that is not yet known to be a stream.

        Returns:
            The stream's bytes among them, if the body is a stream.

        Raises:
            Error: The body is markup, or too large.
        """
        body = self.body
        is_new = body.kind is _UNKNOWN
        frames = body.feed(data)
        if is_new and body.is_array:
            self.copier = DeltaCopier(ArrayFramer(), self._passes)
            self._learning = None  # frames of a JSON array are never copied
        return frames

    def read_whole(self) -> list[Event]:
        """Reads a complete JSON answer to a streamed request.

        Raises:
            Error: The answer is an error.
            WRONG_SHAPE: The JSON is not an answer.
        """
        self.body.mend(with_null_bytes)
        text = self.body.text()
        answer = parse_chunk(text)
        self._is_read = True
        failure = self.adapter.api.read_failure(answer)
        if failure is not None:
            raise self.adapter.error(failure)
        events = self.adapter.receive_whole(answer, text)
        if self.is_strict and is_partly_read(events):
            raise partly_read()
        self._keep_unread(text)
        return events

    def error_of_whole(self, problem: Exception) -> Error:
        """Returns the error for a JSON answer that `read_whole` cannot read, for example because it is cut off."""
        return self.adapter.truncated() if is_unfinished(self.body.text()) else self.no_answer(problem)

    def _read_cut_off(self) -> None:
        """Reads the received part of a JSON answer that ends early. It is charged, but not delivered."""
        body = self.body
        if self._is_read or not body.is_document:
            return
        self._is_read = True
        text = body.text()
        answer = closed(text)
        events: list[Event] = []
        if answer is not None and self.adapter.api.read_failure(answer) is None:
            with suppress(Error, *WRONG_SHAPE):
                events = self.adapter.receive_whole(answer)
        came = sum([characters_of(event) for event in events]) if len(text) <= JSON.cut_off_answer else len(text)
        self._has_come = came > 0 or bool(self.adapter.usage)
        self.characters += came
        self._generated += came

    def no_answer(self, problem: Exception) -> Error:
        """Returns the error for a JSON document that is not an answer."""
        return self.unavailable("malformed_chunk", f"answered with JSON that is not an answer: {_worded(problem)}")

    # -- frames --

    def next_frames(self, seq: int, now_ms: Any) -> list[Frame] | None:
        """Returns the next frames that were not copied. `None` if the bytes fed so far contain no more frames.

        If a frame is too large, sets `oversized` and returns the frames before it: the result must not depend on how
        reads split the body.

        Args:
            seq: The number of the stream's last event.
            now_ms: Milliseconds since the epoch, an `int`: typed so, compiled code would make a new object of it.
        """
        try:
            return self.copier.next(seq, now_ms)
        except ValueError as problem:
            self.oversized = str(problem)
            before: list[Frame] = getattr(problem, "before", [])
            return before

    def receive_text(self, index: int | None, text: str) -> Event | None:
        """Works as `Adapter.receive_text`."""
        event = self.adapter.receive_text(index, text)
        if event is not None:
            self._malformed_run = 0
        return event

    def read_stray(self, stray: str) -> list[Event]:
        """Reads lines that are not SSE. Some servers send their error this way, with or without `error:` before it.

        Raises:
            Error: The lines report a failure.
            Malformed: The lines begin like JSON and are not JSON, or are a chunk that may hold text.
        """
        text = stray.removeprefix("error:").strip()
        if not text.startswith(("{", "[")):
            return []
        failure = self.adapter.api.read_failure(parse_chunk(text))
        if failure is not None:
            raise self.adapter.error(failure)
        if self.may_have_lost_text(text):
            raise Malformed("a chunk is no event of SSE")
        return []

    def note_read(self, frame: Frame, events: list[Event]) -> None:
        """Records a parsed chunk, so that similar frames can be copied.

        Args:
            frame: The chunk's frame.
            events: The events of the chunk, already sent to the sink.
        """
        self._malformed_run = 0
        if self.progress is not _CONTENT:
            if frame.data is not None:
                self._keep_unread(frame.data)
        elif self._unread is not None and self._unread.chunks:
            self._unread.chunks = []
        if self._learning is not None:
            has_content = self.progress is _CONTENT
            self._learning.receive(frame, events, joins=bool(self.halves), has_content=has_content)

    def _keep_unread(self, data: str) -> None:
        if not self._passes:  # a client that gets the chunks has their text
            self._unread = keep_unread(self._unread, data)

    def note_copied(self, deltas: DeltaSink, kinds: list[tuple[Event, int, str]]) -> int:
        """Accounts for copied deltas.

        Args:
            deltas: The sink that receives them.
            kinds: The result of `DeltaCopier.take_copied`.

        Returns:
            The code points of their visible text.
        """
        visible = 0
        self.progress = _CONTENT
        self._malformed_run = 0
        adapter = self.adapter
        for event, characters, text in kinds:
            self.characters += characters
            adapter.copied(event, characters, text)
            kind = event["type"]
            if deltas.collects_text or (kind == "tool.call.delta" and deltas.has_blocks):
                deltas.copied(event, text)
            if kind == "text.delta" and "choice" not in event:
                visible += characters
        if adapter.members.kept:
            for name, text in self.copier.take_kept().items():
                adapter.kept(name, text)
        return visible

    def may_have_lost_text(self, data: str) -> bool:
        """Returns whether an unreadable chunk may have held text of the answer.

        Args:
            data: The chunk's text.
        """
        if self.adapter.word():  # the text was whole before the finish reason
            return False
        try:
            chunk = parse_chunk(data)
        except WRONG_SHAPE:  # no JSON
            return True
        if isinstance(chunk, dict):
            may_have = self.adapter.may_hold_text(chunk)
            if not may_have and self.progress is not _CONTENT:
                self._keep_unread(data)
            return may_have
        return isinstance(chunk, (list, str)) and bool(chunk)

    def refuse_malformed(self, problem: Exception, *, may_have_lost_text: bool) -> Error | None:
        """Counts a malformed chunk.

        Args:
            problem: Why not.
            may_have_lost_text: Whether it may have held text; an answer without it would not be whole.

        Returns:
            The error that ends the attempt. `None` if the chunk is left out.
        """
        self._malformed_run += 1
        if may_have_lost_text or self.is_strict or self._malformed_run >= LIMITS.malformed_chunks:
            return self.unavailable("malformed_chunk", f"sent what cannot be read: {_worded(problem)}")
        # If the adapter made a `start` for this chunk, it was lost with the chunk.
        self.adapter.started = self.progress is not _AWAITED
        return None

    def holds_back(self, warning: Event) -> bool:
        """Returns whether a warning comes before the first event: it is held back until `start`, within limits."""
        if self.progress is not _AWAITED:
            return False
        if len(self.early_warnings) < LIMITS.early_warnings:
            self.early_warnings.append(warning)
        return True

    # -- errors --

    def client_error(self, error: Error, raw: bytes = b"") -> Error:
        """Returns the error that clients may see.

        Args:
            error: The error.
            raw: The frame that reports it, if there is one.
        """
        return error if self._redact is None else self._redact(error, raw)

    def is_hidden(self, frame: Frame) -> bool:
        """Returns whether a frame after the end has an error that the client must not see."""
        if self._redact is None or frame.data is None:
            return False
        try:
            failure = self.adapter.failure(parse_chunk(frame.data), frame.name)
        except WRONG_SHAPE:
            return False
        error = None if failure is None else self.adapter.error(failure)
        return error is not None and self.client_error(error, frame.raw) is not error

    def unavailable(self, reason: str, what: str) -> Error:
        """Returns the error for an answer that the client cannot use. For the arguments see `body.unavailable`."""
        return unavailable(self.adapter.api, reason, what)

    # -- content --

    def finish(self) -> list[Event]:
        """Returns the last events, after the end mark or the end of the body.

        Raises:
            Error: As `Adapter.finish`, or the answer is empty: no content, finish reason or usage has come. Or all of
                its text is in members that the adapter does not know.
        """
        events = self.adapter.finish()
        if self.progress is not _CONTENT and not self._goes_on and not self.halves:
            if _is_empty(events):
                raise self.unavailable("empty_answer", "ended the answer without any content, finish reason or usage")
            if all(event["type"] in NO_CONTENT for event in events) and has_unread_text(self._unread):
                raise self.unavailable("malformed_chunk", "sent an answer whose text is in none of the known members")
        if "usage" not in events[-1] and self._prompt_characters is not None:
            events[-1]["usage"] = estimated_usage(self._prompt_characters, self.characters, "estimated")
        return events

    def compared(self, transcript: Transcript, event: Event, characters: int) -> Event | None:
        """Returns the part of an event that the client lacks. `None` if the client has all of it.

        Args:
            transcript: The delivered content.
            event: The event.
            characters: The characters of its content.

        Raises:
            Error: The event differs from the delivered content.
        """
        self._generated += characters
        return transcript.take(event)

    def released(self, transcript: Transcript, event: Event) -> str:
        """Returns the text that a transcript has held back and that belongs before an event; it is compared again."""
        held = transcript.release(event)
        self._generated -= len(held)
        return held

    def joined(self, event: Event, key: str, text: str) -> tuple[Event, str]:
        """Works as `halves.join`.

        Args:
            event: The delta.
            key: The key of its text.
            text: The text.
        """
        event, text = join(self.halves, event, key, text)
        if self.halves:
            # The next delta must be joined with the surrogate, so it must not be copied.
            self.copier.forget()
        return event, text

    # -- usage and cost --

    def partial_usage(self, *, has_started: bool) -> dict[str, Any]:
        """Returns the usage up to an end that the provider did not send: its last count, or an estimate.

        Args:
            has_started: Whether the stream has had its `start`.
        """
        self._read_cut_off()
        counted = self.adapter.usage
        if self._prompt_characters is None or not (has_started or counted or self._has_come):
            return {} if not counted else {**counted} if self._is_final(counted) else {**counted, "source": "partial"}
        return self._counted_or_estimated(self.characters, "partial")

    def usage_so_far(self) -> dict[str, Any] | None:
        """Returns the usage, with the cost, of a stream whose client disconnects now. `None` if nothing was sent."""
        account, usage = self.account, self._usage_so_far()
        if self.former is not None and account is not None:
            usage = self.former if account.is_closed else sum_of(self.former, usage or {})
        return None if account is None or not usage else self._with_all_costs(usage)

    def charges_so_far(self) -> tuple[Charge, ...]:
        """Returns the charges of a stream whose client disconnects now; after its end, the stream's charges."""
        account = self.account
        if account is None or account.is_closed:
            return () if account is None else account.bill.charges
        return account.bill.charges_with(account, account.charge_of(self._usage_so_far(), self.adapter.own_cost))

    def close_account(self, *, is_abandoned: bool) -> None:
        """Closes the account of an attempt that fails, or ends without an event.

        Args:
            is_abandoned: Whether the attempt is abandoned while the upstream works on it: its prompt is then charged.
        """
        account = self.account
        if account is not None and not account.is_closed:
            account.bill.give_up_others(account)
            self._read_cut_off()
            account.close(self._usage_so_far() if is_abandoned or self._has_content else None, self.adapter.own_cost)

    def priced(self, event: Event) -> Event:
        """Returns the end with the stream's cost in its usage, for processors, which may still change the usage.

        They get the provider's own counts, so that one of them may count what the provider has not.
        """
        account, usage = self.account, event.get("usage")
        if account is not None and usage:
            event["usage"] = usage = account.with_searches(usage, self.adapter.searches)
            own = self._usage_at(event, self._measured(usage, self.characters, "estimated"), account)
            charge = account.charge_of(own, self.adapter.own_cost)
            event["usage"] = _with_cost(usage, self.recalled_charges + account.bill.charges_with(account, charge))
        return event

    def settled(self, event: Event) -> Event:
        """Closes the stream's accounts. Returns the end with its usage complete, and the stream's cost in it.

        An upstream that fails before any content is not charged.

        Args:
            event: The `finish` or `error`.
        """
        account, usage = self.account, event.get("usage")
        if usage:
            event["usage"] = usage = self._measured(usage, self.characters, "estimated")
        if account is None and self.former is None:
            return event
        charges = self.recalled_charges
        if account is not None:
            account.bill.give_up_others(account)
            if usage:
                event["usage"] = usage = account.with_searches(usage, self.adapter.searches)
            account.close(self._usage_at(event, usage, account), self.adapter.own_cost)
            charges += account.bill.charges
        if self.former is not None:
            usage, self.former = sum_of(self.former, usage or {}), None
        if usage:
            event["usage"] = _with_cost(usage, charges)
        return event

    def settled_turn(self, finish: Event, first: int) -> Event:
        """Closes the accounts of a turn that has ended well. Returns its end with its own usage and cost.

        Args:
            finish: The provider's `finish`.
            first: How many charges the stream had before the turn.
        """
        former, self.former = self.former, None
        finish = self.settled(finish)
        usage: dict[str, Any] = {name: each for name, each in finish.get("usage", {}).items() if name != "cost"}
        self.former = sum_of(former or {}, usage)
        if usage:
            charges = () if self.account is None else self.account.bill.charges[first:]
            finish["usage"] = _with_cost(usage, charges)
        return finish

    def usage_of_turns(self) -> dict[str, Any]:
        """Returns the usage of all turns so far, with the stream's cost; empty if nothing is known."""
        return self._with_all_costs({**self.former}) if self.former else {}

    def usage_here(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Returns the usage of a run without that of the turns of `recall_turns`."""
        if self.recalled is None:
            return usage
        usage = rest_of(usage, self.recalled)
        usage.pop("cost", None)
        return _with_cost(usage, self.charges_so_far())

    def _with_all_costs(self, usage: dict[str, Any]) -> dict[str, Any]:
        return _with_cost(usage, self.recalled_charges + self.charges_so_far())

    def _usage_at(self, event: Event, usage: dict[str, Any] | None, account: Account) -> dict[str, Any] | None:
        """Returns the attempt's own tokens at the end of its stream. `None` if they cost nothing.

        Args:
            event: The `finish` or `error`.
            usage: Its usage, complete.
            account: The attempt's account.
        """
        is_owed = self._has_content or (event["type"] == "finish" and account.is_sent)
        if not usage or not is_owed:
            return None
        source: str | None = usage.get("source")
        if source is not None and self._goes_on:  # an estimate also counts the content of the attempt before
            return self._own_usage(account, source)
        billed = self.adapter.billed(usage)
        return billed if billed is usage else self._measured(billed, self.characters, "estimated")

    def _usage_so_far(self) -> dict[str, Any] | None:
        """Returns the attempt's own tokens if it ended now, or had ended. None if they cost nothing."""
        account = self.account
        if account is None or account.is_closed:
            return None if account is None else account.usage
        is_owed = self._has_content or (account.is_sent and self._prompt_characters is not None)
        return self._own_usage(account, "partial") if is_owed else None

    @property
    def _has_content(self) -> bool:
        """Whether any content has come, also of a JSON answer that was cut off."""
        return self.progress is _CONTENT or self._has_come

    def _own_usage(self, account: Account, source: str) -> dict[str, Any]:
        """Returns the usage of this attempt alone up to now, for its charge."""
        characters = self.characters if self.transcript is None and not self._goes_on else self._generated
        return account.with_searches(self._counted_or_estimated(characters, source), self.adapter.searches)

    def _counted_or_estimated(self, characters: int, source: str) -> dict[str, Any]:
        counted: dict[str, Any] = dict(self.adapter.usage or {})
        if not self._is_final(counted):
            # An early count is of the first tokens, and servers fill in zeros before the end.
            least = {"input_tokens": 0, "output_tokens": estimated_tokens(characters)}
            for name, tokens in least.items():
                if counted.get(name, 0) <= tokens:
                    counted.pop(name, None)
                    counted.pop("total_tokens", None)
            counted["source"] = source
        return self._measured(counted, characters, source)

    def _is_final(self, counted: dict[str, Any]) -> bool:
        """Returns whether a count is the provider's last: its finish reason has arrived too."""
        return "output_tokens" in counted and bool(self.adapter.word())

    def _measured(self, usage: dict[str, Any], characters: int, source: str) -> dict[str, Any]:
        """Returns a usage in which an estimate stands for each count that the upstream has not measured.

        Args:
            usage: The counts that have come.
            characters: The characters of the answer that they count.
            source: The `source` of an estimate.
        """
        prompt = self._prompt_characters
        if prompt is None:
            return usage
        into, out = usage.get("input_tokens"), usage.get("output_tokens")
        if isinstance(into, int) and isinstance(out, int) and out and "total_tokens" in usage:
            tokens: int = into + out
            if tokens <= SHARED.usual_tokens or tokens <= (prompt + characters) * SHARED.tokens_per_character:
                return usage  # nearly all
        account = self.account
        model = None if account is None else account.model
        window = None if model is None else self.adapter.api.window(model)
        known = Known(prompt, characters, window, self.adapter.own_cost is not None)
        if account is not None:
            account.bill.absurd_tokens = max(account.bill.absurd_tokens, absurd_count(usage, most_tokens(known)))
        return completed(usage, known, source)


def usage_of_all(usages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the usage of some turns together, with their cost; as `UpstreamAnswer.usage_of_turns`."""
    former, charges = _sum_of_turns(usages)
    return _with_cost(former, charges) if former else {}


def _sum_of_turns(usages: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], tuple[Charge, ...]]:
    """Returns the tokens of some turns together, and the cost of each."""
    former: dict[str, Any] = {}
    charges: list[Charge] = []
    for usage in usages:
        cost = usage.get("cost")
        if cost is not None:
            charges.append(Charge("", "", amount_of(cost["amount"]) or 0, cost["currency"]))
        former = sum_of(former, {name: each for name, each in usage.items() if name != "cost"})
    return former, tuple(charges)


def _with_cost(usage: dict[str, Any], charges: Sequence[Charge]) -> dict[str, Any]:
    """Returns usage with the cost of the stream so far, if that is known."""
    total = total_of(charges)
    return usage if total is None else {**usage, "cost": cost_member(total[0], total[1])}


def _is_empty(events: list[Event]) -> bool:
    """Returns whether the last events of an answer have nothing that the provider said."""
    end = events[-1]
    if end["finish_reason"] != "other" or "finish_reason_raw" in end or "usage" in end:
        return False
    return all(event["type"] in NO_CONTENT for event in events)


def is_partly_read(events: list[Event]) -> bool:
    """Returns whether an adapter has left out a part of a chunk."""
    return any(event["type"] == "warning" for event in events)


def partly_read() -> Malformed:
    """Returns the exception for a partly read chunk."""
    return Malformed("a part of it has another shape")


def _worded(problem: Exception) -> str:
    """Describes the fault of a chunk, without quoting it."""
    # Compiled and pure builds raise different exceptions for a chunk of another shape.
    return str(problem) if isinstance(problem, Malformed) else "it has another shape"
