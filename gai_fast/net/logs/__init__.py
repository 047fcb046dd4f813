"""The logs of durable streams as clients see them: published, followed, delivered, written."""
