"""How long a pattern may leave a text undecided: characters since the last place where the match could have ended.

A path through a pattern's nodes that never passes a place where it may end is a bound; a cycle in it has no bound. The
bound is exact unless another path may end there: `(?:[a-z]+\\.)*[a-z]+` reads letters in two places, and may end in one
of them. So a pattern whose paths wait too long is tried once more with all paths together, as the search follows them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gai_fast.guards.characters import contains
from gai_fast.guards.limits import LIMITS
from gai_fast.guards.program import BRANCH, CHARS, END, SPLIT, Program, Rule, nothing
from gai_fast.guards.syntax import UNBOUNDED, Alternatives, BadPattern, Node, Repeat, Sequence, parse

ENDLESS: Final = -1
"""The length of a chain that has a cycle."""


def read_pattern(pattern: str, *, normal: bool = False, pause: Callable[[], object] = nothing) -> Node:
    """Returns a pattern's tree.

    Args:
        pattern: The pattern's text.
        normal: Whether it is compared with normalized text.
        pause: As of `compile_rules`.

    Raises:
        BadPattern: It is refused; also if it may leave more than `limits.wait` characters undecided.
    """
    node = parse(pattern, normal=normal)
    if node.positions() > LIMITS.wait or _has_loop(node):
        program = Program(pause=pause)
        _check(program, program.add(Rule("", node)), pause)
    return node


def _check(program: Program, start: int, pause: Callable[[], object]) -> None:
    """Refuses the pattern that begins at a node if it may wait too long."""
    paths = _Paths(program, start)
    chain = longest_chain(paths.successors, paths.weights, pause)
    if chain.length != ENDLESS and chain.length <= LIMITS.wait:
        return
    together = _Subsets(program, paths.consuming_from(start))
    if together.complete:
        exact = longest_chain(together.successors, [1] * len(together.successors), pause)
        if exact.length != ENDLESS and exact.length <= LIMITS.wait:
            return
    repeat = _repeat_to_bound(program, [paths.nodes[at] for at in chain.nodes], endless=chain.length == ENDLESS)
    waits = "without end" if chain.length == ENDLESS else f"for {chain.length} characters"
    raise BadPattern(
        f"`{repeat.source}`, with which the pattern may wait {waits} for its end,",
        repeat.at,
        f"bound it, so that it waits for {LIMITS.wait} characters at most: `{{0,200}}` in place of `*`",
    )


class WaitChain:
    """A longest chain.

    Args:
        length: The sum of its weights, or `ENDLESS`.
        nodes: Its nodes; of an endless one those of a cycle.
    """

    def __init__(self, length: int, nodes: list[int]) -> None:
        self.length = length
        self.nodes = nodes


def longest_chain(successors: list[list[int]], weights: list[int], pause: Callable[[], object] = nothing) -> WaitChain:
    """Returns the longest chain in a graph: the sum of the weights of its nodes.

    Tarjan's algorithm, without recursion: components are completed after those that they lead to.

    Args:
        successors: The nodes that each node leads to.
        weights: The weight of each node.
        pause: As of `compile_rules`.
    """
    count = len(successors)
    order = [-1] * count
    low = [0] * count
    lengths = [ENDLESS] * count
    best = [-1] * count
    onto: list[int] = []
    number = steps = 0
    longest = WaitChain(0, [])
    longest_at = -1
    for root in range(count):
        if order[root] >= 0:
            continue
        order[root] = low[root] = number
        number += 1
        onto.append(root)
        path = [root]
        places = [0]
        while path:
            steps += 1
            if steps % LIMITS.built == 0:
                pause()
            node = path[-1]
            if places[-1] < len(successors[node]):
                target = successors[node][places[-1]]
                places[-1] += 1
                if order[target] < 0:
                    order[target] = low[target] = number
                    number += 1
                    onto.append(target)
                    path.append(target)
                    places.append(0)
                elif lengths[target] == ENDLESS:
                    low[node] = min(low[node], order[target])
                continue
            path.pop()
            places.pop()
            if path:
                low[path[-1]] = min(low[path[-1]], low[node])
            if low[node] < order[node]:
                continue
            component = [onto.pop()]
            while component[-1] != node:
                component.append(onto.pop())
            inside = set(component)
            is_cycle = len(component) > 1 or node in successors[node]
            if is_cycle and any(weights[each] > 0 for each in component):
                return WaitChain(ENDLESS, component)
            length, through = 0, -1
            for each in component:
                for target in successors[each]:
                    if target not in inside and lengths[target] > length:
                        length, through = lengths[target], target
            length += weights[node] if not is_cycle else 0
            for each in component:
                lengths[each] = length
                best[each] = through
            if length > longest.length:
                longest.length = length
                longest_at = node
    while longest_at >= 0:
        longest.nodes.append(longest_at)
        longest_at = best[longest_at]
    return longest


def _has_loop(node: Node) -> bool:
    if isinstance(node, (Sequence, Alternatives)):
        return any(_has_loop(each) for each in node.parts)
    if isinstance(node, Repeat):
        return node.most == UNBOUNDED or _has_loop(node.inner)
    return False


class _Paths:
    """The nodes of one pattern as a graph: nodes behind which the pattern may end lead nowhere, and weigh nothing."""

    def __init__(self, program: Program, start: int) -> None:
        self._program = program
        self.nodes: list[int] = [start]
        self._index: dict[int, int] = {start: 0}
        for node in self.nodes:
            program.note(1)
            for target in self._targets(node):
                if target not in self._index:
                    self._index[target] = len(self.nodes)
                    self.nodes.append(target)
        ends = self._that_may_end()
        self.successors: list[list[int]] = []
        self.weights: list[int] = []
        for node in self.nodes:
            program.note(1)
            is_read = program.kinds[node] == CHARS
            if is_read and program.following[node] in ends:
                self.successors.append([])
                self.weights.append(0)
            else:
                self.successors.append([self._index[target] for target in self._targets(node)])
                self.weights.append(1 if is_read else 0)

    def consuming_from(self, start: int) -> list[int]:
        """Returns the nodes that read a character first, from a node."""
        return consuming(self._program, [start])[0]

    def _targets(self, node: int) -> tuple[int, ...]:
        kind = self._program.kinds[node]
        if kind == SPLIT:
            return self._program.targets[self._program.values[node]]
        return (self._program.following[node],) if kind == CHARS else ()

    def _that_may_end(self) -> set[int]:
        """Returns the nodes from which the end is reached without a character."""
        before: dict[int, list[int]] = {}
        waiting = []
        for node in self.nodes:
            self._program.note(1)
            kind = self._program.kinds[node]
            if kind == END:
                waiting.append(node)
            elif kind == SPLIT:
                for target in self._targets(node):
                    before.setdefault(target, []).append(node)
        found = set(waiting)
        while waiting:
            for node in before.get(waiting.pop(), ()):
                if node not in found:
                    found.add(node)
                    waiting.append(node)
        return found


def consuming(program: Program, starts: list[int]) -> tuple[list[int], bool]:
    """Returns the nodes that read a character first, from some nodes, in order, and whether the end is reached."""
    seen = set(starts)
    waiting = list(starts)
    found: list[int] = []
    ends = False
    while waiting:
        node = waiting.pop()
        kind = program.kinds[node]
        if kind == SPLIT:
            for target in program.targets[program.values[node]]:
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        elif kind == END:
            ends = True
        else:
            found.append(node)
    return sorted(found), ends


class _Subsets:
    """The sets of nodes that a pattern may be in together, as a graph without the transitions that may end it."""

    def __init__(self, program: Program, start: list[int]) -> None:
        self.successors: list[list[int]] = []
        self.complete = False
        """Whether they were found in `limits.subset_steps`."""
        known: dict[tuple[int, ...], int] = {tuple(start): 0}
        order = [tuple(start)]
        steps = 0
        for subset in order:
            targets: list[int] = []
            self.successors.append(targets)
            for code in _representatives(program, subset):
                steps += len(subset)
                program.note(len(subset))
                if steps > LIMITS.subset_steps:
                    return
                read = [
                    program.following[node]
                    for node in subset
                    if program.kinds[node] != BRANCH and contains(program.sets[program.values[node]], code)
                ]
                if not read:
                    continue
                found, ends = consuming(program, read)
                following = tuple(found)
                if following not in known:
                    known[following] = len(order)
                    order.append(following)
                if not ends and following:
                    targets.append(known[following])
        self.complete = True


def _representatives(program: Program, subset: tuple[int, ...]) -> list[int]:
    """Returns code points of which one is in each combination of the sets of some nodes."""
    found: set[int] = set()
    for each in {program.values[node] for node in subset}:
        found.update(program.sets[each])
    return sorted(found)


def _repeat_to_bound(program: Program, nodes: list[int], *, endless: bool) -> Repeat:
    """Returns the repeat that has most of a chain's nodes; of an endless one the innermost without a bound."""
    counts: dict[int, int] = {}
    repeats: dict[int, Repeat] = {}
    for node in nodes:
        within = program.within.get(node)
        while within is not None:
            repeat = within.repeat
            if repeat.most == UNBOUNDED if endless else repeat.most != 1:
                counts[id(repeat)] = counts.get(id(repeat), 0) + 1
                repeats[id(repeat)] = repeat
                break
            within = within.outer
    if endless:
        return min(repeats.values(), key=lambda each: len(each.source))
    return repeats[max(counts, key=lambda each: counts[each])]
