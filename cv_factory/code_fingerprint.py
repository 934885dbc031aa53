"""The library's source files that a module depends on, and their SHA-256: the key of every cache.

A step whose own lines did not change is still stale when a module that it reaches did. Followed
are import statements, also those inside functions, and two constants of a module: ``ENTRY_POINTS``,
the modules that it starts with ``python -m``, and ``PLUGINS``, a package whose modules it loads by
name. Imports under ``if TYPE_CHECKING`` cannot change a result and are left out.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_PACKAGE = "cv_factory"
_ROOT = Path(__file__).resolve().parent.parent


def source_files(*modules: str) -> tuple[str, ...]:
    """Return the files of ``cv_factory`` that the modules depend on, directly or not.

    Args:
        modules: Dotted names, such as ``cv_factory.transforms.pca``.

    Returns:
        Paths relative to the project's root, sorted, with forward slashes.

    Raises:
        ModuleNotFoundError: A module does not exist in ``cv_factory``.
        ValueError: ``ENTRY_POINTS`` or ``PLUGINS`` of a module is not written as a literal.
    """
    closure: set[str] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module not in closure:
            closure.add(module)
            pending += _dependencies(module)
    files = {_require_file(module) for module in closure}
    return tuple(sorted(file.relative_to(_ROOT).as_posix() for file in files))


def code_fingerprint(*modules: str) -> str:
    """Return the SHA-256 over names and contents of ``source_files(*modules)``."""
    digest = hashlib.sha256()
    for name in source_files(*modules):
        content = (_ROOT / name).read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _require_file(module: str) -> Path:
    path = _module_file(module)
    if path is None:
        raise ModuleNotFoundError(f"{module} is no module of {_ROOT / _PACKAGE}")
    return path


def _module_file(module: str) -> Path | None:
    base = _ROOT.joinpath(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


@cache
def _dependencies(module: str) -> tuple[str, ...]:
    """Return the modules of this library that one module names."""
    tree = ast.parse(_require_file(module).read_text(encoding="utf-8"))
    names = {name for node in _runtime_statements(tree) for name in _imports(node)}
    names |= {name for node in tree.body for name in _loaded_modules(node)}
    parents = {".".join(n.split(".")[:i]) for n in names for i in range(2, n.count(".") + 1)}
    inside = {n for n in names | parents if n.startswith(f"{_PACKAGE}.")}
    return tuple(sorted(n for n in inside if _module_file(n) is not None))


def _runtime_statements(block: ast.AST) -> Iterator[ast.stmt]:
    """Yield all statements in a block but those below ``if TYPE_CHECKING``; its ``else`` runs."""
    for child in ast.iter_child_nodes(block):
        if isinstance(child, ast.expr):
            continue  # which holds no statement
        if isinstance(child, ast.stmt):
            yield child
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            child = ast.Module(child.orelse, [])
        yield from _runtime_statements(child)


def _imports(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return set()


def _loaded_modules(node: ast.stmt) -> set[str]:
    """Return the modules that a constant declares to be started or loaded by name."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return set()
    name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
    if name not in ("ENTRY_POINTS", "PLUGINS"):
        return set()
    value = ast.literal_eval(node.value)
    if name == "ENTRY_POINTS":
        # ``python -m PACKAGE`` runs its ``__main__``.
        return {*value, *(f"{module}.__main__" for module in value)}
    modules = {f"{value}.{path.stem}" for path in _ROOT.joinpath(*value.split(".")).iterdir()}
    return {module for module in modules if _module_file(module) is not None}
