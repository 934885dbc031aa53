"""The configuration of the pipelines: one section a file."""
