"""Subcommands of ``run.py``: a module is found by its name and holds ``command``."""
