"""Evaluation of a predictor: metrics, gates, plots, the model card. No torch, no ZenML."""
