"""`tests/docs/pages.py`: the parts of a page that it reads, and the differences of an output that it notices."""

from __future__ import annotations

from tests.docs.pages import blocks, coded, matches, rows, section

PAGE = """# Page
## One
| name | |
|---|---|
| `a` `b` | x |
```bash
# no heading
| no | table |
```
## Two
```text
out
```
"""


def test_blocks_have_their_section_and_line() -> None:
    assert [(block.section, block.language, block.line) for block in blocks(PAGE)] == [
        ("One", "bash", 7),
        ("Two", "text", 12),
    ]


def test_rows_are_those_of_tables_outside_blocks() -> None:
    assert rows(PAGE) == [["name", ""], ["`a` `b`", "x"]]
    assert rows(section(PAGE, "Two")) == []
    assert coded("`a` and `b c`") == ["a", "b c"]


def test_a_difference_in_text_status_or_header_is_noticed() -> None:
    page = 'HTTP/1.1 404 Not Found\nallow: GET\n\n{"id":"aaaaaaaaaaaaaaaaaaaaaa","code":"not_found",…}\n'
    head = "HTTP/1.1 404 Not Found\r\nX: y\r\nAllow: GET\r\n\r\n"
    reply = head + '{"id":"bbbbbbbbbbbbbbbbbbbbbb","code":"not_found","more":1}'
    assert matches(page, reply)
    for right, wrong in (("404", "403"), ("GET", "PUT"), ("not_found", "forbidden"), ("}", "} and more")):
        assert not matches(page, reply.replace(right, wrong))
