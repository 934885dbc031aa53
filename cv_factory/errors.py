"""The errors that a user may see. Each says what is wrong, where, and what to do about it."""


def missing_extra(extra: str) -> str:
    """Return the advice to install an extra of ``pyproject.toml`` in the clone."""
    return f"Install the extra '{extra}': make setup EXTRAS={extra}"


class CVFactoryError(Exception):
    """Base of every error that this project raises on purpose.

    ``run.py`` prints the message without a traceback and exits with ``exit_code``:
    1 the run failed, 2 wrong usage or configuration, 3 a gate refused.
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
    """A data source is not there, or is none: said before anything is created."""

    exit_code = 2


class ImageError(DataError):
    """One image cannot be decoded or is refused; the message is the reason."""


class DataRejectedError(DataError):
    """The dataset was read, and validation refuses it."""

    exit_code = 3


class ArtifactError(CVFactoryError):
    """A stored artifact is damaged, incomplete, of an unknown version, or not what it claims."""


class ExportError(CVFactoryError):
    """The exported predictor does not do what the trained model did."""


class TrainingError(CVFactoryError):
    """Training cannot start with these settings, or cannot go on."""
