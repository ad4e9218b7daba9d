"""The watcher: reads the prediction log, judges drift and performance, decides, and starts a retraining."""
