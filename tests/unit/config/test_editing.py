"""`config/editing.py`: what is changed is changed, and every other byte stays."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.config.editing import EditError, add_key, add_secret, remove_key

TEXT = '''# The gateway of the team.
[server]
port = 1   # not [[key]]

# Alice is first.
[[key]]
name = "alice"     # hers
secret = "sha256:aa"  # from 2026, "quoted"

# Bob's key
[[ "key" ]]
name = 'bob'
models = [
  # [[key]]
  "fast",
  "[[key]]",
]
'secret' = [
  "env:OLD",  # of last year
  'env:NEW',  # of this year
]
spend = {amount = 1, period = "day"}

# The limits of all.
[limits]
streams = 5

# Carol
[[key]]
secret = ["env:C"]
name = """
carol"""
[key.spend]
amount = 5
period = "day"

# The end.
'''
ALICE = '[[key]]\nname = "alice"     # hers\nsecret = "sha256:aa"  # from 2026, "quoted"\n'
BOB = TEXT[TEXT.index('[[ "key" ]]') : TEXT.index("\n# The limits")]
CAROL = TEXT[TEXT.index('[[key]]\nsecret = ["env:C"]') : TEXT.index("\n# The end")]


def crlf(text: str) -> str:
    return text.replace("\n", "\r\n")


@pytest.mark.parametrize(("index", "block"), [(0, ALICE), (1, BOB), (2, CAROL)])
def test_a_key_that_is_removed_takes_its_lines_with_it_and_no_others(index: int, block: str) -> None:
    assert remove_key(TEXT, index) == TEXT.replace(block, "")
    assert remove_key(crlf(TEXT), index) == crlf(TEXT.replace(block, ""))


def test_of_the_empty_lines_around_a_table_one_is_left() -> None:
    text = 'a = 1\n\n[[key]]\nname = "a"\n\n[[key]]\nname = "b"\n\n[server]\n'
    assert remove_key(text, 0) == 'a = 1\n\n[[key]]\nname = "b"\n\n[server]\n'
    assert remove_key(remove_key(text, 0), 0) == "a = 1\n\n[server]\n"
    assert remove_key(crlf(text), 1) == crlf('a = 1\n\n[[key]]\nname = "a"\n\n[server]\n')


def test_the_last_key_can_be_removed() -> None:
    assert remove_key('[[key]]\nname = "a"\n', 0) == ""
    assert remove_key('[[key]]\nname = "a"', 0) == ""
    assert remove_key('a = 1\n[[key]]\nname = "a" # x', 0) == "a = 1\n"


@pytest.mark.parametrize(
    ("index", "old", "new"),
    [
        (0, '"sha256:aa"  # from', '["sha256:aa", "sha256:bb"]  # from'),
        (1, "\"env:OLD\",  # of last year\n  'env:NEW',  # of", "'env:NEW', \"sha256:bb\",  # of"),
        (2, '["env:C"]', '["env:C", "sha256:bb"]'),
    ],
)
def test_another_secret_stands_behind_the_newest_one(index: int, old: str, new: str) -> None:
    assert add_secret(TEXT, index, "sha256:bb") == TEXT.replace(old, new)
    assert add_secret(crlf(TEXT), index, "sha256:bb") == crlf(TEXT.replace(old, new))


def test_each_further_secret_drops_the_oldest() -> None:
    text = TEXT
    for number in range(4):
        text = add_secret(text, 0, f"env:K{number}")
    assert text == TEXT.replace('"sha256:aa"', '["env:K2", "env:K3"]')
    text = add_secret('[[key]]\nsecret = ["a", "b", "c"]', 0, "d")
    assert text == '[[key]]\nsecret = ["b", "c", "d"]'


@pytest.mark.parametrize("text", ["", "\n", "# none", TEXT, TEXT.rstrip(), "a = 1\r\n", "a = 1\r\nb = 2"])
def test_a_key_is_added_at_the_end(text: str) -> None:
    after = add_key(text, ["[[key]]", 'name = "d"'])
    assert after.startswith(text)
    newline = "\r\n" if "\r" in text else "\n"
    assert after.endswith(f'[[key]]{newline}name = "d"{newline}')
    assert after.count("\n") == after.count(newline)
    assert tomllib.loads(after)["key"][-1] == {"name": "d"}


@pytest.mark.parametrize(
    "text",
    [
        'key = [{name = "a", secret = "env:A"}]',
        'key = [\n{name = "a", secret = "env:A"}\n]\n[server]\nport = 1\n',
    ],
)
def test_keys_that_are_no_tables_of_their_own_are_left_to_people(text: str) -> None:
    for change in (lambda: remove_key(text, 0), lambda: add_secret(text, 0, "x")):
        with pytest.raises(EditError, match="its `key` number 1 is no \\[\\[key\\]\\] table of its own"):
            change()
    with pytest.raises(EditError, match="only people can change: edit it"):
        add_key(text, ["[[key]]", 'name = "b"'])
    for odd in ("key = 1\n", "[key]\n"):
        with pytest.raises(EditError, match="its `key` is no list of tables"):
            add_key(odd, ["[[key]]", 'name = "b"'])


@pytest.mark.parametrize(
    "secret", ['secret.x = "a"', 'secret = [{a = "b"}]', "secret = []", "secret = 5", "[key.secret]\nx = 1"]
)
def test_a_secret_that_is_none_is_left_to_people(secret: str) -> None:
    with pytest.raises(EditError):
        add_secret(f'[[key]]\nname = "a"\n{secret}\n', 0, "x")


def test_a_secret_may_be_written_in_any_way() -> None:
    for written in ("'a'", '"\\u0061"', '"""a"""', "'''\na'''", "[ 'a' ]", '["a",]', '[\n# one\n"a"\n# two\n]'):
        text = f"[[key]]\nsecret = {written}\n"
        assert tomllib.loads(add_secret(text, 0, "b"))["key"] == [{"secret": ["a", "b"]}]
        assert add_secret(text, 0, "b").count("#") == text.count("#")


_PIECES = st.sampled_from(
    [
        *('[[key]]\nname = "a"\nsecret = "env:A"\n', '[[key]]\nsecret = ["env:A", "env:B"]\n', "[[key]] # x\n"),
        *("[server]\n", "[limits]\n", "[[model]]\n", '[[model.x]]\ny = "["\n', "# [[key]]\n", "\n", "  # '''\n"),
        *('x = """\n[[key]]\n"""\n', "y = [\n[1], # ]\n[2]]\n", "z = '#'\n", "[key.spend]\namount = 1\n"),
    ]
)


@given(st.lists(_PIECES, max_size=12), st.integers(0, 3))
def test_whatever_the_document_a_change_is_right_or_there_is_none(pieces: list[str], index: int) -> None:
    """The result is checked inside; here: no other error, and comments outside the table stay."""
    text = "".join(pieces)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    for change in (lambda: remove_key(text, index), lambda: add_secret(text, index, "new")):
        try:
            after = tomllib.loads(change())
        except EditError:
            keys = document.get("key")
            is_apart = "[key.spend]" in text  # perhaps behind another table
            assert is_apart or not isinstance(keys, list) or len(keys) <= index or "secret" not in keys[index]
        else:
            assert after != document
