"""Reads JSON: of requests its structure, of answers the chunks."""
