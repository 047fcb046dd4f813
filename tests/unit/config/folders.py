"""A folder with a configuration, and pieces of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gai_fast.config import ConfigError, Loaded, read

UPSTREAM = '[[upstream]]\nname = "main"\nprovider = "openai"\n'
KEY = f'[[key]]\nname = "alice"\nsecret = "sha256:{"a1" * 32}"\n'
GUARD = '[[guard]]\nname = "names"\nuse = "words"\nwords = ["kestrel"]\n'
BATCH = '[[processor]]\nuse = "batch"\ncharacters = 3\n'
MODEL = '[[model]]\nname = "fast"\nupstream = "main"\n'


class Folder:
    """A folder with a configuration."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "gai-fast.toml"

    def read(self, text: str | bytes, environ: dict[str, str] | None = None, **flags: Any) -> Loaded:
        self.file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read(self.file, environ=environ or {}, flags=flags)

    def problems(self, text: str | bytes, environ: dict[str, str] | None = None, **flags: Any) -> list[str]:
        """Returns every problem, with the folder left out."""
        with pytest.raises(ConfigError) as caught:
            self.read(text, environ, **flags)
        return [problem.replace(f"{self.path}/", "") for problem in caught.value.problems]
