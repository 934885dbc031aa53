"""Protocols of the service besides its own REST routes: doors to one ``PredictionService``."""
