"""Tests of cv_factory.monitoring."""
