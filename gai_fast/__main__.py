"""`python -m gai_fast` is `gai-fast`."""

from __future__ import annotations

from gai_fast.cli import main

if __name__ == "__main__":
    main(prog_name="gai-fast")
