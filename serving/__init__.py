"""The production model behind an API: `python -m serving`."""
