"""The search of a guard: one automaton over all its rules, made as texts need it, and shared by all texts.

The leftmost match counts; at one place the longest over all rules; the search goes on behind it. A text comes in pieces
of any size, and what may still become a match is held: exactly that, and each character is read once.

**Groups.** A thread is a place in a rule that a text has reached. All threads that began at one place of the text are a
group, and a state of the automaton is the list of groups in the order of their places, each a set of nodes:

1. A thread that is at a node where a thread of an earlier group is too ends: whatever it may match, the earlier one
   matches as well, from further left. So there are never more threads than nodes. Only where a rule has a check, which
   depends on the whole match, both go on.
2. If a group matches up to here, the groups behind it end: its match covers them. It goes on, because it may match
   more; a new group begins behind each character, so the search behind its match goes on at the same time.
3. A group without a thread that has matched is a match once no earlier group is left. Until then an earlier one may
   match more and cover it; it waits in the list of that group.

So neither a failed attempt nor a match that might have been longer is ever read again: a text of n characters takes n
transitions. The alternatives read again: a search from the next place after each failure takes n times
`limits.wait`, and a second pass from the end needs the end.

**Registers.** A state has the nodes of each group, and the age of the last groups: how many characters ago they began.
A group that becomes older than `limits.age`, or matches, gets a register in the `Scan` of its text, as do the earlier
ones: where it began, and what it matched (after Laurikari, "NFAs with Tagged Transitions"). Most attempts fail sooner:
they are nothing but transitions from state to state.

**What stands beside a match.** What must not stand before a rule's match is part of the state: the entries that are
open behind the last character. What must not follow makes an end wait for the next character, or for the end of the
text. A check is a transition with two targets, one for each answer.

**Memory.** States are made when a text first needs them, and kept for all texts. Beyond `limits.states` all are dropped
and made again: a few at a time, so that no turn of the loop waits for it.

**Patterns that grow beyond it.** With some patterns a text needs another state at nearly each character. What one
request adds is bounded (`limits.request_room`, `limits.caller_room`): then its texts go on with the threads alone.
Their states are made by the same rules and kept by nobody, in steps that are linear in the text times the pattern;
states that are there are still used. A request that has taken `limits.request_steps` is searched no further: its
guards have failed. So have they where one transition needs more than `limits.turn_steps`: it is given up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, cast

from mypy_extensions import i64

from gai_fast.guards import waits
from gai_fast.guards.characters import joined
from gai_fast.guards.classes import NEAR, Classes
from gai_fast.guards.limits import LIMITS
from gai_fast.guards.program import BRANCH, CHARS, END, GATE, Check, Program, Rule, RuleEntry, Words, nothing

PLAIN: Final = 0
"""A transition that changes no register; it is the next state itself."""
CHANGES: Final = 1
"""A transition that changes registers."""
ASKS: Final = 2
"""A transition that depends on checks."""


class Match(NamedTuple):
    """A match.

    Attributes:
        category: The category of the rule that matched most, the first one of several.
        start: The index of its first character in the text.
        end: The index behind its last one.
        rule: The index of the rule.
    """

    category: str
    start: int
    end: int
    rule: int


Piece = str | Match
"""What a scan has decided: text that passes, or a match in the place of its text."""


class SearchTurn:
    """What the searches of one request may take: in this turn of the loop, and in all.

    Args:
        caller: The caller's name.
    """

    def __init__(self, caller: str = "") -> None:
        self.caller = caller
        self.left = LIMITS.output_steps
        """In steps of making transitions. A search that has begun a character ends it."""
        self.made = 0
        """The steps of all turns."""
        self.kept = 0
        """The size of the states and transitions that it has added for all texts."""

    @property
    def is_used_up(self) -> bool:
        """Whether nothing more is searched."""
        return self.made > LIMITS.request_steps

    def begin(self) -> None:
        """Begins another turn."""
        self.left = LIMITS.output_steps

    def give_up(self) -> None:
        """Searches nothing more."""
        self.made = LIMITS.request_steps + 1


class Edge:
    """A transition. One that changes no register is the next state itself."""

    def __init__(self, kind: int) -> None:
        self.kind = kind


class SearchState(Edge):
    """A state: the nodes of each group, the ages of those without a register, and the context of the last character."""

    def __init__(
        self, groups: tuple[tuple[int, ...], ...], ages: tuple[int, ...], context: Context, generation: int
    ) -> None:
        super().__init__(PLAIN)
        self.groups = groups
        self.ages = ages
        self.context = context
        self.generation = generation
        self.near: list[Edge | None] = []
        """The transitions for the first `limits.near` classes, by their numbers: a list is read sooner than a
        dictionary. It has no place for the last ones if there is nothing in them."""
        self.far: dict[str, Edge] = {}
        """The transitions for other classes."""

    def edge(self, sort: str) -> Edge | None:
        """Returns the transition for a class of characters. None if there is none yet."""
        number = ord(sort)
        return self.near[number] if number < len(self.near) else self.far.get(sort)

    def add(self, sort: str, edge: Edge) -> None:
        """Adds the transition for a class of characters."""
        number = ord(sort)
        if number >= LIMITS.near:
            self.far[sort] = edge
            return
        while len(self.near) <= number:
            self.near.append(None)
        self.near[number] = edge

    def clear(self) -> None:
        """Drops all transitions."""
        self.near.clear()
        self.far.clear()


class Change(Edge):
    """A transition that changes registers. Groups have their index in the state before, a new one the next index."""

    def __init__(self, target: SearchState) -> None:
        super().__init__(CHANGES)
        self.target = target
        self.late = -1
        """The group that has matched up to the place before the character. -1 if there is none."""
        self.late_rule = 0
        self.adds: list[int] = []
        """The ages, before the character, of the groups that get a register."""
        self.ends = -1
        """The group that has matched up to the place behind the character. -1 if there is none."""
        self.ends_rule = 0
        self.stay: list[int] = []
        """The groups with a register that stay."""
        self.drops = -1
        """How many of the first groups end if all others stay. -1 if not all do."""


class CheckEdge(Edge):
    """A transition that depends on checks."""

    def __init__(self, asked: list[PendingCheck]) -> None:
        super().__init__(ASKS)
        self.asked = asked
        self.answers: dict[int, Edge] = {}
        """The transitions by the answers, a bit for each check."""


class PendingCheck:
    """A check of a transition, and what it is asked about.

    Args:
        group: The index of the group.
        age: Its age before the character. -1 if it has a register.
        check: The check.
    """

    def __init__(self, group: int, age: int, check: Check) -> None:
        self.group = group
        self.age = age
        self.check = check


class Context:
    """What is open behind a character: the entries of rules, and how much of a rule's `lead` has been read."""

    def __init__(self, number: int, entries: tuple[int, ...], leads: tuple[int, ...]) -> None:
        self.number = number
        self.entries = entries
        self.leads = leads
        self.read: dict[str, list[int]] = {}
        """By the class of the next character, the nodes behind those that read it."""


class StateGroup:
    """The register of the group that began at one place of a text."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.end = -1
        """The index behind the longest match so far. -1 if there is none."""
        self.rule = -1
        self.behind: list[Match] = []
        """Matches between this group's match and the next group, which are covered if this group matches more."""

    def match(self, end: int, rule: int) -> None:
        """Notes that the text up to a place is a match, the longest one so far."""
        self.end = end
        self.rule = rule
        self.behind.clear()


class Automaton:
    """The states of one guard. Made by `compile_rules`; any number of texts may be searched with it, in one thread.

    Args:
        program: The guard's rules.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self.classes = Classes(program)
        self.generation = 0
        """How often all states were dropped."""
        self.steps = 0
        """Steps of making transitions so far."""
        self.checks = bool(program.checks)
        """Whether the text of a match is checked."""
        self.bounded = any(longest > 0 for longest in program.longest)
        self._kinds = program.kinds
        self._values = program.values
        self._following = program.following
        self._beside = self.classes.beside
        self._contexts: dict[tuple[tuple[int, ...], tuple[int, ...]], Context] = {}
        self._after: dict[tuple[tuple[int, ...], str], Context] = {}
        self._states: dict[tuple[tuple[tuple[int, ...], ...], tuple[int, ...], int], SearchState] = {}
        self._places = 0
        self._edges = 0
        self._former: list[dict[tuple[tuple[tuple[int, ...], ...], tuple[int, ...], int], SearchState]] = []
        """Dropped states that are still in memory."""
        self._added: dict[str, int] = {}
        """The size of what each caller's texts have added."""
        self._turn: SearchTurn | None = None
        """The request whose text is searched. None if it has no bound."""
        self._room = 0
        """The nodes that the transition in the making may still walk."""
        self._firsts = [self._firsts_of(entry) for entry in program.entries]
        """The nodes behind those that read a character first at each entry, by the character's set."""
        self._least: list[int] = _least_rest(program) if self.bounded else []
        self._owners: list[int] = _owners(program) if self.bounded else []
        self.short = self._short()
        """The length up to which no thread is too long."""
        entries = [at for at, entry in enumerate(program.entries) if not entry.lead]
        self._first = self._context(tuple(entries), (0,) * len(program.entries))
        self._start = self._state((), (), self._first)

    def scan(self, *, holds: bool = True, turn: SearchTurn | None = None) -> Scan:
        """Returns the search of one text.

        Args:
            holds: Whether text that may become a match is held. If not, it passes before its match.
            turn: What it may take in a turn of the loop. None if it has no bound.
        """
        return Scan(self, holds, turn)

    def use(self, turn: SearchTurn | None) -> None:
        """Notes whose text is searched next."""
        self._turn = turn

    @property
    def most(self) -> int:
        """The steps of one transition for the request, and the nodes that the transition may walk."""
        return sys.maxsize if self._turn is None else LIMITS.turn_steps

    @property
    def state_count(self) -> int:
        """The number of states that are kept."""
        return len(self._states)

    @property
    def former_count(self) -> int:
        """The number of states that were dropped and are still in memory."""
        found = 0
        for each in self._former:
            found += len(each)
        return found

    def category(self, rule: int) -> str:
        """Returns the category of a rule."""
        return self._program.categories[rule]

    def start(self) -> SearchState:
        """Returns the state at the beginning of a text."""
        if self._start.generation != self.generation:
            self._start = self._state((), (), self._first)
        return self._start

    # -- contexts --

    def _context(self, entries: tuple[int, ...], leads: tuple[int, ...]) -> Context:
        key = (entries, leads)
        found = self._contexts.get(key)
        if found is None:
            found = self._contexts[key] = Context(len(self._contexts), entries, leads)
        return found

    def _context_after(self, context: Context, sort: str) -> Context:
        """Returns the context behind a character of a class."""
        key = (context.leads, sort)
        found = self._after.get(key)
        if found is None:
            found = self._after[key] = self._made_context(context.leads, self.classes.sets[ord(sort)])
        return found

    def _made_context(self, read: tuple[int, ...], sets: frozenset[int]) -> Context:
        entries: list[int] = []
        leads: list[int] = []
        letters = self.classes.letters
        for at, entry in enumerate(self._program.entries):
            count = 0
            if entry.lead:
                count = read[at] if read[at] < len(entry.lead) else 0
                while count > 0 and letters + ord(entry.lead[count]) not in sets:
                    count = _border(entry.lead, count)
                if letters + ord(entry.lead[count]) in sets:
                    count += 1
            leads.append(count)
            if count == len(entry.lead) and (entry.before == 0 or self._beside + entry.before not in sets):
                entries.append(at)
        return self._context(tuple(entries), tuple(leads))

    def _read_first(self, context: Context, sort: str) -> list[int]:
        """Returns the nodes behind those that read a character of a class first in a context."""
        found = context.read.get(sort)
        if found is None:
            sets = self.classes.sets[ord(sort)]
            found = []
            for at in context.entries:
                firsts = self._firsts[at]
                self.steps += min(len(sets), len(firsts))
                if len(sets) < len(firsts):
                    for each in sets:
                        found += firsts.get(each, ())
                else:
                    for each, behind in firsts.items():
                        if each in sets:
                            found += behind
            context.read[sort] = found
        return found

    def _firsts_of(self, entry: RuleEntry) -> dict[int, list[int]]:
        program = self._program
        firsts: dict[int, list[int]] = {}
        for start in entry.nodes:
            found = waits.consuming(program, [start])[0]
            program.note(len(found))
            for node in found:
                if program.kinds[node] == BRANCH:
                    for letter, below in program.branches[program.values[node]].items():
                        firsts.setdefault(letter, []).append(below)
                else:
                    firsts.setdefault(program.values[node], []).append(program.following[node])
        return firsts

    # -- states --

    def _state(self, groups: tuple[tuple[int, ...], ...], ages: tuple[int, ...], context: Context) -> SearchState:
        key = (groups, ages, context.number)
        found = self._states.get(key)
        if found is None:
            if not self._keeps:
                return SearchState(groups, ages, context, _UNKEPT)
            if (
                len(self._states) >= LIMITS.states
                or self._places > LIMITS.state_places
                or self._edges > LIMITS.state_edges
            ):
                self._drop_states()
            found = self._states[key] = SearchState(groups, ages, context, self.generation)
            places = 0
            for each in groups:
                places += len(each)
            self._places += places
            self._note_added(LIMITS.state_size + places)
        return found

    @property
    def _keeps(self) -> bool:
        """Whether what the request needs is kept for all: neither it nor its caller has added too much."""
        turn = self._turn
        if turn is None:
            return True
        added = self._added
        return turn.kept < LIMITS.request_room and (len(added) < 2 or added.get(turn.caller, 0) < LIMITS.caller_room)

    def _note_added(self, size: int) -> None:
        """Notes what was added; frees a few of the states that were dropped."""
        turn = self._turn
        if turn is not None:
            turn.kept += size
            self._added[turn.caller] = self._added.get(turn.caller, 0) + size
        former = self._former
        if former:
            for _ in range(LIMITS.freed):
                if not former[-1]:
                    former.pop()
                    break
                former[-1].popitem()[1].clear()

    def _drop_states(self) -> None:
        """Drops all states. Texts keep the one that they are in, in the end without its transitions."""
        self._former.append(self._states)
        self._states = {}
        self._places = 0
        self._edges = 0
        self._added.clear()
        self.generation += 1

    def edge(self, state: SearchState, sort: str) -> Edge:
        """Returns the transition of a state for a class of characters; makes it if there is none yet."""
        found = state.edge(sort)
        if found is None:
            found = self._made_edge(state, sort, None)
            if found is None:
                return self.given_up(state)
            if state.generation == self.generation and self._keeps:
                state.add(sort, found)
                self._edges += 1
                self._note_added(LIMITS.edge_size)
        return found

    def answered(self, question: CheckEdge, state: SearchState, sort: str, answers: int) -> Edge:
        """Returns the transition of a state for a class of characters and the answers of its question."""
        found = question.answers.get(answers)
        if found is None:
            found = self._made_edge(state, sort, answers)
            if found is None:
                return self.given_up(state)
            if state.generation == self.generation and self._keeps:
                question.answers[answers] = found
                self._edges += 1
                self._note_added(LIMITS.edge_size)
        return found

    def given_up(self, state: SearchState) -> SearchState:
        """Notes that a transition needs too much: its request is searched no further. Returns the state, unchanged."""
        assert self._turn is not None
        self.steps += LIMITS.request_steps  # the search ends here
        self._turn.give_up()
        return state

    def _made_edge(self, state: SearchState, sort: str, answers: int | None) -> Edge | None:
        """Makes a transition: rules 1 to 3 of the module. None if it needs more than one may.

        Args:
            state: The state.
            sort: The class of the character.
            answers: The answers of the checks. None if they are not known.
        """
        before, most = self.steps, self.most
        self._room = most
        sets = self.classes.sets[ord(sort)]
        late, late_rule = self._late(state, sets)
        count = len(state.groups) if late < 0 else late + 1
        registers = len(state.groups) - len(state.ages)
        seen: set[int] = set()
        asked: list[PendingCheck] = []
        alive: list[int] = []
        groups: list[tuple[int, ...]] = []
        ends, ends_rule = -1, 0
        for at in range(count + 1):
            is_new = at == count
            read = self._read_first(state.context, sort) if is_new else self._read(state.groups[at], sets)
            self.steps += LIMITS.group_steps + (len(read) if is_new else len(state.groups[at]))
            if self.steps - before > most:
                return None
            if not read:
                continue
            age = 0 if is_new else state.ages[at - registers] if at >= registers else -1
            nodes, rule = self._closure(read, seen, at, age, asked, answers)
            if self._room < 0:
                return None
            if nodes:
                groups.append(nodes)
                alive.append(at)
            if rule >= 0:
                ends, ends_rule = at, rule
                break
        if asked and answers is None:
            return CheckEdge(asked)
        kept = min(registers, count)
        adds: list[int] = []
        ages: list[int] = []
        for at in range(kept, count + 1):
            age = state.ages[at - registers] if at < count else 0
            is_alive = at in alive
            if at <= late or at <= ends or (is_alive and age >= LIMITS.age):
                adds.append(age)
            elif is_alive:
                ages.append(age + 1)
        target = self._state(tuple(groups), tuple(ages), self._context_after(state.context, sort))
        stay = [at for at in alive if at < kept + len(adds)]
        if late < 0 and ends < 0 and not adds and len(stay) == registers:
            return target
        edge = Change(target)
        edge.late, edge.late_rule = late, late_rule
        edge.adds = adds
        edge.ends, edge.ends_rule = ends, ends_rule
        # What remains behind the last match; of a group that ends in between, matches are kept by an earlier one.
        count = ends + 1 if ends >= 0 else kept + len(adds)
        if stay == list(range(count - len(stay), count)):
            edge.drops = count - len(stay)
        else:
            edge.stay = stay
            self._places += len(stay)
        return edge

    def _late(self, state: SearchState, sets: frozenset[int]) -> tuple[int, int]:
        """Returns the first group whose match ends before a character, and its rule. -1 and 0 if there is none."""
        for at, nodes in enumerate(state.groups):
            rule = -1
            for node in nodes:
                if self._kinds[node] != END:
                    continue
                ending = self._program.endings[self._values[node]]
                if ending.after > 0 and self._beside + ending.after in sets:
                    continue
                if rule < 0 or ending.rule < rule:
                    rule = ending.rule
            if rule >= 0:
                return at, rule
        return -1, 0

    def last(self, state: SearchState) -> tuple[int, int]:
        """Returns the first group whose match ends with the text, and its rule. -1 and 0 if there is none."""
        for at, nodes in enumerate(state.groups):
            rule = -1
            for node in nodes:
                if self._kinds[node] == END:
                    ending = self._program.endings[self._values[node]]
                    if not ending.follow and (rule < 0 or ending.rule < rule):
                        rule = ending.rule
            if rule >= 0:
                return at, rule
        return -1, 0

    def _read(self, nodes: tuple[int, ...], sets: frozenset[int]) -> list[int]:
        """Returns the nodes behind those of a group that read a character."""
        found: list[int] = []
        kinds, values, following = self._kinds, self._values, self._following
        for node in nodes:
            kind = kinds[node]
            if kind == CHARS:
                if values[node] in sets:
                    found.append(following[node])
            elif kind == BRANCH:
                branch = self._program.branches[values[node]]
                for each in sets:
                    below = branch.get(each, -1)
                    if below >= 0:
                        found.append(below)
        return found

    def _closure(
        self,
        starts: list[int],
        seen: set[int],
        group: int,
        age: int,
        asked: list[PendingCheck],
        answers: int | None,
    ) -> tuple[tuple[int, ...], int]:
        """Returns the nodes of a group that read characters or wait for one, and the rule that ends here, or -1.

        They are incomplete if the transition has no `_room` for more.

        Args:
            starts: Nodes that the group has reached.
            seen: Nodes of earlier groups; those of this one are added.
            group: The group's index.
            age: Its age, as of `PendingCheck`.
            asked: The checks of the transition; those of this group are added.
            answers: The answers of the checks.
        """
        program = self._program
        kinds, checked, room = self._kinds, program.checked, self._room
        if len(starts) == 1 and kinds[starts[0]] <= BRANCH and starts[0] not in checked:  # as in counted repeats
            if starts[0] in seen:
                return (), -1
            seen.add(starts[0])
            return (starts[0],), -1
        own: set[int] = set()
        found: list[int] = []
        rule = -1
        waiting = list(starts)
        while waiting and room >= 0:
            node = waiting.pop()
            known = own if node in checked else seen
            if node in known:
                continue
            known.add(node)
            room -= 1
            kind = kinds[node]
            if kind in (CHARS, BRANCH):
                found.append(node)
            elif kind == GATE:
                is_open = answers is not None and answers >> len(asked) & 1 == 1
                asked.append(PendingCheck(group, age, program.checks[self._values[node]]))
                if is_open:
                    waiting.append(self._following[node])
            elif kind == END:
                ending = program.endings[self._values[node]]
                if ending.waits:
                    found.append(node)
                elif rule < 0 or ending.rule < rule:
                    rule = ending.rule
            else:
                waiting += program.targets[self._values[node]]
        self._room = room
        found.sort()
        return tuple(found), rule

    def within(self, state: SearchState, length: int) -> SearchState:
        """Returns a state whose first group, of a length, has no threads of rules whose matches are shorter."""
        first = state.groups[0]
        limits = self._program.longest
        kept = tuple(
            [
                node
                for node in first
                if limits[self._owners[node]] == 0 or length + self._least[node] <= limits[self._owners[node]]
            ]
        )
        if len(kept) == len(first):
            return state
        if kept:
            return self._state((kept, *state.groups[1:]), state.ages, state.context)
        has_register = len(state.ages) < len(state.groups)
        return self._state(state.groups[1:], state.ages if has_register else state.ages[1:], state.context)

    def _short(self) -> int:
        longest = self._program.longest
        return min(
            [longest[rule] - self._least[node] for node, rule in enumerate(self._owners) if longest[rule] > 0] or [0]
        )

    def without_groups(self, state: SearchState) -> SearchState:
        """Returns the state behind the same character in which nothing has begun."""
        return self._state((), (), state.context)

    def registered(self, state: SearchState) -> SearchState:
        """Returns the state whose groups are the same, and all have a register."""
        return self._state(state.groups, (), state.context)


class Scan:
    """The search of one text. Made by `Automaton.scan`."""

    def __init__(self, automaton: Automaton, holds: bool, turn: SearchTurn | None) -> None:
        self._automaton = automaton
        self._holds = holds
        self._turn = turn
        self._rest = ""
        """Text for which no turn had room so far."""
        self._state = automaton.start()
        self._groups: list[StateGroup] = []
        self._decided: list[Match] = []
        self._kept = ""
        """Text that is needed further: that may become a match, or that a check reads."""
        self._base = 0
        """The index of the kept text."""
        self._cursor = 0
        """The index behind the text that has passed or is part of a match."""
        self._ignored = 0
        """The index of the first of the last characters that do not count (`normal`)."""
        self._ignored_end = -1
        self._matched = 0
        """The index behind the last match."""
        self._half = ""
        """A high surrogate whose other half may follow."""

    @property
    def held(self) -> int:
        """The number of characters that are held."""
        if not self._holds:
            return 0
        return self._base + len(self._kept) + len(self._half) - self._cursor

    @property
    def behind(self) -> int:
        """The number of characters that the next turns search: by `feed`, with more text or none."""
        return len(self._rest)

    @property
    def certain(self) -> Match | None:
        """The match that has begun and may become longer; its text so far is held no more. None if there is none."""
        if not self._groups or self._groups[0].end < 0:
            return None
        return self._match(self._groups[0])

    def feed(self, text: str) -> list[Piece]:
        """Searches the next piece of the text.

        Args:
            text: The piece.

        Returns:
            What is decided by it, in order: text that passes, and matches in place of their text.
        """
        if self._half or not text.isascii():
            text, self._half = joined(self._half, text)
        if self._rest:
            text, self._rest = self._rest + text, ""
        if not text:
            return []
        turn = self._turn
        self._automaton.use(turn)
        if turn is not None:
            return self._feed_bounded(text, turn)
        kept = self._kept
        whole = kept + text if kept else text
        self._search(whole, len(kept), sys.maxsize)
        return self._decide(whole, text)

    def _feed_bounded(self, text: str, turn: SearchTurn) -> list[Piece]:
        """Searches as much of a text as the turn has room for."""
        if turn.is_used_up:
            return self._unsearched(text)
        if turn.left <= 0:
            self._rest = text
            return []
        part = text
        most = turn.left // LIMITS.character_steps + 1
        if len(text) > most:
            part = text[:most]
        kept = self._kept
        whole = kept + part if kept else part
        before = self._automaton.steps
        reached = self._search(whole, len(kept), before + turn.left)
        size = reached - len(kept)
        made = self._automaton.steps - before
        turn.left -= made + size * LIMITS.character_steps
        turn.made += made
        if made and turn.made > LIMITS.request_steps:
            return self._unsearched(text)
        if size < len(text):
            self._rest = text[size:]
            part, whole = text[:size], whole[:reached]
        return self._decide(whole, part)

    def feed_turn(self, text: str, at: int, steps: int) -> tuple[list[Piece], int]:
        """Searches as much of a long text as one turn of the loop has room for.

        Args:
            text: The text; its surrogates are joined.
            at: The index of its first character that was not searched yet.
            steps: The steps of making transitions for which the turn has room.

        Returns:
            What is decided, as of `feed`, and the index of the next character.
        """
        part = text[at : at + LIMITS.slice]
        kept = self._kept
        whole = kept + part
        automaton, turn = self._automaton, self._turn
        automaton.use(turn)
        before = automaton.steps
        reached = self._search(whole, len(kept), before + steps)
        if turn is not None:
            turn.made += automaton.steps - before
        part = part[: reached - len(kept)]
        return self._decide(whole[:reached], part) if part else [], at + len(part)

    def _unsearched(self, text: str) -> list[Piece]:
        """Returns what passes if nothing is searched any more: nothing, or without holding all of it."""
        self.reset()
        return [] if self._holds else [text]

    def _decide(self, text: str, piece: str) -> list[Piece]:
        """Returns what is decided after a search.

        Args:
            text: The text from `_base` on.
            piece: Its end that was not searched before.
        """
        if self._state.groups:
            self._let_go(self._base + len(text))
        elif not self._decided and not self._kept and self._cursor == self._base:
            self._base += len(text)
            self._cursor = self._base
            return [piece]
        return self._passed(text, piece)

    def end(self) -> list[Piece]:
        """Ends the text, and returns what is decided by that. The next piece is the beginning of another text."""
        if not (self._kept or self._rest or self._half or self._decided or self._state.groups):
            self.reset()
            return []
        half = self._rest
        self._rest = ""
        if self._half:
            self._half = ""
            half += _LONE
        turn = self._turn
        self._automaton.use(turn)
        if turn is not None and turn.is_used_up:
            return self._unsearched(half)
        kept = self._kept + half
        if half:
            before = self._automaton.steps
            reached = self._search(kept, len(self._kept), sys.maxsize if turn is None else before + LIMITS.turn_steps)
            if turn is not None:
                turn.made += self._automaton.steps - before
                if reached < len(kept):  # no other turn follows
                    turn.give_up()
                if turn.is_used_up:
                    return self._unsearched(half)
        self._state = self._registered(self._state, self._base + len(kept))
        groups = self._groups
        last, rule = self._automaton.last(self._state)
        if last >= 0:
            del groups[last + 1 :]
            groups[last].match(self._counted(self._base + len(kept)), rule)
        self._end_groups()
        pieces = self._passed(kept, half)
        self.reset()
        return pieces

    def reset(self) -> None:
        """Forgets the text. The next piece is the beginning of another text."""
        self._state = self._automaton.start()
        self._groups.clear()
        self._decided.clear()
        self._kept = self._half = self._rest = ""
        self._base = self._cursor = self._matched = 0
        self._ignored_end = -1

    def _search(self, text: str, at: int, steps: int) -> int:
        """Reads the characters of a text, which begins at `_base`. Returns the index behind the last one.

        Args:
            text: The text.
            at: The index of the first one.
            steps: The automaton's `steps` beyond which no more is read.
        """
        automaton = self._automaton
        classes = automaton.classes
        near, far = classes.near, classes.far
        state = self._state
        place: i64 = at
        size: i64 = len(text)
        while place < size:
            code: i64 = ord(text[place])
            sort = near[code] if code < NEAR else far.get(code, "")
            if not sort:
                sort = classes.classes_of(code)
                automaton.steps += LIMITS.group_steps
                if len(sort) != 1:
                    # Ages count characters of the text: what counts otherwise needs registers.
                    if state.ages:
                        state = self._registered(state, self._base + place)
                    if sort:
                        state = self._read_several(text, place, state, sort)
                    else:
                        self._ignore(self._base + place)
                    place += 1
                    if automaton.steps > steps:
                        break
                    continue
            known = state.near
            number: i64 = ord(sort)
            edge = known[number] if number < len(known) else state.far.get(sort)  # `state.edge`, without a call
            if edge is None:
                edge = automaton.edge(state, sort)
                if automaton.steps > steps:
                    size = place + 1
            if edge.kind == PLAIN:
                state = cast(SearchState, edge)
            else:
                start = self._base + place
                state = self._changed(state, edge, sort, text, start, self._counted(start))
                if automaton.steps > steps:
                    size = place + 1
            place += 1
        self._state = state
        return place

    def _read_several(self, text: str, at: int, state: SearchState, sorts: str) -> SearchState:
        """Reads a character that is compared as several. A match of some of them is one of the character."""
        start = self._base + at
        before = self._counted(start)
        automaton = self._automaton
        last = automaton.steps + automaton.most
        for sort in sorts:
            if automaton.steps > last:
                return automaton.given_up(state)
            state = self._changed(state, automaton.edge(state, sort), sort, text, start, before)
            state = self._registered(state, start + 1)
            before = start + 1
        return state

    def _ignore(self, at: int) -> None:
        """Notes that a character does not count: it is no part of a match that ends before it."""
        if at != self._ignored_end:
            self._ignored = at
        self._ignored_end = at + 1

    def _counted(self, at: int) -> int:
        """Returns the index behind the last character before another that counts."""
        return self._ignored if at == self._ignored_end else at

    def _changed(self, state: SearchState, edge: Edge, sort: str, text: str, start: int, before: int) -> SearchState:
        """Changes the groups by a transition, and returns the next state.

        Args:
            state: The state.
            edge: The transition.
            sort: The class of the character.
            text: The text from `_base` on.
            start: The index of the character.
            before: The index at which a match ends that ends before the character.
        """
        if isinstance(edge, CheckEdge):
            edge = self._automaton.answered(edge, state, sort, self._ask(edge, text, start))
        if isinstance(edge, SearchState):
            return edge
        change = cast(Change, edge)
        groups = self._groups
        if change.late >= 0:
            del groups[change.late + 1 :]
        for age in change.adds:
            groups.append(StateGroup(start - age))
        if change.late >= 0:
            groups[change.late].match(before, change.late_rule)
        if change.ends >= 0:
            del groups[change.ends + 1 :]
            groups[change.ends].match(start + 1, change.ends_rule)
        stay = change.stay
        if change.drops >= 0:
            for at in range(change.drops):
                self._end_group(groups[at], _NO_GROUPS)
            del groups[: change.drops]
        elif len(stay) < len(groups):
            kept: list[StateGroup] = []
            self._automaton.steps += len(groups)
            for at, group in enumerate(groups):
                if len(kept) < len(stay) and stay[len(kept)] == at:
                    kept.append(group)
                else:
                    self._end_group(group, kept)
            self._groups = kept
        return change.target

    def _ask(self, question: CheckEdge, text: str, start: int) -> int:
        """Returns the answers of checks, a bit for each one."""
        base = self._base
        answers = 0
        for bit, asked in enumerate(question.asked):
            begin = self._groups[asked.group].start if asked.age < 0 else start - asked.age
            self._automaton.steps += 1 + (start - begin) // LIMITS.checked
            if asked.check(text, begin - base, start + 1 - base):
                answers |= 1 << bit
        return answers

    def _registered(self, state: SearchState, end: int) -> SearchState:
        """Gives all groups of a state a register, and returns the state in which they have one.

        Args:
            state: The state.
            end: The index behind the last character that was read.
        """
        if not state.ages:
            return state
        for age in state.ages:
            self._groups.append(StateGroup(end - age))
        return self._automaton.registered(state)

    def _match(self, group: StateGroup) -> Match:
        return Match(self._automaton.category(group.rule), group.start, group.end, group.rule)

    def _end_group(self, group: StateGroup, before: list[StateGroup]) -> None:
        """Ends a group that has no threads any more, before which are some others."""
        matches = before[-1].behind if before else self._decided
        if group.end >= 0:
            matches.append(self._match(group))
        matches += group.behind

    def _end_groups(self) -> None:
        for group in self._groups:
            self._end_group(group, _NO_GROUPS)
        self._groups.clear()

    def _first_start(self, end: int) -> int:
        """Returns the index at which the first group began; `end` if there is none."""
        if self._groups:
            return self._groups[0].start
        ages = self._state.ages
        return end - ages[0] if ages else end

    def _let_go(self, end: int) -> None:
        """Ends threads that have become too long, if the text ends here so far."""
        automaton = self._automaton
        while automaton.bounded and self._state.groups:
            count, length = len(self._state.groups), end - self._first_start(end)
            if length <= automaton.short:
                break
            self._state = automaton.within(self._state, length)
            if len(self._state.groups) == count:
                break
            if self._groups:
                self._end_group(self._groups.pop(0), _NO_GROUPS)
        groups = self._groups
        if groups and end - max(groups[0].start, groups[0].end) > LIMITS.held:
            self._end_groups()
            self._state = automaton.without_groups(self._state)

    def _passed(self, text: str, piece: str) -> list[Piece]:
        """Returns what is decided of a text, and keeps what is not.

        Args:
            text: The text from `_base` on.
            piece: Its end that was not searched before.
        """
        base, cursor = self._base, self._cursor
        end = base + len(text)
        first = self._first_start(end)
        groups = self._groups
        pieces: list[Piece] = []
        if self._holds:
            for match in self._decided:
                if match.start > cursor:
                    pieces.append(text[cursor - base : match.start - base])
                if match.end > self._matched:  # else another part of the same character matches as well
                    pieces.append(match)
                    self._matched = match.end
                cursor = max(cursor, match.end)
            if first > cursor:
                pieces.append(text[cursor - base : first - base])
                cursor = first
            if groups and groups[0].end > cursor:
                cursor = groups[0].end
        else:
            if piece:
                pieces.append(piece)
            for match in self._decided:
                if match.end > self._matched:
                    pieces.append(match)
                    self._matched = match.end
            cursor = end
        self._decided.clear()
        needed = min(cursor, first) if self._automaton.checks else cursor
        self._kept = text[needed - base :]
        self._base = needed
        self._cursor = cursor
        return pieces


def compile_rules(
    rules: Sequence[Rule | Words],
    *,
    normal: bool = False,
    pause: Callable[[], object] = nothing,
) -> Automaton:
    """Returns the automaton of some rules.

    Args:
        rules: The rules.
        normal: Whether text is normalized before it is compared (`normal`). The rules' nodes must be so too.
        pause: Called every few milliseconds. In a thread it lets other threads run: compiled code does not by itself.

    Raises:
        TooLarge: The rules need more positions than a guard may have.
    """
    program = Program(normal=normal, pause=pause)
    for rule in rules:
        if isinstance(rule, Words):
            program.add_words(rule)
        else:
            program.add(rule)
    return Automaton(program)


_NO_GROUPS: Final[list[StateGroup]] = []
_UNKEPT: Final = -1
"""The generation of a state that is not kept."""
_LONE: Final = "\ufffd"
"""Half a pair of surrogates whose other half never came."""


def _border(text: str, size: int) -> int:
    """Returns the length of the longest text below `size` that the first `size` characters begin and end with."""
    for count in range(size - 1, 0, -1):
        if text[:count] == text[size - count : size]:
            return count
    return 0


def _owners(program: Program) -> list[int]:
    """Returns the rule of each node: nodes are added rule by rule, each one's end first."""
    owners: list[int] = []
    rule = 0
    for node, kind in enumerate(program.kinds):
        if kind == END:
            rule = program.endings[program.values[node]].rule
        owners.append(rule)
    return owners


def _least_rest(program: Program) -> list[int]:
    """Returns for each node the fewest characters that are missing to a match."""
    count = len(program.kinds)
    least = [count] * count
    changed = True
    while changed:
        changed = False
        for node in range(count):
            kind = program.kinds[node]
            if kind == END:
                rest = 0
            elif kind == BRANCH:
                rest = 1 + min([least[each] for each in program.branches[program.values[node]].values()])
            elif kind == CHARS:
                rest = 1 + least[program.following[node]]
            elif kind == GATE:
                rest = least[program.following[node]]
            else:
                rest = min([least[each] for each in program.targets[program.values[node]]])
            if rest < least[node]:
                least[node] = rest
                changed = True
    return least
