"""The Bento: the same whenever it is built, small, and able to answer on its own."""

import ast
import hashlib
import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from cv_factory.config.serving import ServingConfig
from cv_factory.deployment.bento import REQUIREMENTS, _copy_code, build_bento
from cv_factory.deployment.requirements import (
    RequirementError,
    dependency_closure,
    pin_requirements,
)
from cv_factory.serving.bundle import Bundle
from tests.support.paths import ROOT
from tests.support.predictors import digits_predictor

_ANSWER = """
import sys
from pathlib import Path
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.inference_engine import InferenceEngine

InferenceEngine(Bundle.load(Path("bundle")))
print(Path(sys.modules["cv_factory"].__file__).parents[1])
print(sorted({"torch", "zenml", "sklearn", "great_expectations"} & set(sys.modules)))
"""


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_the_same_bundle_gives_the_same_bento_and_it_answers_by_its_own_code(
    tmp_path: Path,
) -> None:
    predictor, _, _ = digits_predictor("logistic_regression")
    bundle = Bundle(predictor, ServingConfig(), "digits", "7", created="2026-01-01T00:00:00+00:00")
    tag = build_bento(bundle, tmp_path / "one")
    assert build_bento(bundle, tmp_path / "two") == tag
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert tag.startswith("cv_factory:7-")
    src = tmp_path / "one" / "src"
    done = subprocess.run(
        [sys.executable, "-c", _ANSWER],
        cwd=src,
        env={**os.environ, "PYTHONPATH": str(src), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [str(src), "[]"]
    recipe = (tmp_path / "one" / "Containerfile").read_text()
    assert "USER service" in recipe
    assert "HEALTHCHECK" in recipe


def test_what_the_served_code_imports_is_required(tmp_path: Path) -> None:
    _copy_code(tmp_path)
    imported: dict[str, Path] = {}
    for file in tmp_path.rglob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0]: file for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported[str(node.module).partition(".")[0]] = file
    required, distributions = dependency_closure(REQUIREMENTS), packages_distributions()
    for name in imported.keys() - sys.stdlib_module_names - {"cv_factory"}:
        names = set(map(canonicalize_name, distributions[name]))
        assert names & required, f"{imported[name].relative_to(tmp_path)} imports {name}"


def test_requirements_are_the_locks_and_hold_nothing_of_training() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    lines = pin_requirements(REQUIREMENTS, lock).splitlines()
    assert all(f"{line} " in lock or f"{line}\n" in lock for line in lines)
    names = {line.partition("==")[0] for line in lines}
    assert {"bentoml", "onnxruntime", "starlette", "uvicorn", "cryptography"} <= names
    assert not {"torch", "zenml", "great-expectations", "scikit-learn", "mlflow"} & names
    with pytest.raises(RequirementError, match="not in requirements"):
        pin_requirements(("left-pad",), lock)
