"""The whole system in containers: what starts it beside docker-compose.yml, and what proves it."""
