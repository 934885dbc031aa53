"""The exceptions by which ZenML, or a store that cannot be reached, ends a run."""

try:
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:  # without the extra aws
    PIPELINE_RUN_ERRORS: tuple[type[Exception], ...] = (RuntimeError, OSError)
else:
    PIPELINE_RUN_ERRORS = (RuntimeError, OSError, BotoCoreError, ClientError)
