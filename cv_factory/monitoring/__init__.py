"""Monitoring: predictions and labels from the field against the reference, and what follows."""
