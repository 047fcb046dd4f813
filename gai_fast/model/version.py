"""The version; `pyproject.toml` reads it from this file."""

__version__ = "0.1.0"


def installing(extra: str) -> str:
    """Returns the command that installs an extra, for messages: nothing is published yet.

    Args:
        extra: Its name.
    """
    return f"pip install '.[{extra}]' in a clone of gai-fast"
