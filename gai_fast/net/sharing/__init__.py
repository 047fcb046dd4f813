"""Answers that several streams share: one call to an upstream, read by each of them."""
