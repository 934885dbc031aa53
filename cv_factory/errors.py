"""Errors for users; each message says what is wrong, where, and what to do."""


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
