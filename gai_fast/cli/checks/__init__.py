"""`gai-fast check` and `gai-fast doctor`: find faults of a configuration, a server or a proxy."""
