"""The watcher: reads the prediction log, measures drift and performance, decides, and starts a retraining."""
