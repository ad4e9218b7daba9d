"""The whole loop on one machine: `python -m demo` plays months against the real server, watcher and pipeline."""
