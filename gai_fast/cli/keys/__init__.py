"""`gai-fast key`: keys in a configuration and in a server; `gai-fast reload`."""
