"""Features of a pretrained backbone: its graph, and what it makes of every image."""
