"""HTTP service of a bundled predictor; it imports nothing of training."""
