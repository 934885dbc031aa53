"""Lineage of a run's code: the git commit and the installed packages."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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
    """Return ``git_commit`` and ``git_dirty`` of a checkout; ``unknown`` outside of one."""
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain")
    return {
        "git_commit": commit or "unknown",
        "git_dirty": "unknown" if commit is None else str(bool(status)).lower(),
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


def _git(root: Path, *arguments: str) -> str | None:
    try:
        process = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return process.stdout.strip()
