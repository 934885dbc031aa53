"""The search for model and settings: trials side by side, judged on training images alone."""
