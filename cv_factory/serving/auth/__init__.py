"""Authentication, authorization and rate limits of the service."""
