"""The exceptions by which a store or server that cannot be reached ends a run."""

import sys


def remote_failures() -> tuple[type[Exception], ...]:
    """Return their classes; botocore's where this process uses it."""
    if "botocore" not in sys.modules:
        return (OSError,)
    from botocore.exceptions import BotoCoreError, ClientError

    return (OSError, BotoCoreError, ClientError)
