"""The mirror of the registry in MLflow, and experiment tracking."""
