"""Workflows, templates and documents around the project are valid and name what exists."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import cv_factory
from tests.support.paths import ROOT

_WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def check_schema(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run check-jsonschema, whose schemas are part of the package: no network."""
    command = [sys.executable, "-m", "check_jsonschema", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", _WORKFLOWS),
        (
            "vendor.github-issue-forms",
            [ROOT / f".github/ISSUE_TEMPLATE/{name}.yml" for name in ("bug", "feature")],
        ),
        ("vendor.github-issue-config", [ROOT / ".github/ISSUE_TEMPLATE/config.yml"]),
    ],
)
def test_github_files_fit_their_schema(schema: str, files: list[Path]) -> None:
    result = check_schema("--builtin-schema", schema, *files)
    assert not result.returncode, result.stdout


def test_a_wrong_workflow_does_not_fit(tmp_path: Path) -> None:
    wrong = tmp_path / "ci.yml"
    wrong.write_text(_WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    assert check_schema("--builtin-schema", "vendor.github-workflows", wrong).returncode


def workflow(name: str) -> dict[str, dict[str, dict[str, object]]]:
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text()
    content: dict[str, dict[str, dict[str, object]]] = yaml.safe_load(text)
    return content


def commands(job: dict[str, object]) -> list[str]:
    steps = job["steps"]
    assert isinstance(steps, list)
    return [step["run"] for step in steps if "run" in step]


def test_ci_calls_the_script_of_the_repository() -> None:
    assert any(".ci/run" in run for run in commands(workflow("ci")["jobs"]["ci"]))
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_a_release_scans_before_it_pushes_and_deploys_after_an_approval() -> None:
    jobs = workflow("release")["jobs"]
    text = json.dumps(jobs["image"])
    assert text.index("docker build") < text.index("trivy") < text.index("docker push")
    assert jobs["deploy"]["environment"] == "production"
    assert jobs["deploy"]["needs"] == "image"


def test_the_release_writes_the_build_context_of_the_service_image(tmp_path: Path) -> None:
    (script,) = [c for c in commands(workflow("release")["jobs"]["image"]) if "ServiceImage" in c]
    script = script.replace(".venv/bin/python", sys.executable)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "REPOSITORY": "1.dkr.ecr.eu-central-1.amazonaws.com/service",
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }
    subprocess.run(["bash", "-ec", script], cwd=tmp_path, env=environment, check=True)
    assert re.match(r"name=1\.dkr\S+:[0-9a-f]{16}\n", (tmp_path / "output").read_text())
    assert {path.name for path in (tmp_path / "context").iterdir()} == {
        "Dockerfile",
        "requirements.txt",
    }


@pytest.mark.parametrize("file", ["ci", "release"])
def test_workflows_call_targets_and_files_that_exist(file: str) -> None:
    runs = [run for job in workflow(file)["jobs"].values() for run in commands(job)]
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z-]+)", "\n".join(runs)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_hooks_call_installed_tools() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    for repository in config["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            (tool,) = re.findall(r"\.venv/bin/(\S+)", hook["entry"])[:1]
            assert Path(sys.executable).with_name(tool).exists(), hook["id"]


def markdown_files() -> list[Path]:
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(files)


def test_links_between_documents_lead_somewhere() -> None:
    for file in markdown_files():
        for target in re.findall(r"\]\(([^)#\s]+)", file.read_text()):
            if "://" not in target:
                assert (file.parent / target).exists(), f"{file.name}: {target}"


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").as_posix()
        assert name == "index.md" or f"({name})" in index


def test_the_index_names_files_that_exist() -> None:
    paths = re.findall(r"`((?:[a-z_]+/)+[a-z_.*]*)`", (ROOT / "docs/index.md").read_text())
    assert len(paths) > 20
    assert [path for path in paths if not any(ROOT.glob(path))] == []


def test_the_devcontainer_is_json() -> None:
    json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())


def test_the_library_names_the_release() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cv_factory.__version__ == project["version"]
