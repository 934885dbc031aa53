"""The service: a bundled predictor behind HTTP, and what guards it; it knows no training."""
