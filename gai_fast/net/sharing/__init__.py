"""Answers that several streams share: each stream reads one call to an upstream."""
