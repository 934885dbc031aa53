"""Exceptions of fsspec's file systems, and their description for messages."""

from typing import Any


def get_filesystem_errors(filesystem: Any) -> tuple[type[Exception], ...]:
    """Return what a file system (an ``fsspec.AbstractFileSystem``) raises on failure."""
    errors: list[type[Exception]] = [OSError, ValueError]
    if "s3" in filesystem.protocol:
        from botocore.exceptions import BotoCoreError, ClientError

        errors += [BotoCoreError, ClientError]
    if "dvc" in filesystem.protocol:
        from dvc.exceptions import DvcException

        errors.append(DvcException)
    return tuple(errors)


def describe_error(error: Exception) -> str:
    """Return why a file cannot be read or written, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
