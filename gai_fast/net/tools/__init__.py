"""Servers of tools: the gateway as a client of the Model Context Protocol (MCP)."""
