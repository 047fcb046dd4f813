"""A redis-server for the run, as the tests of stores have it."""

from tests.integration.stores.conftest import make_server, needs_redis, redis_server, shared_server

__all__ = ["make_server", "needs_redis", "redis_server", "shared_server"]
