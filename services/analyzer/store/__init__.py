"""PostgreSQL behind the protocols of `ports`, and the same in memory."""
