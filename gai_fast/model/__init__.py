"""The vocabulary: events, requests, errors, settings and figures. Imports nothing else of the package."""
