"""How good a predictor is: metrics, gates, plots, the model card. No torch and no ZenML."""
