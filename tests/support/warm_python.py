"""A Python that has imported the third-party packages, and forks itself for every command.

ZenML, MLflow, Great Expectations and torch take twelve seconds of CPU to import, which most tests
of ``run.py`` are not about. Nothing of the project is imported before the fork, so that a command
sees the files as they are then; a new process is what ``Project.command`` starts.
"""

import importlib
import json
import os
import runpy
import sys
import types
from typing import Any

#: Not onnxruntime, which starts a thread when it is imported: a fork has no such thread to end.
PACKAGES = (
    "great_expectations",
    "matplotlib.pyplot",
    "mlflow",
    "onnxscript",
    "pandas",
    "pyarrow.parquet",
    "skl2onnx",
    "sklearn.linear_model",
    "torch",
    "zenml.client",
    "zenml.integrations.mlflow.experiment_trackers",
    "zenml.pipelines",
    "zenml.zen_stores.sql_zen_store",
)


def main() -> None:
    """Fork for every line of standard input, and say on standard output how the fork ended."""
    for name in PACKAGES:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            run(request)
            return
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def become(request: dict[str, Any]) -> None:
    """Take over the process group, output, environment and folder that the request describes."""
    os.setsid()
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if request.get("append") else os.O_TRUNC)
    for number, path in ((1, request["output"]), (2, request["errors"])):
        os.dup2(os.open(path, flags, 0o600), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = os.fdopen(0, closefd=False)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])


def run(request: dict[str, Any]) -> None:
    """Be the Python that the request describes."""
    become(request)
    first, *arguments = request["arguments"]
    sys.path[0] = request["folder"]
    if first == "-c":
        source, *arguments = arguments
        sys.argv = ["-c", *arguments]
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        exec(compile(source, "<string>", "exec"), module.__dict__)
    elif first == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *arguments]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    main()
