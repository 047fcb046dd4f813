"""The program of a guard: all its rules as one nondeterministic automaton, in arrays.

A node is an index. `CHARS` and `BRANCH` read a character; `SPLIT`, `GATE` and `END` read none. Patterns are compiled
from their end to their beginning, as by Thompson: a repeat of n has n copies. Words are one tree: a `BRANCH` has the
next node for each letter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gai_fast.guards import characters
from gai_fast.guards.characters import ANYTHING, BEYOND, OF_WORDS, CodePoints, Neighbours, of_text
from gai_fast.guards.limits import LIMITS
from gai_fast.guards.normal import normalize
from gai_fast.guards.syntax import UNBOUNDED, Alternatives, Chars, Node, Repeat, Sequence, letter_set
from gai_fast.model.errors import GaiFastError

CHARS: Final = 0
BRANCH: Final = 1
SPLIT: Final = 2
GATE: Final = 3
END: Final = 4

Check = Callable[[str, int, int], bool]
"""Returns whether a part of a text, from an index to another, may be a match or the beginning of one."""


class TooLarge(GaiFastError, ValueError):
    """The rules of a guard need more positions than a guard may have."""


class CheckGate(Node):
    """A place that is passed only if the text from the match's beginning passes a check.

    Args:
        check: The check.
    """

    def __init__(self, check: Check) -> None:
        self.check = check

    def positions(self) -> int:
        """Returns 0."""
        return 0

    def may_be_empty(self) -> bool:
        """Returns True."""
        return True


class Rule:
    """What is searched.

    Args:
        category: The category of its matches.
        node: What matches.
        before: What must not stand before the match.
        after: What must not stand after it.
        lead: A text that must stand directly before it.
        follow: Whether a character must follow: the match does not count at the end of a text.
        longest: The most characters of a match. 0 if the node bounds it.
    """

    __slots__ = ("after", "before", "category", "follow", "lead", "longest", "node")

    def __init__(
        self,
        category: str,
        node: Node,
        *,
        before: Neighbours = ANYTHING,
        after: Neighbours = ANYTHING,
        lead: str = "",
        follow: bool = False,
        longest: int = 0,
    ) -> None:
        self.category = category
        self.node = node
        self.before = before
        self.after = after
        self.lead = lead
        self.follow = follow
        self.longest = longest


class Words:
    r"""Texts that are searched without a `\w` beside them, whatever their case is.

    Args:
        category: The category of their matches.
        words: The texts.
    """

    __slots__ = ("category", "words")

    def __init__(self, category: str, words: list[str]) -> None:
        self.category = category
        self.words = words


class RuleEnd:
    """The end of a rule.

    Args:
        rule: The rule's index.
        after: The index of the neighbours that must not follow.
        waits: Whether it counts only once the next character is known, or the text's end.
        follow: Whether a character must follow.
    """

    __slots__ = ("after", "follow", "rule", "waits")

    def __init__(self, rule: int, after: int, waits: bool, follow: bool) -> None:
        self.rule = rule
        self.after = after
        self.waits = waits
        self.follow = follow


class RuleEntry:
    """Where rules begin that need the same before them.

    Args:
        before: The index of the neighbours that must not stand before.
        lead: The text that must.
    """

    __slots__ = ("before", "lead", "nodes")

    def __init__(self, before: int, lead: str) -> None:
        self.before = before
        self.lead = lead
        self.nodes: list[int] = []


class Within:
    """A repeat, and the one around it.

    Args:
        repeat: The repeat.
        outer: The next one around it. None if there is none.
    """

    __slots__ = ("outer", "repeat")

    def __init__(self, repeat: Repeat, outer: Within | None) -> None:
        self.repeat = repeat
        self.outer = outer


def nothing() -> None:
    """Does nothing."""


class _Tree:
    """Words by their common beginnings: a place behind each letter, in two dicts of numbers.

    So many objects would keep the garbage collector busy.
    """

    def __init__(self) -> None:
        self.below: dict[int, int] = {}
        """The place behind a letter of a place. A place stands before those below it."""
        self.endings = [-1, -1]
        """The ending of the word that ends at each place, or -1."""

    def add(self, is_bounded: bool, letters: list[int], ending: int) -> int:
        """Adds a word. Returns the number of places that are new.

        Args:
            is_bounded: Whether it begins at the root of words that need a boundary.
            letters: The index of each letter's set.
            ending: What ends it.
        """
        place = _BOUNDED if is_bounded else _UNBOUNDED
        known = len(self.endings)
        for letter in letters:
            key = place * _LETTERS + letter
            following = self.below.get(key, -1)
            if following < 0:
                following = self.below[key] = len(self.endings)
                self.endings.append(-1)
            place = following
        self.endings[place] = ending
        return len(self.endings) - known


_UNBOUNDED: Final = 0
_BOUNDED: Final = 1
"""The roots of a tree."""
_LETTERS: Final = BEYOND
"""A number above the index of each letter's set."""
_NO_LETTERS: Final[dict[int, int]] = {}


class Program:
    """The nodes of a guard's rules.

    Args:
        normal: Whether text is normalized.
        pause: Called while rules are added, at the latest after `limits.built` nodes or letters of words: in a thread,
            it lets others run.
    """

    def __init__(self, *, normal: bool = False, pause: Callable[[], object] = nothing) -> None:
        self.normal = normal
        self.kinds: list[int] = []
        """The kind of each node."""
        self.following: list[int] = []
        """`CHARS`, `GATE`: the next node."""
        self.values: list[int] = []
        """`CHARS`: the index of its set. `GATE`: of its check. `END`: of its ending. Others: of their targets."""
        self.targets: list[tuple[int, ...]] = []
        """The next nodes of each `SPLIT`."""
        self.branches: list[dict[int, int]] = []
        """The next node of each `BRANCH`, by the index of the letter's set."""
        self.sets: list[CodePoints] = []
        self.neighbours: list[Neighbours] = [ANYTHING]
        self.checks: list[Check] = []
        self.endings: list[RuleEnd] = []
        self.entries: list[RuleEntry] = []
        self.categories: list[str] = []
        """The category of each rule."""
        self.longest: list[int] = []
        """The most characters of each rule's matches, or 0."""
        self.checked: set[int] = set()
        """The nodes of rules with a check: there the match's beginning matters."""
        self.within: dict[int, Within] = {}
        """The repeats around each `CHARS` that has any, for refusals."""
        self._pause = pause
        self._built = 0
        self._positions = 0
        self._set_index: dict[CodePoints, int] = {}
        self._letters: dict[str, int] = {}
        self._within: Within | None = None

    def add(self, rule: Rule) -> int:
        """Adds a rule. Returns the node at which it begins.

        Raises:
            TooLarge: There is no room for it.
        """
        self._reserve(rule.node.positions())
        index = self._add_category(rule.category, rule.longest)
        after = self._neighbour(rule.after)
        ending = self._ending(RuleEnd(index, after, rule.follow or after > 0, rule.follow))
        first = len(self.kinds)
        node = self._compile(rule.node, self._node(END, -1, ending))
        if _has_gate(rule.node):
            self.checked.update(range(first, len(self.kinds)))
        self._entry(self._neighbour(rule.before), rule.lead).nodes.append(node)
        return node

    def add_words(self, words: Words) -> None:
        """Adds words as one rule.

        Raises:
            TooLarge: There is no room for them.
        """
        index = self._add_category(words.category, 0)
        bounded = self._ending(RuleEnd(index, self._neighbour(OF_WORDS), True, False))
        unbounded = self._ending(RuleEnd(index, 0, False, False))
        tree = _Tree()
        for word in words.words:
            text = "".join([normalize(each) for each in word]) if self.normal else word
            if not text:
                continue
            self.note(len(text))
            letters = [self._letter(each) for each in text]
            self._reserve(tree.add(_is_bounded(text[0]), letters, bounded if _is_bounded(text[-1]) else unbounded))
        starts = self._compile_tree(tree)
        for is_bounded, node in ((True, starts[_BOUNDED]), (False, starts[_UNBOUNDED])):
            if node >= 0:
                before = self._neighbour(OF_WORDS) if is_bounded else 0
                self._entry(before, "").nodes.append(node)

    def _letter(self, letter: str) -> int:
        found = self._letters.get(letter)
        if found is None:
            found = self._letters[letter] = self._set(letter_set(of_text(letter), True, self.normal))
        return found

    def _compile_tree(self, tree: _Tree) -> list[int]:
        """Compiles a tree of words, last places first. Returns the node of each root, or -1."""
        waiting: dict[int, dict[int, int]] = {}
        for key, place in reversed(tree.below.items()):
            node = self._compile_place(waiting.pop(place, _NO_LETTERS), tree.endings[place])
            above = key // _LETTERS
            if above not in waiting:
                waiting[above] = {}
            waiting[above][key % _LETTERS] = node
        return [self._compile_place(waiting.pop(root, _NO_LETTERS), -1) for root in (_UNBOUNDED, _BOUNDED)]

    def _compile_place(self, letters: dict[int, int], ending: int) -> int:
        """Compiles a place of a tree. Returns its node, or -1 if nothing is there.

        Args:
            letters: The node behind each letter.
            ending: The ending of the word that ends there, or -1.
        """
        node = -1
        if len(letters) == 1:
            for letter, below in letters.items():
                node = self._node(CHARS, below, letter)
        elif letters:
            self.branches.append(letters)
            node = self._node(BRANCH, -1, len(self.branches) - 1)
        if ending < 0:
            return node
        end = self._node(END, -1, ending)
        return end if node < 0 else self._split((end, node))

    def _compile(self, node: Node, following: int) -> int:
        """Compiles a part that is followed by a node. Returns the node at which it begins."""
        if isinstance(node, Chars):
            made = self._node(CHARS, following, self._set(node.points))
            if self._within is not None:
                self.within[made] = self._within
            return made
        if isinstance(node, Sequence):
            for part in reversed(node.parts):
                following = self._compile(part, following)
            return following
        if isinstance(node, Alternatives):
            starts = [self._compile(part, following) for part in node.parts]
            return self._split(tuple(starts))
        if isinstance(node, CheckGate):
            self.checks.append(node.check)
            return self._node(GATE, following, len(self.checks) - 1)
        assert isinstance(node, Repeat)
        outer = self._within
        self._within = Within(node, outer)
        start = self._compile_repeat(node, following)
        self._within = outer
        return start

    def _compile_repeat(self, repeat: Repeat, following: int) -> int:
        inner, count = repeat.inner, repeat.least
        if repeat.most == UNBOUNDED:
            loop = self._split(())
            start = self._compile(inner, loop)
            self.targets[self.values[loop]] = (start, following)
            if count == 0:
                return loop
            count -= 1  # the loop is the last of them
        else:
            start = following
            for _ in range(repeat.most - count):
                start = self._split((self._compile(inner, start), following))
        for _ in range(count):
            start = self._compile(inner, start)
        return start

    def _node(self, kind: int, following: int, value: int) -> int:
        self.kinds.append(kind)
        self.following.append(following)
        self.values.append(value)
        self.note(1)
        return len(self.kinds) - 1

    def note(self, steps: int) -> None:
        """Notes work on the nodes. It pauses after each `limits.built` steps.

        Args:
            steps: The nodes or letters that were walked.
        """
        self._built += steps
        if self._built >= LIMITS.built:
            self._built = 0
            self._pause()

    def _split(self, targets: tuple[int, ...]) -> int:
        self.targets.append(targets)
        return self._node(SPLIT, -1, len(self.targets) - 1)

    def _set(self, points: CodePoints) -> int:
        index = self._set_index.get(points)
        if index is None:
            index = self._set_index[points] = len(self.sets)
            self.sets.append(points)
        return index

    def _ending(self, ending: RuleEnd) -> int:
        self.endings.append(ending)
        return len(self.endings) - 1

    def _neighbour(self, neighbours: Neighbours) -> int:
        for index, known in enumerate(self.neighbours):
            if known is neighbours:
                return index
        self.neighbours.append(neighbours)
        return len(self.neighbours) - 1

    def _entry(self, before: int, lead: str) -> RuleEntry:
        for known in self.entries:
            if known.before == before and known.lead == lead:
                return known
        self.entries.append(RuleEntry(before, lead))
        return self.entries[-1]

    def _add_category(self, category: str, longest: int) -> int:
        self.categories.append(category)
        self.longest.append(longest)
        return len(self.categories) - 1

    def _reserve(self, positions: int) -> None:
        self._positions += positions
        if self._positions > LIMITS.positions:
            raise TooLarge(f"the rules need more than {LIMITS.positions} positions: lower repeats, or write two guards")


def _is_bounded(letter: str) -> bool:
    return not characters.contains(characters.UNBOUNDED, ord(letter))


def _has_gate(node: Node) -> bool:
    if isinstance(node, (Sequence, Alternatives)):
        return any(_has_gate(each) for each in node.parts)
    if isinstance(node, Repeat):
        return _has_gate(node.inner)
    return isinstance(node, CheckGate)
