"""Logging of the command line, configured in this one place."""

import logging
import warnings

#: How ZenML announces an error that ``cli.main`` prints.
_SAID_LATER = ("Failed to run step",)


def quiet_tracebacks() -> None:
    """Keep tracebacks of failing steps and warnings of libraries off the console.

    ZenML stores a failing step's traceback with the run; ``--debug`` shows it here as well. The
    error itself is printed once, at the end, by ``cli.main``.
    """
    for handler in logging.getLogger().handlers:
        handler.addFilter(_worth_showing)
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    for name in ("matplotlib", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _worth_showing(record: logging.LogRecord) -> bool:
    record.exc_info, record.exc_text = None, None
    return not record.getMessage().startswith(_SAID_LATER)
