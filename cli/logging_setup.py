"""Logging of the command line, configured in this one place; other modules only log."""

import logging
import warnings

import click

_PRODUCT_LOGGERS = ("cv_factory", "registry", "stacks")
#: Message with which ZenML announces an error that ``cli.main`` prints.
_ANNOUNCED_ERROR = "Failed to run step"


class _StderrHandler(logging.Handler):
    """Handler that prints to the present standard error, which tests and ZenML replace."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, indented below ZenML's lines."""
        click.echo(f"  {self.format(record)}", err=True)


def configure_logging() -> None:
    """Print the records of this project to standard error, from level INFO; idempotent."""
    for name in _PRODUCT_LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.handlers = [_StderrHandler()]


def quiet_libraries() -> None:
    """Hide tracebacks of failing steps and warnings of libraries.

    ZenML stores a failing step's traceback with the run, and ``--debug`` shows it. ``cli.main``
    prints the error itself once, at the end.
    """
    for handler in logging.getLogger().handlers:
        handler.addFilter(_without_traceback)
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    for name in ("matplotlib", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info, record.exc_text = None, None
    return not record.getMessage().startswith(_ANNOUNCED_ERROR)
