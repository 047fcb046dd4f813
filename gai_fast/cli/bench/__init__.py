"""`gai-fast bench`: load for a server, and its figures."""
