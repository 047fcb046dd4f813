"""The two paths of a request to its handler, the fast lane and aiohttp, and the route table."""
