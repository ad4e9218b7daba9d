"""Answers `POST /predict` without ASGI."""
