"""Checks that the packages which the flavors of a stack need are installed; installs none."""

import importlib.util
from typing import TYPE_CHECKING

from cv_factory.errors import StackError, missing_extra
from stacks.flavors import own_flavor
from stacks.spec import StackSpec

if TYPE_CHECKING:
    from zenml.client import Client

#: Packages that integrations of ZenML require and that this project does not use: the aws one
#: requires this for its connector to clusters.
_UNUSED = frozenset({"kubernetes"})
#: The extra of pyproject.toml that holds what an integration of ZenML requires.
_EXTRAS = {"aws": "aws", "s3": "aws"}


def check_packages(client: "Client", spec: StackSpec) -> None:
    """Check that every flavor of a stack exists and has its packages.

    Raises:
        StackError: Names every flavor for which this is not so, and the command that installs
            what it needs. Nothing was created.
    """
    problems = []
    for kind, part in spec.components.items():
        own = own_flavor(kind, part.flavor)
        if own is None:
            command = _check_zenml_flavor(client, kind, part.flavor)
        elif any(importlib.util.find_spec(name) is None for name in own.requires):
            command = missing_extra(own.extra) if own.extra else "Run: make setup"
        else:
            continue
        if command:
            problems.append(
                f"{kind} {part.name}: flavor {part.flavor} needs packages that are not installed. "
                f"{command}"
            )
    if problems:
        raise StackError("\n".join([*problems, "Nothing was created."]))


def _check_zenml_flavor(client: "Client", kind: str, flavor: str) -> str:
    """Return how to install what a flavor of ZenML lacks; empty if it lacks nothing.

    Raises:
        StackError: There is no such flavor.
    """
    from zenml.enums import StackComponentType
    from zenml.integrations.registry import integration_registry

    try:
        integration = client.get_flavor_by_name_and_type(
            flavor, StackComponentType(kind)
        ).integration
    except KeyError:
        flavors = client.list_flavors(type=kind, size=100).items
        names = ", ".join(sorted(model.name for model in flavors)) or "none"
        raise StackError(
            f"{kind}: there is no flavor {flavor!r}. Flavors of this type: {names}."
        ) from None
    if integration not in integration_registry.integrations:
        return ""
    missing = _missing_requirements(
        integration_registry.integrations[integration].get_requirements()
    )
    if not missing:
        return ""
    if integration in _EXTRAS:
        return missing_extra(_EXTRAS[integration])
    installer = "python -m pip" if importlib.util.find_spec("pip") else "uv pip"
    return f"Run: {installer} install {' '.join(missing)}"


def _missing_requirements(requirements: list[str]) -> list[str]:
    """Return the requirements that are not met, quoted for a shell."""
    from packaging.requirements import Requirement
    from zenml.utils.package_utils import get_dependencies, requirement_installed

    missing = []
    for requirement in map(Requirement, requirements):
        if requirement.name in _UNUSED:
            continue
        # Reinstalling a package installs its missing dependencies.
        if not requirement_installed(requirement) or not all(
            map(requirement_installed, get_dependencies(requirement))
        ):
            missing.append(f"'{requirement}'")
    return missing
