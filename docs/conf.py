"""The site of these pages: `make docs` builds it with Sphinx into build/site, without a network.

The pages stay ordinary Markdown that reads as well in the repository. Its root is the source folder, so that links to
`../CHANGES.md` and `../examples/README.md` lead to pages here too. The README is the start page; its section
"Documentation" is the one home of the order of the pages.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from sphinx.application import Sphinx

from gai_fast import __version__

project = "gai-fast"
version = release = __version__
root_doc = "README"
include_patterns = [
    "README.md",
    "CHANGES.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/*.md",
    "docs/architecture/*.md",
    "benchmarks/README.md",
    "ci/README.md",
    "benchmarks/HISTORY.md",
    "examples/README.md",
    "programs/README.md",
    "tests/README.md",
]
exclude_patterns = [".*", "**/.*", "build", "dist", "deploy", "gai_fast"]  # folders that are not even looked through
extensions = ["myst_parser"]
myst_heading_anchors = 4  # links name headings as on GitHub: `page.md#a-heading`
highlight_language = "text"

html_theme = "furo"
html_title = f"gai-fast {release}"
html_show_copyright = False
html_use_index = False  # nothing is indexed: there is no autodoc
html_copy_source = False
html_theme_options: dict[str, object] = {"top_of_page_buttons": []}  # they would link to a repository

_PART: Final = re.compile(r"^### ([^\n]+)\n(.*?)(?=^#|\Z)", re.S | re.M)
_PAGE: Final = re.compile(r"\]\(([\w/-]+)\.md\)")


def _add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """Gives the start page the tables of contents that the site navigates by: one for each part of "Documentation"."""
    if name != app.config.root_doc:
        return
    parts = source[0].partition("\n## Documentation\n")[2].partition("\n## ")[0]
    for caption, pages in _PART.findall(parts):
        names = "\n".join(_PAGE.findall(pages))
        source[0] += f"\n\n```{{toctree}}\n:caption: {caption}\n:hidden:\n\n{names}\n```\n"


def _add_index(app: Sphinx, problem: Exception | None) -> None:
    """Gives the start page the name under which servers and browsers look for it."""
    if problem is None:
        shutil.copy(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> None:
    """Adds to Sphinx what is done here."""
    app.connect("source-read", _add_contents)
    app.connect("build-finished", _add_index)
