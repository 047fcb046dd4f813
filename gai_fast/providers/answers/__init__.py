"""Reads answers, whatever dialect they are in: the adapters' base, events, failures, calls of tools, usage."""
