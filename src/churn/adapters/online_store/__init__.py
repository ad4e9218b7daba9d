"""Reads of the features that Feast materialised, in SQLite or Redis."""
