"""`config/file.py`: what is read as TOML, and the line of each key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gai_fast.cli.config import toml
from gai_fast.config import SECTIONS, ConfigError, load
from gai_fast.config.file import line_numbers
from tests.limits import LIMITS
from tests.unit.config.folders import Folder


class TestFile:
    def test_windows_line_ends_and_a_byte_order_mark_are_taken(self, folder: Folder) -> None:
        assert folder.read(b"\xef\xbb\xbf[server]\r\nport = 1\r\n").settings.server.port == 1

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"[server\nport = 1", "gai-fast.toml:1:8: "),
            (b"a = 1\nb = ", "gai-fast.toml:2: "),
            (b"a = 1\n\xff", "gai-fast.toml:2: not UTF-8"),
            (b"a = " + b"[" * 20000, "gai-fast.toml: nested too deep"),
            (b"a = " + b"1" * 10000, "gai-fast.toml: "),
            (b"#" * (LIMITS.config_file + 1), "larger than"),
        ],
    )
    def test_what_is_no_toml_is_reported_with_its_place(self, folder: Folder, content: bytes, problem: str) -> None:
        [message] = folder.problems(content)
        assert problem in message

    def test_a_file_that_is_not_there_or_no_file_is_reported(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
            load(tmp_path / "none.toml", environ={})
        with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
            load(tmp_path, environ={})


class TestLineNumbers:
    def test_strings_and_comments_hold_no_keys(self) -> None:
        source = '''# [server]
a = """
b = 1
# c = 2
"""
d = \'\'\'
[e]
\'\'\' # f = "
"g h" = "# not a comment"
[[i]]
j = { k = 1 }
[i.l]
m = 1
[[i]]
n.o = 1
'''
        assert line_numbers(source) == {
            ("a",): 2,
            ("d",): 6,
            ("g h",): 9,
            ("i",): 10,
            ("i", 0): 10,
            ("i", 0, "j"): 11,
            ("i", 0, "l"): 12,
            ("i", 0, "l", "m"): 13,
            ("i", 1): 14,
            ("i", 1, "n"): 15,
            ("i", 1, "n", "o"): 15,
        }


_NAMES = st.sampled_from([*SECTIONS["server"], *SECTIONS["upstream"], *SECTIONS["model"], "other"])
_VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20) | _NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)
_TABLES = st.dictionaries(_NAMES | st.text(max_size=6), _VALUES, max_size=6)
_SECTIONS = st.sampled_from([*SECTIONS]) | st.text(max_size=6)
_DOCUMENTS = st.dictionaries(_SECTIONS, _TABLES | st.lists(_TABLES, max_size=3) | _VALUES, max_size=4)


def as_file(document: dict[str, Any]) -> bytes:
    return "\n".join(f"{toml(name)} = {toml(value)}" for name, value in document.items()).encode("utf-8", "replace")


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


@settings(max_examples=settings().max_examples * 3 // 4)
@given(content=st.binary(max_size=60) | _DOCUMENTS.map(as_file))
def test_any_file_is_read_or_refused_with_one_line_for_each_problem(shared_folder: Path, content: bytes) -> None:
    """Never another exception, and no line of a problem can be taken for two."""
    problems: tuple[str, ...] = ()
    try:
        Folder(shared_folder).read(content)
    except ConfigError as refused:
        problems = refused.problems or ("a refusal without a reason",)
    for line in problems:
        assert line.startswith(str(shared_folder))
        assert line.isprintable()
