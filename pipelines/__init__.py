"""What runs, in which order: wiring only."""
