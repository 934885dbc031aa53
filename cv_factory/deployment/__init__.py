"""Deployment of bundles to endpoints: verification, lock, Bentos, local and SageMaker endpoints."""
