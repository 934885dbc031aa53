"""Training by several processes on one or more machines."""
