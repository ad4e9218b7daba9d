"""What uvicorn does not limit: heads, connections, bodies and their times."""
