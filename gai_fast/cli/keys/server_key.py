"""Requests of `gai-fast key --server`, and of `gai-fast reload`, to a running server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from gai_fast.cli import Failure

if TYPE_CHECKING:
    from gai_fast.cli.admin_client import AdminClient
    from gai_fast.model.settings import Secret

_T = TypeVar("_T")


def at_server(
    url: str,
    key: Secret | None,
    ask: Callable[[AdminClient], Awaitable[_T]],
    variable: str = "GAI_FAST_KEY_API_KEY",
    option: str = "--server",
) -> _T:
    """Returns a server's answer to a request.

    Args:
        url: The server's URL, without a path.
        key: An admin's key, or None.
        ask: Sends the request.
        variable: The variable that holds the key, for messages.
        option: The option that names the server, for messages.

    Raises:
        Failure: No server answers, or it refuses.
    """
    from gai_fast.cli.admin_client import AdminClient, AdminError
    from gai_fast.cli.serve import run_async
    from gai_fast.cli.top.lines import printable

    answers: list[_T] = []

    async def main() -> None:
        async with AdminClient(url, key, variable, option) as client:
            try:
                answers.append(await ask(client))
            except AdminError as problem:
                raise Failure(printable(f"{url}: {problem}")) from None

    run_async(main())
    return answers[0]
