"""The kinds of requests that start streams, or ask what one would count."""
