"""What the routes do: streams, durable streams, chats, responses, caching, idempotency."""
