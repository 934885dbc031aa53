"""The exceptions by which ZenML, or a store that cannot be reached, ends a run."""

import sys


def run_failures() -> tuple[type[Exception], ...]:
    """Return their classes; botocore's where this process uses it."""
    if "botocore" not in sys.modules:
        return (RuntimeError, OSError)
    from botocore.exceptions import BotoCoreError, ClientError

    return (RuntimeError, OSError, BotoCoreError, ClientError)
