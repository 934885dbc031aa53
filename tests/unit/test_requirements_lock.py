"""requirements.lock fits pyproject.toml, names no machine, and is what is installed."""

import importlib.metadata
import re
import sysconfig
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT


def locked_requirements() -> list[Requirement]:
    """The lock's lines; a package may have several, for different versions of Python."""
    return [Requirement(line) for line in (ROOT / "requirements.lock").read_text().splitlines()]


def locked_version(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return specifier.version


def test_the_lock_holds_every_requirement_at_an_allowed_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = list(project["dependencies"])
    required += [r for extra in project["optional-dependencies"].values() for r in extra]
    versions: dict[str, list[str]] = {}
    for requirement in locked_requirements():
        name = canonicalize_name(requirement.name)
        versions.setdefault(name, []).append(locked_version(requirement))
    for requirement in map(Requirement, required):
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{name} is not locked: make lock"
        assert all(map(requirement.specifier.contains, versions[name])), f"{name}: make lock"


def test_the_lock_holds_no_address_and_no_path() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"://|file:|(^|[\s@=])[/~]", text, re.MULTILINE)


@pytest.mark.skipif(not (ROOT / ".venv/.installed").is_file(), reason="installed by hand")
def test_the_installed_versions_are_the_locked_ones() -> None:
    # Of this environment alone: setuptools adds packages of its own to sys.path when imported.
    packages = [sysconfig.get_path("purelib")]
    installed = {
        canonicalize_name(distribution.name): distribution.version.split("+")[0]
        for distribution in importlib.metadata.distributions(path=packages)
    }
    for requirement in locked_requirements():
        name = canonicalize_name(requirement.name)
        if name in installed and (requirement.marker is None or requirement.marker.evaluate()):
            assert installed[name] == locked_version(requirement), f"{name}: make setup"
