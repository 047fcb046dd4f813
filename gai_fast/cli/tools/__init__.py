"""`gai-fast tools`: servers of tools."""
