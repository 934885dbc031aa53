"""Errors of the machine are one sentence; faults of the program keep their traceback."""

import errno
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy
from safetensors import SafetensorError

from cv_factory.errors import ConfigError, describe_system_error, print_error


def raised_from(cause: Exception) -> Exception:
    """Return an error that was raised because of another, as libraries wrap them."""
    try:
        raise ValueError("wrapped") from cause
    except ValueError as error:
        return error


def statement_error(text: str) -> Exception:
    return sqlalchemy.exc.OperationalError("INSERT", {}, sqlite3.OperationalError(text))


FULL = "free some space (df -h shows what is full), and give the command again."


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "ignored", "/store/a"),
            f"/store/a: No space left on device: {FULL}",
        ),
        (raised_from(OSError(errno.EDQUOT, "")), f"Disk quota exceeded: {FULL}"),
        # As ZenML raises the error of a step's own process again.
        (OSError("[Errno 28] No space left on device"), f"No space left on device: {FULL}"),
        (
            SafetensorError("IoError(Os { code: 28, message: No space left on device })"),
            f"No space left on device: {FULL}",
        ),
        (RuntimeError("AWS says: Permission denied"), None),
        (
            PermissionError(errno.EACCES, "", "/data"),
            "/data: Permission denied: see that you may read and write there.",
        ),
        (
            statement_error("database or disk is full"),
            f"A SQLite database cannot be used, database or disk is full: {FULL}",
        ),
        (
            RuntimeError("(sqlite3.OperationalError) attempt to write a readonly database [SQL: …"),
            "A SQLite database cannot be used, attempt to write a readonly database: see that you "
            "may read and write there.",
        ),
        (
            ModuleNotFoundError("No module named 'httpx'", name="httpx"),
            "The Python module 'httpx' is not installed. Run: make setup",
        ),
        (
            raised_from(ModuleNotFoundError("", name="botocore.config")),
            "The Python module 'botocore.config' is not installed. Install the extra 'aws': make "
            "setup EXTRAS=aws",
        ),
        (KeyError("a fault"), None),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), None),
        (statement_error("no such table: run"), None),
    ],
)
def test_errors_of_the_machine_are_described(error: Exception, message: str | None) -> None:
    assert describe_system_error(error) == message


def test_a_command_prints_them_without_a_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert print_error(ConfigError("The key is wrong.")) == 2
    assert print_error(OSError(errno.EROFS, "", str(tmp_path))) == 1
    read_only = (
        f"Error: {tmp_path}: Read-only file system: see that you may read and write there.\n"
    )
    assert capsys.readouterr().err == f"Error: The key is wrong.\n{read_only}"
    with pytest.raises(KeyError, match="a fault"):
        print_error(KeyError("a fault"))
