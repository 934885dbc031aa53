"""Checks what no linter does: nothing unpickles or happens at import time, ``--help`` is fast.

Reads the syntax trees of the project's own files and imports none of them.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Modules whose loaders execute what they load.
PICKLE_FAMILY = {"pickle", "_pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}
#: Methods and functions that unpickle whatever module they come from.
PICKLING_CALLS = {"read_pickle", "to_pickle"}
#: Modules that take 0.3 s or more to import; what ``run.py --help`` reaches imports none of them.
HEAVY = {
    "bentoml",
    "evidently",
    "great_expectations",
    "matplotlib",
    "mlflow",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pandas",
    "scipy",
    "skl2onnx",
    "sklearn",
    "torch",
    "torchvision",
    "zenml",
}
#: The files whose import must be fast: what a person starts.
DOORS = ("run.py",)
#: Calls that do something outside this process, or ask it, by their last name.
EFFECTS = {
    "Client",
    "MlflowClient",
    "Popen",
    "check_call",
    "check_output",
    "connect",
    "create_connection",
    "makedirs",
    "mkdir",
    "mkdtemp",
    "open",
    "rmtree",
    "symlink_to",
    "system",
    "touch",
    "unlink",
    "urlopen",
    "urlretrieve",
    "write_bytes",
    "write_text",
}
#: Modules of which no function is called at import time.
EFFECT_MODULES = {"http", "mlflow", "requests", "shutil", "socket", "subprocess", "urllib"}


@dataclass(frozen=True)
class Problem:
    """One thing that is not allowed, and where it stands."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        """Return the problem as ``file:line: message``, as editors and terminals link it."""
        return f"{self.file}:{self.line}: {self.message}"


def main() -> int:
    """Check every non-test Python file that git knows or would add; return the exit code."""
    files = project_files()
    problems = sorted({p for f in files for p in check_file(f, read(f))}, key=str)
    problems += check_doors(DOORS, files)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    sys.stdout.write(f"purity: {len(files)} files, {len(problems)} problems\n")
    return 1 if problems else 0


def project_files() -> list[str]:
    """Return the Python files of the project but for the tests, as paths relative to its root."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z", "--", "*.py"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = sorted(set(filter(None, output.split("\0"))))
    return [n for n in names if not n.startswith("tests/") and (ROOT / n).is_file()]


def read(file: str) -> str:
    """Return the source of one of the project's files."""
    return (ROOT / file).read_text(encoding="utf-8")


def check_file(file: str, source: str) -> list[Problem]:
    """Return what is wrong in one file on its own; benchmarks may do things when imported."""
    tree = ast.parse(source, file)
    found = [*_pickling(tree), *(() if file.startswith("benchmarks/") else _effects(tree))]
    return [Problem(file, node.lineno, message) for node, message in found]


Finding = tuple[ast.stmt | ast.expr, str]


def _pickling(tree: ast.Module) -> Iterator[Finding]:
    names = _imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for module in _modules_of(node):
                if module.split(".")[0] in PICKLE_FAMILY:
                    yield node, f"imports {module}, whose loader executes what it loads"
        elif isinstance(node, ast.Call):
            yield from _pickling_call(node, names)


def _pickling_call(node: ast.Call, names: dict[str, str]) -> Iterator[Finding]:
    callee = _dotted(node.func, names)
    keywords = {k.arg: k.value for k in node.keywords}
    if callee in {"importlib.import_module", "__import__"} and node.args:
        module = ast.literal_eval(node.args[0]) if isinstance(node.args[0], ast.Constant) else ""
        if str(module).split(".")[0] in PICKLE_FAMILY:
            yield node, f"imports {module}, whose loader executes what it loads"
    if callee == "torch.load" and not _is_constant(keywords.get("weights_only"), True):
        yield node, "torch.load without weights_only=True executes what it loads"
    if "allow_pickle" in keywords and not _is_constant(keywords["allow_pickle"], False):
        yield node, "allow_pickle other than False executes what it loads"
    if callee.split(".")[-1] in PICKLING_CALLS:
        yield node, f"{callee} pickles"


def _effects(tree: ast.Module) -> Iterator[Finding]:
    local = _defined_names(tree)
    for statement in tree.body:
        yield from _check_statement(statement, local, first=statement is tree.body[0])
    names = _imported_names(tree)
    imported = {name.split(".")[0] for name in names.values()}
    for expression in _evaluated_on_import(tree.body):
        for node in _eager(expression):
            if isinstance(node, ast.Call):
                callee = _dotted(node.func, names)
                root = callee.split(".")[0]
                if callee.split(".")[-1] in EFFECTS or root in EFFECT_MODULES & imported:
                    yield node, f"calls {callee} at import time"


def _check_statement(node: ast.stmt, local: set[str], *, first: bool = False) -> Iterator[Finding]:
    """Allow definitions, imports, constants and guards at module level, and nothing else."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())) if first:
            return
        case (
            ast.Import()
            | ast.ImportFrom()
            | ast.FunctionDef()
            | ast.AsyncFunctionDef()
            | ast.ClassDef()
            | ast.Pass()
        ):
            return
        case ast.Assign(targets=targets):
            if all(_is_local(target, local) for target in targets):
                return
        case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
            if _is_local(target, local):
                return
        case ast.If(test=test, body=body, orelse=orelse) if _is_guard(test):
            if not _is_main_guard(test):
                for inner in [*body, *orelse]:
                    yield from _check_statement(inner, local)
            return
        case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=finalbody):
            inside = [*body, *orelse, *finalbody, *(s for h in handlers for s in h.body)]
            for inner in inside:
                yield from _check_statement(inner, local)
            return
        case ast.Expr(value=ast.Call(func=ast.Attribute() as function)):
            # Such as _Loader.add_implicit_resolver(…): completes what this module defines.
            if _root(function) in local:
                return
    yield node, "does something at import time: only definitions, imports and constants may"


def _evaluated_on_import(body: Iterable[ast.stmt]) -> Iterator[ast.expr]:
    """Yield the expressions that importing a module evaluates: not those inside functions."""
    for node in body:
        if isinstance(node, ast.If) and _is_main_guard(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from node.decorator_list
            yield from node.args.defaults
            yield from (default for default in node.args.kw_defaults if default)
            continue
        if isinstance(node, ast.ClassDef):
            yield from node.decorator_list
        for field in ast.iter_child_nodes(node):
            if isinstance(field, ast.expr):
                yield field
            elif isinstance(field, ast.stmt):
                yield from _evaluated_on_import([field])
            elif isinstance(field, ast.ExceptHandler):
                yield from _evaluated_on_import(field.body)
            elif isinstance(field, ast.withitem):
                yield field.context_expr


def _eager(node: ast.AST) -> Iterator[ast.AST]:
    """Walk an expression without what a lambda would only evaluate when called."""
    if not isinstance(node, ast.Lambda):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _eager(child)


def check_doors(doors: Iterable[str], files: Iterable[str]) -> list[Problem]:
    """Return the heavy imports that importing the doors triggers, each with how it is reached."""
    known = set(files)
    problems = []
    reached: dict[str, str] = {}
    waiting = [(door, door) for door in doors if door in known]
    while waiting:
        file, way = waiting.pop()
        if file in reached:
            continue
        reached[file] = way
        for node in _import_time_imports(ast.parse(read(file)).body):
            for module in _modules_of(node):
                if module.split(".")[0] in HEAVY:
                    problems.append(
                        Problem(file, node.lineno, f"imports {module} on the way of {way}")
                    )
            inner = [f for name in _candidates(node) for f in _files_of(name) if f in known]
            waiting += [(f, f"{way} -> {f}") for f in inner]
    return problems


def _import_time_imports(body: Iterable[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            yield from _import_time_imports(node.orelse)
        else:
            inner = [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt)]
            handlers = [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.ExceptHandler)]
            yield from _import_time_imports([*inner, *(s for h in handlers for s in h.body)])


def _candidates(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return every module that an import statement may load, parents included."""
    names = list(_modules_of(node))
    if isinstance(node, ast.ImportFrom):
        names += [f"{node.module}.{alias.name}" for alias in node.names if node.module]
    parents = {".".join(n.split(".")[:i]) for n in names for i in range(1, n.count(".") + 1)}
    return sorted({*names, *parents})


def _files_of(module: str) -> tuple[str, str]:
    path = module.replace(".", "/")
    return f"{path}.py", f"{path}/__init__.py"


def _modules_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if node.module and not node.level else []


def _imported_names(tree: ast.AST) -> dict[str, str]:
    """Map the names that import statements bind to what they stand for, such as np to numpy."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.split(".")[0]
                names[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    """Return the full dotted name of what is called; a part that is no name is left out."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}".lstrip(".")
    return ""


def _defined_names(tree: ast.Module) -> set[str]:
    """Return the names that a module's own statements define: not those that it imports."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            names -= {_root(t) for t in targets if isinstance(t, ast.Attribute | ast.Subscript)}
    return names


def _is_local(target: ast.expr, local: set[str]) -> bool:
    if isinstance(target, ast.Tuple | ast.List):
        return all(_is_local(element, local) for element in target.elts)
    return isinstance(target, ast.Name) or _root(target) in local


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_constant(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _is_main_guard(test: ast.expr) -> bool:
    return ast.unparse(test) == "__name__ == '__main__'"


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def _is_guard(test: ast.expr) -> bool:
    text = ast.unparse(test)
    return (
        _is_main_guard(test)
        or _is_type_checking(test)
        or text.startswith(("sys.version_info", "sys.platform"))
    )


if __name__ == "__main__":
    sys.exit(main())
