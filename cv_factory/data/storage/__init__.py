"""Reads bytes from where images lie: folders, object stores, HTTP, and secrets from variables."""
