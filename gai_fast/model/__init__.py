"""The vocabulary: events, requests, errors, settings and figures. Imports no other part of the package."""
