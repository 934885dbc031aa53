"""The address that a checkout was cloned from, without what identifies its user."""

import logging
import subprocess
from pathlib import Path

import pytest

from registry.lineage import git_lineage

ADDRESSES = {
    "https://github.com/owner/name.git": "https://github.com/owner/name",
    "https://user:token@git.example.com:8443/group/sub/name.git/": (
        "https://git.example.com:8443/group/sub/name"
    ),
    "http://git.example.com/name": "http://git.example.com/name",
    "ssh://git@git.example.com:2222/owner/name.git": "https://git.example.com/owner/name",
    "git@github.com:owner/name.git": "https://github.com/owner/name",
    "/srv/main": None,
    "file:///srv/main": None,
    "../main": None,
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    git(folder, "init", "--quiet")
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    git(folder, *identity, "commit", "--quiet", "--allow-empty", "-m", "first")
    assert "git_url" not in git_lineage(folder), "it has no remote"
    git(folder, "remote", "add", "origin", "/nowhere")
    return folder


@pytest.mark.parametrize(("remote", "url"), ADDRESSES.items())
def test_the_url_of_a_remote(checkout: Path, remote: str, url: str | None) -> None:
    git(checkout, "remote", "set-url", "origin", remote)
    lineage = git_lineage(checkout)
    assert lineage.get("git_url") == url
    assert lineage["git_dirty"] == "false"


def test_an_unknown_commit_is_explained(
    checkout: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(logging.getLogger("registry"), "propagate", True)
    unknown = {"git_commit": "unknown", "git_dirty": "unknown"}
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_lineage(tmp_path) == unknown
    assert "recorded as 'unknown': git says 'fatal: not a git repository" in caplog.text
    assert caplog.text.rstrip().endswith("Work in a clone of the project, with a commit.")
    # Root's checkout in a user's hands, and the other way round (git's own switch for its tests).
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    assert git_lineage(checkout) == unknown
    assert f"Run: git config --global --add safe.directory {checkout}" in caplog.text
    # Its messages are read in one language.
    fake = tmp_path / "git"
    fake.write_text("#!/bin/sh\necho LC_ALL=$LC_ALL >&2; exit 1\n")
    fake.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_lineage(checkout) == unknown
    assert "git says 'LC_ALL=C'" in caplog.text
    monkeypatch.setenv("PATH", "")
    assert git_lineage(checkout) == unknown
    assert "git cannot be run (No such file or directory). Install it." in caplog.text


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True)
