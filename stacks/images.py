"""Image in which steps run on stacks that use containers.

It holds the lock's packages without those of the extra ``dev``, and no code: every run takes its
own from the artifact store, so that an edit does not rebuild the image. It does not run as root.
"""

import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cv_factory.cpu import SPIN_COUNT, SPIN_VARIABLE

if TYPE_CHECKING:
    from zenml.config import DockerSettings

_ROOT = Path(__file__).resolve().parent.parent
_DEV_EXTRA = "dev"
#: Without an entry in the image's list of users.
_USER = "10001"
_HOME = "/app"


@cache
def step_image() -> "DockerSettings":
    """Return ZenML's settings of the image; stacks without containers ignore them."""
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
            # GitPython, which MLflow imports, warns where there is no git.
            "GIT_PYTHON_REFRESH": "quiet",
            # Steps of SageMaker begin in ZenML's own module, which does not set it.
            SPIN_VARIABLE: SPIN_COUNT,
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
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    from cv_factory.deployment.requirements import dependency_closure

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    required = [*project["dependencies"]]
    for extra, requirements in extras.items():
        required += requirements if extra != _DEV_EXTRA else []
    # Packages that are not installed here, such as those of another platform, are kept.
    dev_only = dependency_closure(extras[_DEV_EXTRA]) - dependency_closure(required)
    lines = (root / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [
        line for line in lines if line and canonicalize_name(Requirement(line).name) not in dev_only
    ]
