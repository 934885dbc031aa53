"""Errors for users; each message says what is wrong, where, and what to do.

Those of this project are subclasses of ``CVFactoryError``. Those of the machine, such as a full
disk, no permission or a missing package, are described.
"""

import errno
import os
from collections.abc import Iterator

_FULL = "free some space (df -h shows what is full), and give the command again"
_FORBIDDEN = "see that you may read and write there"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _FORBIDDEN,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
}
#: Texts of SQLite's errors, which have no numbers.
_SQLITE_ADVICE = {
    "database or disk is full": _FULL,
    "attempt to write a readonly database": _FORBIDDEN,
    "unable to open database file": _FORBIDDEN,
}
_EXTRAS = {
    **dict.fromkeys(("boto3", "botocore", "sagemaker"), "aws"),
    **dict.fromkeys(("dvc", "psycopg", "s3fs"), "sources"),
}


def missing_extra(extra: str) -> str:
    """Return the advice to install an extra of ``pyproject.toml`` in the clone."""
    return f"Install the extra '{extra}': make setup EXTRAS={extra}"


class CVFactoryError(Exception):
    """Base class of this project's errors.

    ``run.py`` prints the message without a traceback and exits with ``exit_code``: 1 if the run
    failed, 2 for wrong usage or configuration, 3 if a gate refused.
    """

    exit_code = 1


class ConfigError(CVFactoryError):
    """A configuration file, a ``--set`` option or their combination is wrong."""

    exit_code = 2


class StackError(CVFactoryError):
    """A stack file or the stack registered from it is missing, incomplete or different."""

    exit_code = 2


class DataError(CVFactoryError):
    """The images or labels cannot be used as they are."""


class SourceError(DataError):
    """A data source does not exist or is of no known kind; raised before anything is created."""

    exit_code = 2


class ImageError(DataError):
    """One image cannot be decoded or is refused; the message is the reason."""


class DataRejectedError(DataError):
    """The dataset was read, and validation refuses it."""

    exit_code = 3


class ArtifactError(CVFactoryError):
    """A stored artifact is damaged, incomplete, of an unknown version or of another kind."""


class ExportError(CVFactoryError):
    """The exported predictor's outputs differ from those of the trained model."""


class TrainingError(CVFactoryError):
    """Training cannot start with these settings, or cannot continue."""


def print_error(error: Exception) -> int:
    """Print an error of this project or of the machine to standard error; return the exit code.

    Raises:
        Exception: It is none of these, but a fault of the program.
    """
    import click

    message = str(error) if isinstance(error, CVFactoryError) else describe_system_error(error)
    if message is None:
        raise error
    click.echo(f"{click.style('Error:', fg='red', bold=True)} {message}", err=True)
    return error.exit_code if isinstance(error, CVFactoryError) else 1


def describe_system_error(error: BaseException) -> str | None:
    """Return the message of an error of the machine, or of one that was raised from it.

    None for another error.
    """
    for cause in _chain(error):
        if (number := _error_number(cause)) in _ADVICE:
            filename = getattr(cause, "filename", None)
            place = f"{filename}: " if filename else ""
            return f"{place}{os.strerror(number)}: {_ADVICE[number]}."
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            extra = _EXTRAS.get(cause.name.partition(".")[0])
            advice = missing_extra(extra) if extra else "Run: make setup"
            return f"The Python module {cause.name!r} is not installed. {advice}"
        # Or an error with the text of one, as which ZenML raises a step's.
        if "OperationalError" in f"{type(cause).__name__} {cause}":
            for text in filter(str(cause).__contains__, _SQLITE_ADVICE):
                return f"A SQLite database cannot be used, {text}: {_SQLITE_ADVICE[text]}."
    return None


def _error_number(error: BaseException) -> int:
    """Return the number of a system's error, 0 if it is none.

    The text tells where safetensors, or ZenML for a step's own process, keeps it alone.
    """
    if isinstance(error, OSError) and error.errno:
        return error.errno
    numbers = _ADVICE if isinstance(error, OSError) else (errno.ENOSPC, errno.EDQUOT)
    return next((number for number in numbers if os.strerror(number) in str(error)), 0)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        # Not the context: a fault in an "except" block is a fault.
        error = error.__cause__
