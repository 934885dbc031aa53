"""Which source files of this library a module depends on, read off its import statements.

Caching and code fingerprints use it: a step whose own lines did not change is still stale when a
module that it reaches did.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

_PACKAGE = "cv_factory"
_ROOT = Path(__file__).resolve().parent.parent


def source_files(*modules: str) -> tuple[str, ...]:
    """Return the files of ``cv_factory`` that the modules import, directly or not.

    Imports inside functions count as well. An import inside an ``if TYPE_CHECKING`` block counts
    too, which errs on the safe side.

    Args:
        modules: Dotted names, such as ``cv_factory.transforms.pca``.

    Returns:
        Paths relative to the project's root, sorted, with forward slashes.

    Raises:
        ModuleNotFoundError: A module does not exist in ``cv_factory``.
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _imported(module)
    return tuple(sorted({_file_of(module).relative_to(_ROOT).as_posix() for module in found}))


def code_fingerprint(*modules: str) -> str:
    """Return the SHA-256 over names and contents of ``source_files(*modules)``."""
    digest = hashlib.sha256()
    for name in source_files(*modules):
        content = (_ROOT / name).read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _file_of(module: str) -> Path:
    path = _find(module)
    if path is None:
        raise ModuleNotFoundError(f"{module} is no module of {_ROOT / _PACKAGE}")
    return path


def _find(module: str) -> Path | None:
    base = _ROOT.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _imported(module: str) -> tuple[str, ...]:
    """Return the modules of this library that one module names in its import statements."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(_file_of(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parents = {".".join(n.split(".")[:i]) for n in names for i in range(2, n.count(".") + 1)}
    inside = {n for n in names | parents if n.startswith(f"{_PACKAGE}.")}
    return tuple(sorted(n for n in inside if _find(n) is not None))
