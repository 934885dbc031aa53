"""Request and prediction logs of the service."""
