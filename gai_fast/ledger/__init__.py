"""Limits and spend of keys, shared by the workers of a server and by servers with one store."""

from __future__ import annotations

from gai_fast.ledger._base import By, Left, Period, RateLeft, SpendEntry, SpendRow
from gai_fast.ledger.ledger import Ledger
from gai_fast.ledger.local import LocalLedger

__all__ = ["By", "Ledger", "Left", "LocalLedger", "Period", "RateLeft", "SpendEntry", "SpendRow"]
