"""`gai-fast top`: a server in a terminal."""
