"""Reads requests: native ones, and of any dialect their shapes, ids, signatures and beginnings."""
