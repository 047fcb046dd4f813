"""`gai-fast grpc`: streams of a running gateway over gRPC, package `gai.v1` (docs/grpc.md).

A client of the gateway, by `library/remote.py`: keys, limits and logs are the gateway's. Needs the extra `grpc`.
"""
