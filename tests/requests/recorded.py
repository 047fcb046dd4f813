"""Real requests, from the folder that `GAI_FAST_REQUESTS` names.

A folder in it has the name of a door and holds one JSON body per file, or any name and holds the notes beside recorded
answers, objects with `api`, `status` and `request`. Of those, answers of status 200 to whole requests of a client's
dialect are taken.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

VARIABLE = "GAI_FAST_REQUESTS"
RECORDED = "recorded "
"""How the names of these requests begin."""

_DOORS = {"openai.chat": "chat", "openai.responses": "responses", "anthropic.messages": "messages"}
_CUT = "_omitted_bytes"
"""A member of requests that a recorder did not keep whole."""


class OddFile(Exception):
    """A file of the folder is no request; the text names it."""


def recorded(doors: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns the requests of each door by name, without their models; none if no folder is named.

    Args:
        doors: The names of all doors.

    Raises:
        OddFile: There is no such folder, it has no requests, or a file in it is neither a body nor a note.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {door: {} for door in doors}
    name = os.environ.get(VARIABLE)
    if not name:
        return found
    for file in sorted(Path(name).glob("*/**/*.json")):
        path = file.relative_to(name)
        door, body = _read(file, path.parts[0], found.keys())
        if door:
            found[door][f"{RECORDED}{path.with_suffix('')}"] = {key: body[key] for key in body if key != "model"}
    if not any(found.values()):
        raise OddFile(f"{VARIABLE}={name}: no request in <door>/*.json; the doors are {', '.join(found)}")
    return found


def _read(file: Path, folder: str, doors: Iterable[str]) -> tuple[str, dict[str, Any]]:
    """Returns a file's door and body; the door is empty if its request is none of a client's dialect."""
    try:
        held = json.loads(file.read_bytes())
    except ValueError as problem:
        raise OddFile(f"{file}: not JSON: {problem}") from problem
    if not isinstance(held, dict):
        raise OddFile(f"{file}: a request is a JSON object")
    if folder in doors:
        return folder, held
    if not {"api", "status", "request"} <= held.keys():
        raise OddFile(f"{file}: `{folder}` is no door ({', '.join(doors)}), and this no note beside a recording")
    body = held["request"]
    if held["status"] != 200 or not isinstance(body, dict) or _CUT in body:
        return "", {}
    return _DOORS.get(held["api"], ""), body
