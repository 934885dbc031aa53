"""Images and labels: where they come from, how they are decoded, kept and divided."""
