"""Ids in forms: found however the form is cut, and however a lenient server would read them."""

from __future__ import annotations

import pytest

from gai_fast.model.errors import Error
from gai_fast.server.pass_through.form_ids import FormIds
from tests.limits import LIMITS

MULTIPART = "multipart/form-data; boundary=xyz"
QUERY = "application/x-www-form-urlencoded"


def part(disposition: str, value: str, *, end: str = "\r\n", more: str = "") -> bytes:
    return f"--xyz{end}Content-Disposition: form-data{disposition}{end}{more}{end}{value}{end}".encode()


def ids(body: bytes, kind: str = MULTIPART, size: int = 0) -> list[str]:
    form, found = FormIds(kind), []
    pieces = [body[at : at + size] for at in range(0, len(body), size)] if size else [body]
    for piece in pieces:
        found += form.feed(piece)
    return [each.identifier for each in [*found, *form.feed(b"", is_last=True)]]


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize(
    "body",
    [
        part('; name="file_id"', "file-1") + b"--xyz--\r\n",
        part("; name=file_id", "file-1") + b"--xyz--\r\n",
        part('; NAME = "File\\_ID"', "file-1") + b"--xyz--\r\n",
        part(";\r\n name=file_id", "file-1") + b"--xyz--\r\n",
        part('; other="; name=x"; name="file_id"', "file-1") + b"--xyz--\r\n",
        part('; name="file_id"; name="x"', "file-1") + b"--xyz--\r\n",
        part('; name="x\\"; name="file_id"', "file-1") + b"--xyz--\r\n",
        part(" name='file_id'", "file-1") + b"--xyz--\r\n",
        part('; name="file_id', "file-1") + b"--xyz--\r\n",
        part('; name="images[0][file_id]"', "file-1") + b"--xyz--\r\n",
        part('; name="file%5Fid"', "file-1") + b"--xyz--\r\n",
        part('; name="file_ids[]"', "file-1", more="Content-Type: text/plain\r\n") + b"--xyz--\r\n",
        part('; name="model"', "m") + part('; name="file_id"', "file-1") + b"--xyz--\r\n",
        part('; name="file"; filename="a.wav"', "\x00" * 20_000) + part('; name="file_id"', "file-1") + b"--xyz--",
        part('; name="file_id"', "file-1"),
    ],
)
def test_a_field_of_several_parts_names_an_id(body: bytes, size: int) -> None:
    assert ids(body, size=size if len(body) < 1000 else 0 if size == 1 else size) == ["file-1"]


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize(
    "body",
    [
        part("; name=file_id", "file-1", end="\n") + b"--xyz--\n",
        part('; name="file_id"', "file-1", more="X: a\n\nfile-mine\n--y: b\r\n"),
        part('; name="file_id"', "file-1", more="X: a\r\rfile-mine\r--y: b\r\n"),
        part("; other=x\n; name=file_id", "file-1"),
        part('; name="=?utf-8?B?ZmlsZV9pZA==?="', "file-1"),
        part("; name==?utf-8?Q?file=5Fid?=", "file-1"),
        part('; name="=?utf-8?Q?file?= =?utf-8?Q?=5Fid?="', "file-1"),
        part("; name*=utf-8''file%5Fid", "file-1"),
        part("; name*1=_id; name*0=file", "file-1"),
        part("; name=a" * 5, "file-1"),
        b'--xyz\r\nContent-Disposition: form-data; name="file_id"\n\nfile-1',
    ],
)
def test_a_head_that_servers_read_differently_is_refused(body: bytes, size: int) -> None:
    with pytest.raises(Error, match="not clear"):
        ids(body, size=size)


def test_an_empty_field_names_none() -> None:
    assert ids(part('; name="file_id"', " ") + b"--xyz--") == []
    assert ids(b"file_id=&a=b", QUERY) == []


@pytest.mark.parametrize("size", [0, 1])
def test_other_fields_name_none(size: int) -> None:
    body = part('; name="prompt"', "file_id") + part('; name="file"; filename="file_id"', 'name="file_id"')
    assert ids(body + part('; name="language"', "x" * 500) + b"--xyz--", size=size) == []


def test_a_field_of_a_query_names_an_id() -> None:
    assert ids(b"model=m&file%5Fid=file-1&a=b", QUERY) == ["file-1"]
    for size in (0, 1, 7):
        assert ids(b"model=m&file_id=file-1", QUERY, size=size) == ["file-1"]
        assert ids(b"model=m;images[][file_id]=file-1;a", QUERY, size=size) == ["file-1"]
    assert ids(b"model=m&prompt=file_id&a", QUERY) == []
    assert ids(b"prompt=" + b"x" * 30_000 + b"&file_ids[]=f&a=b", QUERY, size=5_000) == ["f"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (MULTIPART, b"--xyz\r\nContent-Disposition: form-data; name=" + b"x" * 9_000),
        (MULTIPART, part('; name="file_id"', "x" * 9_000)),
        (QUERY, b"x" * 9_000),
    ],
)
def test_what_is_kept_of_a_form_is_limited(kind: str, body: bytes) -> None:
    with pytest.raises(Error, match=f"longer than {LIMITS.form_head} bytes"):
        FormIds(kind).feed(body)
    if kind == MULTIPART:
        with pytest.raises(Error, match=f"longer than {LIMITS.form_head} bytes"):
            FormIds(kind).feed(body, is_last=True)


def test_a_form_of_many_heads_is_read_once() -> None:
    head = b"content-disposition:;name=file_id\r\n\r\n"
    with pytest.raises(Error, match="longer than"):
        FormIds(MULTIPART).feed(head * 20_000, is_last=True)
    assert len(FormIds(MULTIPART).feed(head * 200, is_last=True)) == 1
