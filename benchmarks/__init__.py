"""Measurements of gai-fast beside other servers and libraries; see README.md. Not part of the distribution."""
