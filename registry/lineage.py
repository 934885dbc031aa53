"""Lineage of a run's code: the git commit and the installed packages."""

import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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
    """Return ``git_commit`` and ``git_dirty`` of a checkout; ``unknown`` outside of one.

    ``git_url`` is added where it was cloned from a server: without user, password and ``.git``.
    """
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain")
    return {
        "git_commit": commit or "unknown",
        "git_dirty": "unknown" if commit is None else str(bool(status)).lower(),
        **_git_url(_git(root, "remote", "get-url", "origin") if commit else None),
    }


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that affect a predictor's bytes, as ``package_NAME``."""
    installed = {}
    for name in _PACKAGES:
        try:
            installed[f"package_{name}"] = version(name)
        except PackageNotFoundError:
            installed[f"package_{name}"] = "not installed"
    return installed


def _git_url(remote: str | None) -> dict[str, str]:
    """Return the web address of a remote as ``git_url``; nothing for one on this machine."""
    match = _REMOTE.fullmatch(remote or "")
    if match is None:
        return {}
    scheme = "http" if match["scheme"] == "http" else "https"
    # The port of SSH is not that of the pages.
    port = match["port"] or "" if match["scheme"] in ("http", "https") else ""
    return {"git_url": f"{scheme}://{match['host'] or match['scp_host']}{port}/{match['path']}"}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        process = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return process.stdout.strip()
