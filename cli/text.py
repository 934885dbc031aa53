"""Text that several commands print in the same form."""


def format_time(iso: str) -> str:
    """Format the time of an audit entry, ISO 8601 in UTC, for people."""
    return f"{iso.replace('T', ' ').removesuffix('+00:00')} UTC"
