"""Event, request and prediction logs of the service."""
