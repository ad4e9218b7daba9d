"""The feature store: definitions, point-in-time join, materialisation."""
