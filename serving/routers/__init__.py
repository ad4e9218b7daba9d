"""The server's own routes, by topic."""
