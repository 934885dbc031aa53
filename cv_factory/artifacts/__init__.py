"""Artifacts on disk and in object stores: files, arrays, transfers."""
