"""Nothing unpickles, nothing happens at import time, and ``run.py --help`` starts fast."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

#: Modules that take 0.3 s or more to import.
_HEAVY = {
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

_UNSAFE = (
    "import pickle",
    "import cloudpickle as cp",
    "from joblib import dump",
    "import joblib.externals",
    "def f():\n    import dill",
    "import shelve",
    "import marshal",
    "import torch\ndef f(p):\n    return torch.load(p)",
    "import torch as t\ndef f(p):\n    return t.load(p, weights_only=False)",
    "from torch import load\ndef f(p):\n    return load(p)",
    "import pandas as pd\ndef f(p):\n    return pd.read_pickle(p)",
)
_SAFE = (
    "import numpy as np\ndef f(p):\n    return np.load(p, allow_pickle=False)",
    "import json\ndef f(p):\n    return json.load(p)",
    "from cv_factory.data.dataset import load",
)


def test_ruff_refuses_imports_and_calls_that_unpickle(tmp_path: Path) -> None:
    for name, source in enumerate((*_UNSAFE, *_SAFE)):
        (tmp_path / f"{name}.py").write_text(source)
    command = [
        *(sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml")),
        *("--select", "TID251,S301", "--output-format", "json", "--no-cache", str(tmp_path)),
    ]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    refused = {Path(problem["filename"]).stem for problem in json.loads(output)}
    assert refused == {str(name) for name in range(len(_UNSAFE))}


def test_numpy_never_pickles_and_nothing_is_unpickled_by_name() -> None:
    for path in [ROOT / "run.py", *product_files(), *(ROOT / "benchmarks").rglob("*.py")]:
        source = path.read_text()
        assert not re.search(r"allow_pickle(?!=False\b)", source)
        assert not re.search(r"(import_module|__import__)\(.(pickle|joblib|dill|shelve)", source)


#: Imports every module given as argument and prints what their own top-level code does: an event
#: counts where a file of this project is running and no import stands between it and the event.
_IMPORT_ALL = """
import importlib, sys
root, modules, effects, stdout = sys.argv[1] + "/", sys.argv[2:], set(), sys.stdout
WATCHED = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.putenv", "os.unsetenv",
           "os.system", "os.exec", "os.posix_spawn", "os.symlink", "os.truncate", "shutil.",
           "socket.", "subprocess.", "sqlite3.connect", "urllib.Request", "tempfile.", "open")

def record(event, detail):
    frame = sys._getframe(2)
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        file = frame.f_code.co_filename
        if file.startswith(root) and "/.venv/" not in file:
            effects.add(f"{file[len(root):]}:{frame.f_lineno}: {event} {detail!r}")
        frame = frame.f_back

def hook(event, arguments):
    if event == "open" and not set(str(arguments[1] or "r")) & set("wax+"):
        return
    if event.startswith(WATCHED):
        record(event, arguments[:1])

class Printed:
    def write(self, text):
        record("print", text)
    def __getattr__(self, name):
        return getattr(stdout, name)

sys.stdout = Printed()
sys.addaudithook(hook)
for module in modules:
    importlib.import_module(module)
sys.stdout = stdout
print(*sorted(effects), sep=chr(10), end="")
"""
_AWS_MODULES = {"stacks.compat.zenml_sagemaker", "stacks.flavors.sagemaker_jobs"}


def product_files() -> list[Path]:
    """Every Python file of the product's packages."""
    packages = (
        *("cli", "cv_factory", "cv_factory_client", "materializers", "pipelines", "registry"),
        *("stacks", "steps"),
    )
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def product_modules() -> list[str]:
    """Every module of the product but those for which an extra is missing."""
    names = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in product_files()]
    names = [name.removesuffix(".__init__") for name in names]
    if not all(map(importlib.util.find_spec, ("boto3", "sagemaker"))):
        names = [name for name in names if name not in _AWS_MODULES]
    if importlib.util.find_spec("efficientnet_lite_pytorch") is None:
        names.remove("cv_factory.models.efficientnet_lite0")
    return names


def import_effects(root: Path, *modules: str) -> list[str]:
    """What the modules' own top-level code does outside the process, and what they print."""
    command = [sys.executable, "-c", _IMPORT_ALL, str(root), *modules]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert not result.returncode, result.stderr
    return result.stdout.splitlines()


@pytest.mark.slow
def test_importing_the_product_does_nothing() -> None:
    assert import_effects(ROOT, *product_modules()) == []


@pytest.mark.parametrize(
    "source",
    [
        "from pathlib import Path\nPath('out').mkdir()",
        "import subprocess\nHEAD = subprocess.check_output(['true'])",
        "from subprocess import run as call\nHEAD = call(['true'])",
        "import socket\nS = socket.socket()",
        "class Settings:\n    text = open('file', 'w')",
        "import sqlite3\ndef f(client=sqlite3.connect('x.db')):\n    pass",
        "import os\nos.environ['A'] = 'b'",
        "import os\nos.environ.setdefault('A', 'b')",
        "def main():\n    open('file', 'w')\nmain()",
        "print('hello')",
    ],
)
def test_what_a_module_does_when_imported_is_seen(source: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(source)
    assert import_effects(tmp_path, "module")


@pytest.mark.parametrize(
    "source",
    [
        '"""Docstring."""\nimport re\nA = re.compile("a")',
        "def f():\n    return open('file', 'w')",
        "from pathlib import Path\nTEXT = Path(__file__).read_text()",
        "def main():\n    print(1)\nif __name__ == '__main__':\n    main()",
        "import multiprocessing.pool\nimport logging.handlers",
    ],
)
def test_definitions_imports_and_constants_pass(source: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(source)
    assert import_effects(tmp_path, "module") == []


def test_help_imports_nothing_heavy() -> None:
    source = (
        "import runpy, sys\n"
        "sys.argv = ['run.py', '--help']\n"
        "try:\n    runpy.run_path('run.py', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "sys.stderr.write(' '.join(sorted(m for m in sys.modules if '.' not in m)))\n"
    )
    command = [sys.executable, "-c", source]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--pipeline" in result.stdout
    assert not _HEAVY & set(result.stderr.split())
