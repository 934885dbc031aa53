"""Runners of ``run.py --pipeline``: a module is found by its pipeline's name and holds ``run``."""
