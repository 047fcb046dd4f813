"""The keys of a sealed store and their sources: `[store.encryption]`. `sealer.py` has the form of values.

Keys that cannot be used change nothing.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Sequence
from importlib.util import find_spec

from gai_fast.model.settings import SealSettings
from gai_fast.runtime.programs import Cancellation, ProgramError, output_of
from gai_fast.stores.backend import SealError
from gai_fast.stores.limits import LIMITS
from gai_fast.stores.sealer import KEY_BYTES, SECTION, Sealer


class Seals(Sealer):
    """The keys of one process, which seal and open values.

    Args:
        settings: `[store.encryption]`.

    Attributes:
        is_required: Whether records that are not sealed are ignored.
    """

    def __init__(self, settings: SealSettings) -> None:
        super().__init__()
        self.is_required = settings.required
        self._settings = settings
        self._lock = asyncio.Lock()  # else a slow program's keys would replace those of a later reload

    @staticmethod
    def is_available() -> bool:
        """Returns whether the package of the extra is installed. Does not import it."""
        return find_spec("cryptography") is not None

    async def load(self) -> None:
        """Gets the keys at the start. Does nothing if they are here.

        Raises:
            SealError: They cannot be used; the text says why, and what to do.
        """
        async with self._lock:
            if self._settings.has_keys and not len(self):
                await self._use(self._settings)

    async def use(self, settings: SealSettings) -> None:
        """Uses other keys from now on.

        Args:
            settings: `[store.encryption]`.

        Raises:
            SealError: They cannot be used: nothing has changed.
        """
        async with self._lock:
            await self._use(settings)

    async def _use(self, settings: SealSettings) -> None:
        if len(self) and not settings.has_keys:
            raise _unusable("there are no keys any more: a store that is sealed stays so")
        texts = await asyncio.to_thread(_printed, settings.command) if settings.command else _revealed(settings)
        keys = [*dict.fromkeys(map(read_key, texts))]
        if settings.command and not keys:
            raise _unusable("`command` prints no key")
        self.use_keys(keys)
        self._settings, self.is_required = settings, settings.required


def read_key(text: str) -> bytes:
    """Returns a key.

    Args:
        text: 32 bytes in base64.

    Raises:
        SealError: It is not a key. The error says nothing of the text.
    """
    try:
        key = b64decode(text, validate=True)
    except ValueError:  # also of a text that is not ASCII
        key = b""
    if len(key) != KEY_BYTES:
        raise _unusable("a key is not 32 bytes in base64: `openssl rand -base64 32` makes one")
    return key


def _revealed(settings: SealSettings) -> list[str]:
    return [each.reveal() for each in settings.keys]


def _printed(command: Sequence[str]) -> list[str]:
    """Returns the lines that the program prints: the texts of the keys."""
    try:
        printed = output_of(command, Cancellation(), seconds=LIMITS.seal_command, most=LIMITS.seal_output)
    except ProgramError as problem:
        raise _unusable(f"`command` {problem}: run it by hand") from None
    lines = printed.decode("ascii", "replace").split()
    if len(lines) > LIMITS.seal_keys:
        raise _unusable(f"`command` prints more than {LIMITS.seal_keys} keys")
    return lines


def _unusable(why: str) -> SealError:
    return SealError("unsuitable", f"{SECTION}: {why}")
