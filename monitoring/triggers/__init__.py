"""Start a retraining: a command, a webhook or a Kubernetes Job."""
