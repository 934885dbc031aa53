"""Lineage of a run's code: the git commit and the installed packages."""

import logging
import os
import re
import shlex
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_log = logging.getLogger(__name__)

#: ``https://user:password@host:8443/owner/name.git``, ``ssh://…``, ``git@host:owner/name.git``.
_REMOTE = re.compile(
    r"(?:(?P<scheme>https?|ssh|git)://(?:[^@/]+@)?(?P<host>[^:/@]+)(?P<port>:\d+)?/"
    r"|[^@/:]+@(?P<scp_host>[^:/@]+):)(?P<path>[^/].*?)(?:\.git)?/?"
)

_PACKAGES = (
    "zenml",
    "torch",
    "numpy",
    "scikit-learn",
    "onnx",
    "onnxruntime",
    "pillow",
    "mlflow",
    "great-expectations",
)


def git_lineage(root: Path) -> dict[str, str]:
    """Return ``git_commit`` and ``git_dirty`` of a checkout; ``unknown``, with a warning, if none.

    ``git_url`` is added where it was cloned from a server: without user, password and ``.git``.
    """
    try:
        commit = _git(root, "rev-parse", "HEAD")
        is_dirty = bool(_git(root, "status", "--porcelain"))
    except _GitError as error:
        _log.warning("The code's commit is recorded as 'unknown': %s", error)
        return {"git_commit": "unknown", "git_dirty": "unknown"}
    lineage = {"git_commit": commit, "git_dirty": str(is_dirty).lower()}
    with suppress(_GitError):  # it has no remote
        lineage |= _git_url(_git(root, "remote", "get-url", "origin"))
    return lineage


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that affect a predictor's bytes, as ``package_NAME``."""
    installed = {}
    for name in _PACKAGES:
        try:
            installed[f"package_{name}"] = version(name)
        except PackageNotFoundError:
            installed[f"package_{name}"] = "not installed"
    return installed


def _git_url(remote: str) -> dict[str, str]:
    """Return the web address of a remote as ``git_url``; nothing for one on this machine."""
    match = _REMOTE.fullmatch(remote)
    if match is None:
        return {}
    scheme = "http" if match["scheme"] == "http" else "https"
    # The port of SSH is not that of the pages.
    port = match["port"] or "" if match["scheme"] in ("http", "https") else ""
    return {"git_url": f"{scheme}://{match['host'] or match['scp_host']}{port}/{match['path']}"}


class _GitError(Exception):
    """Git is missing or refuses; the message says what to do."""


def _git(root: Path, *arguments: str) -> str:
    try:
        process = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise _GitError(f"git cannot be run ({error.strerror}). Install it.") from None
    if process.returncode:
        reason = process.stderr.strip().partition("\n")[0]
        advice = (
            f"Run: git config --global --add safe.directory {shlex.quote(str(root))}"
            if "dubious ownership" in reason
            else "Work in a clone of the project, with a commit."
        )
        raise _GitError(f"git says {reason!r}. {advice}")
    return process.stdout.strip()
