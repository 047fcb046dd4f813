"""The library: a gateway in process, a client of a server, and streams that a program pushes."""
