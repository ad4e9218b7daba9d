"""MLflow: runs, registered versions, aliases and their artifacts."""
