"""Finds plug-ins by name: every public module of a package is one, and its name is the plug-in's.

Modules whose names begin with an underscore are shared code. Listing imports no plug-in.
"""

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from types import ModuleType
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from cv_factory.config.suggestion import suggest


def plugin_names(package: str) -> tuple[str, ...]:
    """Return the sorted names of the public modules of a package such as ``cv_factory.models``.

    Raises:
        ModuleNotFoundError: There is no such package.
    """
    spec = find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"{package} is not a package")
    modules = iter_modules(spec.submodule_search_locations)
    return tuple(sorted(m.name for m in modules if not m.name.startswith("_")))


def check_plugin(package: str, name: str, kind: str) -> str:
    """Return the name of a plug-in, without importing it.

    Args:
        package: Dotted name of the package of plug-ins.
        name: The plug-in's module name.
        kind: What it is called in the error, such as ``model``.

    Raises:
        ValueError: The package has no such plug-in; the message names the nearest one.
    """
    names = plugin_names(package)
    if name not in names:
        raise ValueError(f"there is no {kind} {name!r}. {suggest(name, names)}")
    return name


def load_plugin(package: str, name: str, kind: str) -> ModuleType:
    """Import one plug-in; arguments and error as for ``check_plugin``."""
    return import_module(f"{package}.{check_plugin(package, name, kind)}")


def plugin_name_type(package: str, kind: str) -> Any:
    """Return the type of a setting that names a plug-in, for pydantic: checked without importing.

    Args:
        package: Dotted name of the package of plug-ins.
        kind: As for ``check_plugin``.
    """
    return Annotated[
        str,
        AfterValidator(lambda name: check_plugin(package, name, kind)),
        WithJsonSchema({"type": "string", "enum": list(plugin_names(package))}),
    ]
