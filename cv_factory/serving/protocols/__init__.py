"""Protocols of the service besides its own REST routes; all call one ``PredictionService``."""
