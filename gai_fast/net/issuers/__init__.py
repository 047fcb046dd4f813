"""OIDC issuers of callers' tokens: their keys, and the check of a token."""
