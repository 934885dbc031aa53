"""Checks of a dataset before anything is fitted on it."""
