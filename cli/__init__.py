"""The commands behind run.py: one module a command, light to import."""
