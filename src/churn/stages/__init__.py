"""One module a DVC stage: pure functions, and a `run()` that reads, calls them and writes."""
