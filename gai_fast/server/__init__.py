"""The server: routes, configuration, connections."""
