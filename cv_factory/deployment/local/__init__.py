"""Deployment on this machine: a service process behind a proxy."""
