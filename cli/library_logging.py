"""Logging of other libraries during a run of the command line."""

import logging
import sys
import warnings

#: Message with which ZenML announces an error that ``cli.main`` prints.
_ANNOUNCED_ERROR = "Failed to run step"


def quiet_libraries() -> None:
    """Hide tracebacks of failing steps and warnings of libraries.

    ZenML stores a failing step's traceback with the run, and ``--debug`` shows it. ``cli.main``
    prints the error itself once, at the end.
    """
    for handler in logging.getLogger().handlers:
        handler.addFilter(_without_traceback)
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    # It logs the traceback and the parameters of what it raises anyway.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def log_zenml_to_stderr() -> None:
    """Log ZenML's records to standard error, so that standard output is the command's alone."""
    from zenml.logger import ZenMLConsoleHandler

    for handler in logging.getLogger().handlers:
        if isinstance(handler, ZenMLConsoleHandler):
            handler.setStream(sys.stderr)


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info, record.exc_text = None, None
    return not record.getMessage().startswith(_ANNOUNCED_ERROR)
