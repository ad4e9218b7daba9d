"""Answers `POST /predict` and `/predict/by-id` without ASGI; see README.md."""
