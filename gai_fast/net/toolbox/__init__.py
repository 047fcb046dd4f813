"""The tools of a configuration: servers, web hooks and functions, as runs list and call them."""
