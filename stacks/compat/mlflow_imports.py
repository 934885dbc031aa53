"""MLflow 3.17 imports its packages for language models whenever it is imported.

They bring FastAPI and take a fifth of the import. Nothing here asks for them: they are left empty
until somebody does.
"""

import sys
import threading
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

#: Packages whose ``__init__`` waits; their modules are imported as ever.
_PACKAGES = ("mlflow.gateway", "mlflow.genai", "mlflow.genai.judges")
#: Held while a package is filled: other threads wait, and the filling one sees what is there.
_lock = threading.RLock()


def defer_language_models() -> None:
    """Let MLflow's packages for language models be imported when an attribute of them is used.

    Call it before the first import of MLflow; later calls change nothing.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the packages that wait."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname not in _PACKAGES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Makes an empty package, which a missing attribute fills."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> "_DeferredPackage":
        return _DeferredPackage(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave the package empty."""


class _DeferredPackage(ModuleType):
    """Package whose ``__init__`` runs when an attribute is asked for that it does not have."""

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        if spec is not None and not name.startswith("__"):
            with _lock:
                if isinstance(spec.loader, _Loader):
                    spec.loader = self.__loader__ = spec.loader.loader
                    spec.loader.exec_module(self)
                if name in self.__dict__:
                    return self.__dict__[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
