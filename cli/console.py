"""What is printed while a run goes on."""

import logging
import warnings


def quiet_tracebacks() -> None:
    """Keep tracebacks of failing steps and warnings of libraries off the console.

    ZenML stores a failing step's traceback with the run; ``--debug`` shows it here as well.
    """
    for handler in logging.getLogger().handlers:
        handler.addFilter(_without_traceback)
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", DeprecationWarning)


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info, record.exc_text = None, None
    return True
