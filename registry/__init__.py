"""Versions, stages and lineage: the one place where ZenML's and MLflow's clients are used."""
