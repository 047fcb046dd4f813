"""Measurements of gai-fast beside what else could do its work; see README.md. Not part of the distribution."""
