"""A documentation server over MCP: models find and read your Markdown files.

pip install mcp
gai-fast tools call docs.search '{"words": "idempotency key"}' -c examples/docs_server.toml
"""

import sys
from pathlib import Path

from mcp.server import MCPServer
from mcp.types import ToolAnnotations

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "docs").resolve()
READ_ONLY = ToolAnnotations(read_only_hint=True)  # so that a call may be made again after a fault
server = MCPServer("docs", log_level="ERROR")


def pages():
    return {str(path.relative_to(FOLDER)): path for path in sorted(FOLDER.rglob("*.md"))}


@server.tool(annotations=READ_ONLY)
def search(words: str, limit: int = 5) -> list[str]:
    """Finds pages of the documentation. Returns their names, the best first."""
    wanted = words.lower().split()
    found = {name: path.read_text().lower() for name, path in pages().items()}
    points = {name: sum(text.count(word) for word in wanted) for name, text in found.items()}
    best = sorted((name for name in points if points[name]), key=lambda name: -points[name])
    return best[: max(1, min(limit, 20))]


@server.tool(annotations=READ_ONLY)
def read(name: str) -> str:
    """Returns a page of the documentation, by the name that `search` gives."""
    page = pages().get(name)  # no path of a model's is opened
    if page is None:
        raise ValueError(f"there is no page {name}")
    return page.read_text()


if __name__ == "__main__":
    server.run("stdio")
