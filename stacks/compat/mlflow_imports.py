"""MLflow 3.17 imports packages that its client does not need whenever it is imported.

Those for language models bring FastAPI, those for models SciPy, and that for data sets its kinds of
them: a third of the import. They are left empty until an attribute of theirs is used.
"""

import sys
import threading
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

#: Packages whose ``__init__`` waits; their modules are imported as ever.
_PACKAGES = (
    *("mlflow.gateway", "mlflow.genai", "mlflow.genai.judges"),
    *("mlflow.data", "mlflow.models", "mlflow.pyfunc"),
)
#: What MLflow's client takes from them whenever it is imported, and the module that defines it.
_SOURCES = {("mlflow.data", "Dataset"): "mlflow.data.dataset"}
#: Functions that ZenML's model registry imports by name; a stack with one imports that.
_FUNCTIONS = (("mlflow.models", "get_model_info"), ("mlflow.pyfunc", "load_model"))
#: Held while a package is filled: other threads wait, and the filling one sees what is there.
_lock = threading.RLock()


def defer_packages() -> None:
    """Let these packages be imported when an attribute of them is used.

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
        if (self.__name__, name) in _SOURCES:
            return getattr(import_module(_SOURCES[self.__name__, name]), name)
        if not name.startswith("__"):
            if (self.__name__, name) in _FUNCTIONS:
                return partial(self._call, name)
            self._fill()
            if name in vars(self):
                return vars(self)[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def _fill(self) -> None:
        with _lock:
            spec = self.__spec__
            if spec is None or not isinstance(spec.loader, _Loader):
                return
            if self.__name__ == "mlflow.pyfunc":
                # The two import each other: that one first, as MLflow does.
                from mlflow.models import Model  # noqa: F401
            spec.loader = self.__loader__ = spec.loader.loader
            spec.loader.exec_module(self)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self._fill()
        return vars(self)[name](*args, **kwargs)
