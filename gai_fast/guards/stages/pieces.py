"""Which pieces of an answer are judged, and which of its events may be sent. Sans-IO, without a clock.

`stage.py` gives it the events of a stream, has its pieces judged, and sends what it lets through. It must not know the
types of events, nor how a judge is asked (`net/judges/`).

Rules:

1. Each judge gets the same text, in pieces of its own. A piece is asked for at `limits.judged_first` characters or
   `limits.judged_wait` after its first one; the next at `limits.judged_growth` times the last one's size, up to
   `limits.judged_usual`, or after as long. A piece is all that waits, so a judge that is behind gets larger pieces. Of
   a mask's, a word that has begun at the end is in the next piece: its replacement is not a part of a word.
2. With a piece goes what stands before it in its channel: at most `limits.judged_context` characters, from behind the
   last piece that was flagged. One piece, one request; each judge has at most `limits.judged_at_once` of a stream.
3. An event leaves once all judges have let its text through, in the order of its choice. A judge lets through what its
   verdicts have reached, without a gap. Judges that flag hold nothing.
4. `max_exposure` characters of a stream may be out before the verdict of a judge. An event leaves as a whole.
5. Text, reasoning and refusals end where another channel of their choice begins: what waits is then asked for. The
   arguments of a call are one piece, asked for and let through once the call is complete, never before their verdict.
6. A piece that is flagged is masked in its spans, as far as it adds them; without such spans as a whole. A flagged call
   is stopped. Verdicts count as soon as they come, but one with a span in what went along behind those on the pieces
   before. Text that has no verdict by then is dropped.
7. Spans that lie in what went along, and were flagged there meanwhile, are no new match. Nor is a flag without spans if
   a text with the same category went along: nobody knows which of them it means.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gai_fast.guards.characters import UNBOUNDED, contains, is_word
from gai_fast.guards.limits import LIMITS
from gai_fast.guards.verdicts import Channel, Failed, JudgeVerdict

Action = Literal["mask", "stop", "flag"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What follows from the verdicts of one judge.

    Args:
        action: What happens to a flagged text.
        replacement_of: Returns what replaces a masked text, by the category of the verdict or an empty string.
        max_exposure: Characters that may be out before their verdict.
        fails_open: Whether a text passes if the judge fails; otherwise the stream ends.
    """

    action: Action
    replacement_of: Callable[[str], str]
    max_exposure: int = 0
    fails_open: bool = False


# ---- what leaves -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Passed:
    """An event that may be sent.

    Args:
        event: The event as it came.
        text: The text to send in place of the event's own. None if the event is sent as it is.
        is_masked: Whether something is replaced in that text; otherwise it is a part of the event's own.
    """

    event: Any
    text: str | None = None
    is_masked: bool = False


@dataclass(frozen=True, slots=True)
class JudgedMatch:
    """A verdict that flags a text.

    Args:
        judge: The judge's place among the judges.
        action: What happens to the text: a masked call is stopped.
        category: What the judge found. None if it names nothing.
        score: The judge's score. None if it has none.
        choice: The choice of the text.
    """

    judge: int
    action: Action
    category: str | None
    score: float | None
    choice: int


@dataclass(frozen=True, slots=True)
class Warned:
    """A judge has failed for the first time in this stream, and its texts pass. `judge` is its place."""

    judge: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The stream must end: nothing leaves any more. `judge` is the place of the judge.

    Args:
        judge: The judge's place among the judges.
        failure: The failure that ends the stream. None if the judge's verdict stops it.
    """

    judge: int
    failure: Failed | None = None


Outcome = Passed | JudgedMatch | Warned | Ended


# ---- what waits ------------------------------------------------------------------------------------------------------


class Piece:
    """A piece of text to be judged by one judge.

    Attributes:
        judge: The judge's place among the judges.
        choice: The choice of the text.
        channel: What the text is.
        text: The text, with what went before.
        context: The number of its characters that went before.
        ready_ms: When it was to be asked for; it may have had to wait for others.
        flagged: The verdict that flags it, until those on the pieces before it have come.
    """

    def __init__(self, track: _Track, text: str, context: int, end: int, ready_ms: int) -> None:
        self.track = track
        self.judge = track.side.judge
        self.choice = track.place.choice
        self.channel: Channel = track.place.channel
        self.text = text
        self.context = context
        self.end = end  # in the place
        self.ready_ms = ready_ms
        self.is_judged = False
        self.flagged: JudgeVerdict | None = None

    @property
    def size(self) -> int:
        """The number of characters that it adds."""
        return len(self.text) - self.context


class _Side:
    """One judge of the stream.

    Attributes:
        free: The pieces that it may get now.
        ripe: The tracks whose next piece is to be asked for.
        asked: The characters that it has been asked about, without a verdict.
        pending: The characters that it has not been asked about.
        exposed: The characters that are out without its verdict.
        has_failed: Whether its failure was reported.
    """

    def __init__(self, judge: int, rules: Rules) -> None:
        self.judge = judge
        self.rules = rules
        self.holds = rules.action != "flag"
        self.has_failed = False
        self.clear()

    def clear(self) -> None:
        """Forgets the texts."""
        self.free = LIMITS.judged_at_once
        self.ripe: deque[_Track] = deque()
        self.asked = self.pending = self.exposed = 0


class _Place:
    """One channel of one choice, one call, or the text of one event. Its characters are numbered from 0.

    Attributes:
        exposes: Whether the text may leave before its verdict, as far as a judge allows it.
        leaves_whole: Whether no part of the text leaves alone: a call is complete, and another event cannot be cut.
        tracks: The progress of each judge.
        holding: The tracks of judges that hold text.
        end: The characters that have come.
        out: The characters that have left.
        stop: The character at which the stream stops.
        edits: Replacements, by their begin.
        edited: The end of the last replacement that has left.
    """

    def __init__(self, choice: int, channel: Channel, sides: Sequence[_Side], *, leaves_whole: bool = False) -> None:
        self.choice = choice
        self.channel: Channel = channel
        self.is_call = channel == "tool_call"
        self.exposes = not self.is_call
        self.leaves_whole = leaves_whole or self.is_call
        self.end = self.out = self.edited = 0
        self.stop: int | None = None
        self.edits: list[_Edit] = []
        self.tracks = [_Track(self, side) for side in sides]
        self.holding = [track for track in self.tracks if track.side.holds]


class _Track:
    """The progress of one judge in one place.

    Attributes:
        parts: The text that it has not been asked about.
        size: The characters of that text.
        since: When the first of them came, in milliseconds.
        target: The size at which they are asked for.
        is_ripe: Whether they are to be asked for.
        keeps_words: Whether a word that has begun at their end waits for the next piece.
        is_whole: Whether they end the text, for now.
        ready: When they were to be asked for first, in milliseconds. -1 before the next `asks`.
        context: The text before them that goes along.
        cut: The characters that it has been asked about.
        judged: The characters that its verdicts have reached.
        flagged: The end of the last piece that it has flagged.
        found: The same, by category.
        out: The pieces without a verdict, and those behind one.
    """

    def __init__(self, place: _Place, side: _Side) -> None:
        self.place = place
        self.side = side
        self.parts: list[str] = []
        self.size = self.since = self.cut = self.judged = self.flagged = 0
        self.target = LIMITS.judged_first
        self.is_ripe = self.is_whole = False
        self.keeps_words = side.rules.action == "mask" and not place.leaves_whole
        self.ready = -1
        self.context = ""
        self.out: deque[Piece] = deque()
        self.found: dict[str | None, int] = {}

    def ripen(self) -> None:
        """Lets the text that waits be asked for."""
        if self.size and not self.is_ripe:
            self.is_ripe = True
            self.side.ripe.append(self)

    def piece(self, now_ms: int) -> Piece:
        """Returns the next piece: rules 1 and 2. What is left is asked for next, unless it is a word that has begun."""
        taken: list[str] = []
        size = 0
        for part in self.parts:
            if taken and size + len(part) > LIMITS.judged_most and not self.place.is_call:
                break
            taken.append(part)
            size += len(part)
        del self.parts[: len(taken)]
        added = "".join(taken)
        begun = _begun_word(added) if self.keeps_words and not self.is_whole and not self.parts else 0
        if begun:
            size -= begun
            self.parts.append(added[size:])
            self.since = now_ms
            added = added[:size]
        self.size -= size
        self.cut += size
        self.target = min(size * LIMITS.judged_growth, LIMITS.judged_usual)
        text = self.context + added
        piece = Piece(self, text, len(self.context), self.cut, now_ms if self.ready < 0 else self.ready)
        self.context = text[-LIMITS.judged_context :]
        self.side.asked += size
        self.side.pending -= size
        self.side.free -= 1
        self.out.append(piece)
        self.is_ripe = False
        self.ready = -1
        if not begun:
            self.ripen()
        return piece

    def flag(self, end: int) -> None:
        """Notes a piece that was flagged: what stands before its end does not go along any more."""
        self.flagged = max(self.flagged, end)
        kept = self.cut - self.flagged
        if kept < len(self.context):
            self.context = self.context[-kept:] if kept else ""

    def advance(self, to: int) -> None:
        """Lets text through up to a character."""
        place = self.place
        self.side.exposed -= max(0, min(to, place.out) - self.judged)
        self.judged = to


@dataclass(frozen=True, slots=True)
class _Edit:
    """A replacement of characters of a place. The match is reported once it has left."""

    start: int
    end: int
    replacement: str
    match: JudgedMatch | None


class _Held:
    """An event in its turn, or a part of one. Without a place it has no text that is judged.

    Attributes:
        event: The event.
        text: The part of its text.
        place: The place of the text.
        start: The text's first character in the place.
        end: The end of the text.
        is_whole: Whether the text is the event's own.
        size: The size of an event without such a text.
    """

    def __init__(self, event: Any, text: str = "", place: _Place | None = None, start: int = 0, size: int = 0) -> None:
        self.size = size
        self.event = event
        self.text = text
        self.place = place
        self.start = start
        self.end = start + len(text)
        self.is_whole = True


_PlaceKey = tuple[int, Channel, str]


class Pieces:
    """The texts of one stream before its judges.

    Args:
        rules: The rules of each judge. A judge is named by its place here.
    """

    def __init__(self, rules: Sequence[Rules]) -> None:
        self.is_over = False
        """Whether the stream must end; nothing leaves any more."""
        self._sides = [_Side(number, each) for number, each in enumerate(rules)]
        self._out: list[Outcome] = []
        self._forget()

    def _forget(self) -> None:
        self._queues: dict[int, deque[_Held]] = {}  # by choice
        self._places: dict[_PlaceKey, _Place] = {}
        self._current: dict[int, _Place] = {}  # by choice: the channel that its last text belongs to
        self._timers: deque[tuple[int, _Track]] = deque()  # (`since`, …), the earliest first
        self._asked: set[Piece] = set()
        self._behind: dict[int, int] = {}  # by choice: the size of the events that wait without a text that is judged

    # -- what comes --

    def add(self, event: Any, text: str, choice: int, channel: Channel, call: str = "", now_ms: int = 0) -> None:
        """Adds an event with text.

        Args:
            event: The event.
            text: Its text.
            choice: Its choice.
            channel: What its text is.
            call: The call, if the text is of one. An id may be used again once its call is complete.
            now_ms: Milliseconds since any fixed moment.
        """
        if self.is_over:
            return
        key: _PlaceKey = choice, channel, call
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place(choice, channel, self._sides)
        if self._current.get(choice) is not place:
            self.end_prose(choice)
            self._current[choice] = place
        most = LIMITS.judged_most
        if len(text) <= most or place.is_call:
            self._put(_Held(event, text, place, place.end), place, now_ms)
        else:
            for at in range(0, len(text), most):
                held = _Held(event, text[at : at + most], place, place.end)
                held.is_whole = False
                self._put(held, place, now_ms)
        self._release(choice)

    def add_whole(
        self, event: Any, text: str, choice: int, channel: Channel, now_ms: int = 0, *, exposes: bool = True
    ) -> None:
        """Adds an event whose text comes at once, and is one piece; as `add`. It ends no channel of the choice.

        Args:
            event: As for `add`.
            text: As for `add`.
            choice: As for `add`.
            channel: As for `add`.
            now_ms: As for `add`.
            exposes: Whether the text may leave before its verdict, as far as a judge allows it.
        """
        if self.is_over:
            return
        place = _Place(choice, channel, self._sides, leaves_whole=True)
        place.exposes = place.exposes and exposes
        self._put(_Held(event, text, place), place, now_ms)
        _ripen(place)
        self._release(choice)

    def behind(self, event: Any, choice: int, size: int = 0) -> None:
        """Adds an event without text that is judged: it leaves behind the texts of its choice.

        Behind a call under way no more than `limits.behind` wait: the upstream must be read for the rest of the call.

        Args:
            event: The event.
            choice: Its choice.
            size: Its size in memory, in characters or bytes.
        """
        if self.is_over:
            return
        behind = self._behind.get(choice, 0) + size
        if behind > LIMITS.behind and self._awaits_call(choice):
            self._out.append(Passed(event))
            return
        self._behind[choice] = behind
        self._hold(_Held(event, size=size), choice)
        self._release(choice)

    def end_prose(self, choice: int) -> None:
        """Notes that another channel of a choice begins, before its first text has come: rule 5."""
        current = self._current.pop(choice, None)
        if current is not None and not current.is_call:
            _ripen(current)

    def complete(self, choice: int, call: str) -> bool:
        """Notes that the arguments of a call have come. Returns whether there were any."""
        place = self._places.pop((choice, "tool_call", call), None)
        if place is not None:
            _ripen(place)
        return place is not None

    def finish(self) -> None:
        """Notes that no text comes any more."""
        for place in self._places.values():
            _ripen(place)

    def drop(self) -> list[Piece]:
        """Drops all text that has no verdict, at an error, a cancel, a stop or `stream.reset`.

        Returns:
            The pieces whose verdicts have become needless.
        """
        needless = list(self._asked)
        for side in self._sides:
            side.clear()
        self._forget()
        return needless

    # -- what is asked --

    @property
    def due_ms(self) -> int | None:
        """The time to call `asks` if nothing comes before. None if there is none."""
        timers = self._timers
        while timers and not _waits(timers[0]):
            timers.popleft()
        return timers[0][0] + LIMITS.judged_wait if timers else None

    def asks(self, now_ms: int) -> list[Piece]:
        """Returns the pieces that must be judged now. To be called after each event, each verdict, and at `due_ms`.

        Args:
            now_ms: As for `add`.
        """
        due = self.due_ms
        while due is not None and due <= now_ms:
            self._timers.popleft()[1].ripen()
            due = self.due_ms
        found: list[Piece] = []
        for side in self._sides:
            while side.free and side.ripe:
                track = side.ripe.popleft()
                found.append(track.piece(now_ms))
                if track.size and not track.is_ripe:
                    self._timers.append((now_ms, track))
            for track in side.ripe:
                if track.ready < 0:
                    track.ready = now_ms
        self._asked.update(found)
        return found

    def judged(self, piece: Piece, verdict: JudgeVerdict | Failed) -> None:
        """Notes a verdict. A second verdict on a piece is ignored, as is one on a piece that was dropped.

        Args:
            piece: The piece.
            verdict: The verdict on the piece's text.
        """
        if piece not in self._asked:
            return
        self._asked.remove(piece)
        piece.is_judged = True
        track = piece.track
        side = track.side
        side.free += 1
        side.asked -= piece.size
        if self.is_over:
            return
        if isinstance(verdict, Failed):
            if not side.rules.fails_open:
                self._end(Ended(side.judge, verdict))
                return
            if not side.has_failed:
                side.has_failed = True
                self._out.append(Warned(side.judge))
        elif verdict.flagged and (side.rules.action == "stop" or not _reaches_back(piece, verdict)):
            self._flag(piece, verdict)
        elif verdict.flagged:
            piece.flagged = verdict
        while not self.is_over and track.out and track.out[0].is_judged:
            first = track.out[0]
            if first.flagged is not None:
                self._flag(first, first.flagged)
            if not self.is_over:
                track.advance(track.out.popleft().end)
        if not self.is_over:
            for choice in self._queues:
                self._release(choice)

    # -- what leaves --

    def take(self) -> list[Outcome]:
        """Returns what leaves, in order."""
        taken, self._out = self._out, []
        return taken

    @property
    def holds(self) -> bool:
        """Whether an event is held, or a verdict is missing: `finish` must wait."""
        if self.is_over:
            return False
        return any(self._queues.values()) or any(side.asked or side.pending for side in self._sides)

    @property
    def waiting(self) -> int:
        """The characters that wait for a verdict of one judge, and the size of the events behind them.

        Text that waits for more text does not count, nor what waits behind it.
        """
        behind = sum([size for choice, size in self._behind.items() if size and not self._awaits_call(choice)])
        return behind + max([side.asked + sum([track.size for track in side.ripe]) for side in self._sides], default=0)

    # -- own --

    def _awaits_call(self, choice: int) -> bool:
        """Returns whether a choice waits for the rest of a call's arguments."""
        queue = self._queues.get(choice)
        place = queue[0].place if queue else None
        return place is not None and place.is_call and any(each is place for each in self._places.values())

    def _put(self, held: _Held, place: _Place, now_ms: int) -> None:
        """Puts an event with text in its turn."""
        self._hold(held, place.choice)
        place.end = held.end
        if held.text:
            self._await(place, held.text, now_ms)

    def _hold(self, held: _Held, choice: int) -> None:
        queue = self._queues.get(choice)
        if queue is None:
            queue = self._queues[choice] = deque()
        queue.append(held)

    def _await(self, place: _Place, part: str, now_ms: int) -> None:
        """Lets text wait for each judge's next piece: rule 1."""
        for track in place.tracks:
            if not track.size and not place.is_call:
                track.since = now_ms
                self._timers.append((now_ms, track))
            track.parts.append(part)
            track.is_whole = False
            track.size += len(part)
            track.side.pending += len(part)
            if track.size >= track.target and not place.is_call:
                track.ripen()

    def _flag(self, piece: Piece, verdict: JudgeVerdict) -> None:
        """Masks, stops or reports a flagged piece: rules 6 and 7."""
        track, place = piece.track, piece.track.place
        start = piece.end - piece.size
        base = start - piece.context
        spans = [(base + begin, base + end) for begin, end in verdict.spans]
        action = track.side.rules.action
        if action == "mask" and place.is_call:
            action = "stop"
        if action != "stop" and spans and spans[-1][1] <= min(start, track.flagged):
            return  # rule 7
        if action == "flag" and not spans and base < track.found.get(verdict.category, 0):
            return
        track.flag(piece.end)
        track.found[verdict.category] = piece.end
        spans = [(max(begin, start), end) for begin, end in spans if end > start] or [(start, piece.end)]
        match = JudgedMatch(piece.judge, action, verdict.category, verdict.score, piece.choice)
        if action == "stop":
            self._stop_at(spans[0][0], piece, match)
        elif action == "flag":
            self._out.append(match)
        else:
            self._mask(place, spans, track.side.rules.replacement_of(verdict.category or ""), match)

    def _mask(self, place: _Place, spans: list[tuple[int, int]], replacement: str, match: JudgedMatch) -> None:
        """Replaces the spans once they leave. Of text that is out nothing can be replaced."""
        reported: JudgedMatch | None = match
        for begin, end in spans:
            if end > place.out:
                place.edits.append(_Edit(max(begin, place.out), end, replacement, reported))
                reported = None
        if reported is not None:
            self._out.append(reported)
        place.edits.sort(key=_start_of)

    def _stop_at(self, at: int, piece: Piece, match: JudgedMatch) -> None:
        """Lets through what stands before a match, and ends the stream."""
        track, place = piece.track, piece.track.place
        if track.out[0] is piece and at > place.out and not place.leaves_whole:
            place.stop = at
            track.advance(at)
            self._release(place.choice)
            queue = self._queues[place.choice]
            if queue and queue[0].place is place and queue[0].start < at < queue[0].end:
                cut = queue[0]
                part = _Held(cut.event, cut.text[: at - cut.start], place, cut.start)
                part.is_whole = False
                if self._may_go(part):
                    self._pass(part)
        self._out.append(match)
        self._end(Ended(piece.judge))

    def _end(self, end: Ended) -> None:
        self._out.append(end)
        self._queues.clear()
        self._behind.clear()
        self.is_over = True

    def _release(self, choice: int) -> None:
        """Passes the events that may leave."""
        queue = self._queues[choice]
        while queue and self._may_go(queue[0]):
            self._behind[choice] = self._behind.get(choice, 0) - queue[0].size
            self._pass(queue.popleft())

    def _may_go(self, held: _Held) -> bool:
        """Returns whether all judges let an event through: rules 3 and 4."""
        place = held.place
        if place is None:
            return True
        if place.stop is not None and held.end > place.stop:
            return False
        for track in place.holding:
            if held.end > track.judged:
                side = track.side
                out = side.exposed + held.end - max(held.start, track.judged)
                if not place.exposes or out > side.rules.max_exposure:
                    return False
        return True

    def _pass(self, held: _Held) -> None:
        place = held.place
        if place is None:
            self._out.append(Passed(held.event))
            return
        for track in place.holding:
            track.side.exposed += max(0, held.end - max(held.start, track.judged))
        place.out = held.end
        if not place.edits and place.edited <= held.start:
            self._out.append(Passed(held.event, None if held.is_whole else held.text))
            return
        text, matches = _edited(place, held)
        if text == held.text:
            self._out.append(Passed(held.event, None if held.is_whole else text))
        elif text:
            self._out.append(Passed(held.event, text, is_masked=True))
        self._out += matches


def _ripen(place: _Place) -> None:
    for track in place.tracks:
        track.is_whole = True
        track.ripen()


def _reaches_back(piece: Piece, verdict: JudgeVerdict) -> bool:
    """Returns whether a verdict also flags what went along, or may do so and is reported alone."""
    if not verdict.spans:
        return piece.context > 0 and not piece.track.side.holds
    return any(begin < piece.context for begin, _ in verdict.spans)


def _begun_word(text: str) -> int:
    """Returns the length of the word at a text's end, which may go on. 0 if there is none, or only blanks before it.

    It begins behind white space: an address or a number is not cut at its dots.
    """
    at = len(text)
    if not is_word(ord(text[-1])):
        return 0
    while at > 0 and not text[at - 1].isspace() and not contains(UNBOUNDED, ord(text[at - 1])):
        at -= 1
        if len(text) - at > LIMITS.judged_context:
            return 0
    return len(text) - at if text[:at].strip() else 0


def _waits(timer: tuple[int, _Track]) -> bool:
    """Returns whether the text still waits for which a timer was set."""
    since, track = timer
    return track.size > 0 and not track.is_ripe and track.since == since


def _start_of(edit: _Edit) -> int:
    return edit.start


def _edited(place: _Place, held: _Held) -> tuple[str, list[JudgedMatch]]:
    """Returns the text of an event with the replacements of its place, and the matches that have left with it."""
    texts: list[str] = []
    matches: list[JudgedMatch] = []
    at = max(held.start, place.edited)
    count = 0
    for edit in place.edits:
        if edit.start >= held.end:
            break
        count += 1
        if edit.start >= place.edited:  # otherwise it is one with the replacement before
            texts.append(held.text[at - held.start : edit.start - held.start])
            texts.append(edit.replacement)
        place.edited = max(place.edited, edit.end)
        at = place.edited
        if edit.match is not None:
            matches.append(edit.match)
    del place.edits[:count]
    texts.append(held.text[at - held.start :])
    return "".join(texts), matches
