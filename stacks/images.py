"""Says how the image is made in which steps run on a stack that runs them in containers.

Exactly the lock's packages, none of the workshop's, nothing of root's. The code is not in it: every
run takes its own from the artifact store, so that editing code does not build an image anew.
"""

import sys
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zenml.config import DockerSettings

_ROOT = Path(__file__).resolve().parent.parent
_WORKSHOP = "dev"
#: Any but root's; it has no entry in the image's list of users.
_USER = "10001"
_HOME = "/app"


@cache
def step_image() -> "DockerSettings":
    """Return how ZenML shall build the image; stacks without containers take no notice."""
    from zenml.config import DockerSettings
    from zenml.config.docker_settings import PythonPackageInstaller

    return DockerSettings(
        parent_image=f"python:{sys.version_info.major}.{sys.version_info.minor}-slim",
        apt_packages=["libgomp1"],  # LightGBM's and scikit-learn's OpenMP
        python_package_installer=PythonPackageInstaller.UV,
        python_package_installer_args={"no-cache-dir": None, "no-deps": None, "system": None},
        requirements=locked_requirements(_ROOT),
        install_stack_requirements=False,
        allow_including_files_in_images=False,
        runtime_environment={
            "HOME": _HOME,
            # There is no git in it, which MLflow's GitPython would tell in every job.
            "GIT_PYTHON_REFRESH": "quiet",
            "PYTHONUNBUFFERED": "1",
            "ZENML_ANALYTICS_OPT_IN": "false",
        },
        user=_USER,
    )


def locked_requirements(root: Path) -> list[str]:
    """Return the lines of the lock without those that only the extra ``dev`` needs.

    Args:
        root: Holds ``pyproject.toml`` and ``requirements.lock``.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    wanted = [*project["dependencies"]]
    for extra, requirements in extras.items():
        wanted += requirements if extra != _WORKSHOP else []
    # What is not installed here, such as another platform's packages, stays in.
    unwanted = _closure(extras[_WORKSHOP]) - _closure(wanted)
    lines = (root / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and _name_of(line) not in unwanted]


def _closure(requirements: list[str]) -> set[str]:
    """Return the names of all installed packages that the requirements lead to."""
    found: set[tuple[str, str]] = set()
    todo: list[Any] = [(line, "") for line in requirements]
    from packaging.requirements import Requirement

    while todo:
        line, extra = todo.pop()
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = _name_of(line)
        for inner in {"", *requirement.extras}:
            if (name, inner) not in found:
                found.add((name, inner))
                todo += [(needed, inner) for needed in _needs(name)]
    return {name for name, _ in found}


def _needs(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []


def _name_of(line: str) -> str:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    return str(canonicalize_name(Requirement(line).name))
