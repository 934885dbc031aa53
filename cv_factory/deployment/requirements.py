"""Packages of an image: dependency closure of requirements, pinned as in requirements.lock."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cv_factory.errors import CVFactoryError


class RequirementError(CVFactoryError):
    """A package is not installed, or not in the lock."""


def dependency_closure(requirements: Iterable[str]) -> set[str]:
    """Return the canonical names of the requirements and of all packages that they lead to.

    Dependencies are read off the installed packages; one that is not installed has none here.
    """
    visited: set[tuple[str, str]] = set()
    queue = [(line, "") for line in requirements]
    while queue:
        line, parent_extra = queue.pop()
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": parent_extra}):
            continue
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) not in visited:
                visited.add((name, extra))
                queue += [(dependency, extra) for dependency in _direct_dependencies(name)]
    return {name for name, _ in visited}


def pin_requirements(requirements: Iterable[str], lock: str) -> str:
    """Return the requirements and their dependencies, each pinned as in the lock, a line each.

    Raises:
        RequirementError: One of them is not in the lock, or not installed.
    """
    versions: dict[str, str] = {}
    for line in lock.splitlines():
        if line and not line.startswith((" ", "#")):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                versions[canonicalize_name(requirement.name)] = str(requirement.specifier)
    names = sorted(dependency_closure(requirements))
    for name in names:
        if name not in versions:
            raise RequirementError(f"{name} is not in requirements.lock. Run: make lock")
        try:
            distribution(name)
        except PackageNotFoundError:
            raise RequirementError(f"{name} is not installed. Run: make setup") from None
    return "".join(f"{name}{versions[name]}\n" for name in names)


def _direct_dependencies(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []
