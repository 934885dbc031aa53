"""ZenML pipelines: steps and their order, wiring only."""
