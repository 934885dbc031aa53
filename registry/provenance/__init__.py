"""Provenance: statements about, and traces of, a predictor."""
