"""Feast's own folder: `feast -c src/churn/feature_repo …` works on it."""
