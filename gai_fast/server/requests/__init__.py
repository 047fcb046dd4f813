"""The handlers of the routes: streams, durable streams, chats, responses, caching, idempotency."""
