"""`gai-fast check` and `gai-fast doctor`: what is wrong with a configuration, a server or a proxy."""
