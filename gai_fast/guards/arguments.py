r"""The search of a call's arguments: JSON that arrives in pieces. Each string and each key is a text of its own.

Text outside a match stays as it came, with its own escapes. Held is what a string holds of its decoded text, and an
escape or a word that is not whole; what is between strings passes at once.

Arguments may be no JSON: the input of a custom tool is a text, and a model may write anything. They are JSON as long as
they begin as an object, an array or a string, and nothing but numbers, `_WORDS` and punctuation stands between their
strings. From where they are not, they are one text, with its quotation marks and backslashes.
"""

from __future__ import annotations

import json
import re
from collections import deque
from typing import Final, Protocol

from gai_fast.guards.automaton import Match, Piece, SearchTurn
from gai_fast.guards.characters import joined
from gai_fast.model.events import join_surrogates

_SPECIAL: Final = re.compile(r'["\\]')
_VISIBLE: Final = re.compile(r"[^ \t\r\n]")
_BEGINS: Final = frozenset('{["')
"""What JSON begins with that has strings."""
_FOREIGN: Final = re.compile(r"[^ \t\r\n{}\[\],:0-9.+-]")
"""What may stand between strings as a word of JSON at most."""
_LETTERS: Final = re.compile(r"[A-Za-z]*")
_WORDS: Final = ("true", "false", "null", "NaN", "Infinity", "e", "E")
"""The words between strings; the last two are parts of numbers. `NaN` and `Infinity` are no JSON, but many clients read
them, and the escapes behind them."""
_ESCAPES: Final = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ESCAPE: Final = re.compile(r"(?:\\u[0-9a-fA-F]{4})+|\\[^u]")
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_UNIT: Final = len("\\uXXXX")
_STRING_STEPS: Final = 8
"""The cost of one step of reading JSON, in steps of a turn, besides its characters."""
_LONE: Final = "\ufffd"
"""What half a pair of surrogates is compared as, and what is no escape."""
_HIGH: Final = (0xD800, 0xDBFF)
_LOW: Final = (0xDC00, 0xDFFF)


class TextSearch(Protocol):
    """The search of one text: a `Scan` or a `Restorer`."""

    @property
    def held(self) -> int:
        """The number of characters that are held."""

    @property
    def behind(self) -> int:
        """The number of characters for which no turn had room."""

    @property
    def certain(self) -> Match | None:
        """The match that has begun and may become longer. None if there is none."""

    def feed(self, text: str) -> list[Piece]:
        """Searches the next piece of the text."""

    def end(self) -> list[Piece]:
        """Ends the text. The next piece is the beginning of another text."""

    def reset(self) -> None:
        """Forgets the text."""


def escaped(text: str) -> str:
    """Returns a text as it stands within a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def unescaped(text: str) -> str:
    r"""Returns JSON with characters in place of `\uXXXX`, if JSON may have them: its value is the same."""
    return _ESCAPE.sub(_unescaped, text) if "\\u" in text else text


def _unescaped(found: re.Match[str]) -> str:
    written = found[0]
    return escaped(json.loads(f'"{written}"')) if written[1] == "u" else written


class ArgumentSearch:
    """The search of one call's arguments; used as a `Scan`. Pieces are JSON; matches have places in their own strings.

    Args:
        search: The search of a string, which begins again with each one.
        holds: Whether it holds text.
        turn: What all searches of the stream may take in a turn of the loop. None if there is no bound.
    """

    def __init__(self, search: TextSearch, *, holds: bool = True, turn: SearchTurn | None = None) -> None:
        self._search = search
        self._turn = turn
        self._rest = ""
        """The text for which no turn had room so far."""
        self._holds = holds
        self.is_text = False
        """Whether the arguments are no JSON; of those that have ended, until others begin."""
        self._has_begun = False
        """Whether the first character that is no white space has come."""
        self._word = ""
        """A word between strings that is not whole."""
        self._inside = False
        """Whether a string is open."""
        self._escape = ""
        """An escape that is not whole."""
        self._half = ""
        """A high surrogate whose other half may follow."""
        self._run: list[str] = []
        """Decoded text that was not searched yet."""
        self._length = 0
        """The length of the decoded string so far."""
        self._passed = 0
        """The index in the decoded string behind what has passed."""
        self._spelled: deque[tuple[int, str]] = deque()
        """The characters behind it that are escaped: their index, and how they are written."""
        self._out: list[Piece] = []
        self._texts: list[str] = []
        """What passes behind these."""

    @property
    def held(self) -> int:
        """The number of decoded characters that are held, and of those of an unfinished escape or word."""
        if not self._holds:
            return 0
        return self._search.held + len(self._escape) + len(self._half) + len(self._word)

    @property
    def behind(self) -> int:
        """The number of characters that the next turns search: by `feed`, with more text or none."""
        return len(self._rest) + self._search.behind

    @property
    def certain(self) -> Match | None:
        """The match that has begun in the string and may become longer. None if there is none."""
        return self._search.certain

    def feed(self, text: str) -> list[Piece]:
        """Searches the next piece of the arguments. Returns what is decided: JSON, and matches in place of theirs."""
        if self._half or not text.isascii():
            text, self._half = joined(self._half, text)
        if self._rest:
            text, self._rest = self._rest + text, ""
        text = self._search_piece(text)
        if self._holds:
            return self._taken()
        matches: list[Piece] = [each for each in self._taken() if isinstance(each, Match)]
        return [text, *matches] if text else matches

    def _search_piece(self, text: str) -> str:
        """Searches as much of a piece as the turn has room for; returns that."""
        turn = self._turn
        if self._search.behind:
            self._write(self._search.feed(""))
        at, size = 0, len(text)
        while at < size:
            if turn is not None and turn.left <= 0:
                self._rest = text[at:]
                text = text[:at]
                break
            before = at
            if self._escape:
                at = self._read_escape(text, at)
            elif not self._has_begun:
                at = self._begin(text, at)
            elif self.is_text:
                self._read(text[at:], "")
                at = size
            elif not self._inside:
                at = self._read_between(text, at)
            else:
                found = _SPECIAL.search(text, at)
                end = size if found is None else found.start()
                if end > at:
                    self._read(text[at:end], "")
                if end < size and text[end] == '"':
                    if turn is not None:
                        self._flush()
                    if self._search.behind:  # the string ends once it is searched
                        at = end
                        continue
                    self._close()
                elif end < size:
                    self._escape = "\\"
                at = end + 1
            if turn is not None:
                turn.left -= at - before + _STRING_STEPS
        self._flush()
        return text

    def end(self) -> list[Piece]:
        """Ends the arguments, and returns what is held. The next piece is the beginning of other arguments."""
        while self.behind:  # short: at most the text that the guard before this one has held
            if self._turn is not None:
                self._turn.begin()
            late, self._rest = self._rest, ""
            self._search_piece(late)
        rest = self._escape
        self._escape = ""
        if self._word in _WORDS:
            self._pass(self._word)
        elif self._word:
            self.is_text = True
            self._read(self._word, "")
        if self._half:
            self._read(_LONE, "")
        self._finish()
        if rest:
            self._pass(rest)
        pieces = self._taken()
        self.reset()
        return pieces if self._holds else [each for each in pieces if isinstance(each, Match)]

    def reset(self) -> None:
        """Forgets the arguments."""
        self._search.reset()
        self._inside = self._has_begun = False
        self._escape = self._half = self._word = self._rest = ""
        self._run.clear()
        self._length = self._passed = 0
        self._spelled.clear()
        self._out = []
        self._texts.clear()

    def _begin(self, text: str, at: int) -> int:
        """Reads white space before the arguments. Returns the index of their begin."""
        found = _VISIBLE.search(text, at)
        begin = len(text) if found is None else found.start()
        self._pass(text[at:begin])
        if found is not None:
            self._has_begun = True
            self.is_text = text[begin] not in _BEGINS
        return begin

    def _read_between(self, text: str, at: int) -> int:
        """Reads what stands between strings, up to a quotation mark or a word. Returns the index behind it."""
        size = len(text)
        if not self._word:
            found = _FOREIGN.search(text, at)
            begin, at = at, size if found is None else found.start()
            self._pass(text[begin:at])
            if found is None:
                return size
            if text[at] == '"':
                self._pass('"')
                self._inside = True
                return at + 1
        letters = _LETTERS.match(text, at)
        end = at if letters is None else letters.end()
        word = self._word + text[at:end]
        if end == size and any(each.startswith(word) for each in _WORDS):
            self._word = word
        elif word in _WORDS:
            self._word = ""
            self._pass(word)
        else:
            self._word = ""
            self.is_text = True
            self._read(word, "")
        return end

    def _read_escape(self, text: str, at: int) -> int:
        """Reads the next character of an escape. Returns the index behind it, or `at` if it is not a part of it."""
        character, escape = text[at], self._escape
        place = len(escape) % _UNIT
        if place == 0:  # a high surrogate, whose other half may follow
            if character == "\\":
                self._escape += character
                return at + 1
            self._escape = ""
            self._read(_LONE, escape)
            return at
        if place == 1:
            if character != "u" and len(escape) > 1:
                self._read(_LONE, escape[:_UNIT])
                self._escape = "\\"
                return at
            if character != "u":
                self._escape = ""
                self._read(_ESCAPES.get(character, character), escape + character)
                return at + 1
        elif character not in _HEX:
            self._escape = ""
            self._read(_LONE, escape)
            return at
        self._escape += character
        if len(self._escape) % _UNIT == 0:
            self._read_units()
        return at + 1

    def _read_units(self) -> None:
        r"""Reads one or two whole `\uXXXX`, of which the first of two is a high surrogate."""
        escape = self._escape
        code = int(escape[-4:], 16)
        is_second = len(escape) > _UNIT
        if is_second and _LOW[0] <= code <= _LOW[1]:
            self._escape = ""
            high = int(escape[2:_UNIT], 16)
            self._read(join_surrogates(chr(high) + chr(code)), escape)
            return
        if is_second:
            self._read(_LONE, escape[:_UNIT])
            escape = escape[_UNIT:]
        if _HIGH[0] <= code <= _HIGH[1]:
            self._escape = escape
            return
        self._escape = ""
        self._read(_LONE if _LOW[0] <= code <= _LOW[1] else chr(code), escape)

    def _read(self, decoded: str, written: str) -> None:
        """Adds decoded text of the string, and how it is written if that differs."""
        if written:
            self._spelled.append((self._length, written))
        self._run.append(decoded)
        self._length += len(decoded)

    def _flush(self) -> None:
        """Searches what was decoded."""
        if self._run:
            run = self._run[0] if len(self._run) == 1 else "".join(self._run)
            self._run.clear()
            self._write(self._search.feed(run))

    def _finish(self) -> None:
        """Ends the string."""
        self._flush()
        self._write(self._search.end())
        self._length = self._passed = 0

    def _close(self) -> None:
        self._finish()
        self._pass('"')
        self._inside = False

    def _write(self, pieces: list[Piece]) -> None:
        """Writes what the search has decided, as it came."""
        for piece in pieces:
            if isinstance(piece, Match):
                if self._holds:
                    self._skip(piece.end)
                self._gather()
                self._out.append(piece)
            else:
                self._pass(self._as_written(piece))

    def _as_written(self, text: str) -> str:
        """Returns the next decoded text that passes as it was written."""
        start = self._passed
        end = self._passed = start + len(text)
        spelled = self._spelled
        if not spelled or spelled[0][0] >= end:
            return text
        parts: list[str] = []
        cursor = start
        while spelled and spelled[0][0] < end:
            at, written = spelled.popleft()
            parts += (text[cursor - start : at - start], written)
            cursor = at + 1
        parts.append(text[cursor - start :])
        return "".join(parts)

    def _skip(self, end: int) -> None:
        """Leaves out the decoded text up to an index, which is part of a match."""
        self._passed = end
        spelled = self._spelled
        while spelled and spelled[0][0] < end:
            spelled.popleft()

    def _pass(self, text: str) -> None:
        if text:
            self._texts.append(text)

    def _gather(self) -> None:
        """Makes one piece of the texts that pass: each of them may be a single quotation mark."""
        texts = self._texts
        if texts:
            self._out.append(texts[0] if len(texts) == 1 else "".join(texts))
            texts.clear()

    def _taken(self) -> list[Piece]:
        self._gather()
        out, self._out = self._out, []
        return out
