"""Who may ask the service, how often, and how it refuses to be started."""
