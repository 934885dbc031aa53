"""A Python that has imported the third-party packages, and forks itself for every command.

ZenML, MLflow, Great Expectations and torch take twelve seconds of CPU to import, which most tests
of ``run.py`` are not about. Nothing of the project is imported before the fork, so that a command
sees the files as they are then; a new process is what ``Project.command`` starts.

Steps that a command launches in a process of their own are forked here as well: the command sees a
``sys.executable`` that hands these over (``_LAUNCHER``) and runs everything else with Python.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sqlite3
import sys
import threading
import traceback
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import sqlalchemy
import sqlalchemy.orm
from mlflow.utils import requirements_utils

#: Not onnxruntime, which starts a thread when it is imported: a fork has no such thread to end.
PACKAGES = (
    "git",
    "great_expectations",
    "httpx",
    "matplotlib.backends.backend_agg",
    "matplotlib.pyplot",
    "mlflow",
    "mlflow.pyfunc",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "numba",
    "onnxscript",
    "opentelemetry.sdk.trace",
    "pandas",
    "pyarrow.parquet",
    "safetensors.torch",
    "scipy.stats",
    "skl2onnx",
    "sklearn.datasets",
    "sklearn.linear_model",
    "sklearn.model_selection",
    "torch",
    "zenml.client",
    "zenml.deployers",
    "zenml.entrypoints.entrypoint",
    "zenml.execution.step.utils",
    "zenml.integrations.mlflow.experiment_trackers",
    "zenml.integrations.mlflow.model_registries",
    "zenml.log_stores",
    "zenml.login.credentials_store",
    "zenml.materializers",
    "zenml.orchestrators.local.local_orchestrator",
    "zenml.pipelines",
    "zenml.sandboxes",
    "zenml.zen_stores.sql_zen_store",
)
_STEP_MODULE = "stacks.step_entrypoint"
_PARENT_VARIABLE = "CV_FACTORY_PARENT_PID"
#: Ends as the fork ends; the fork is killed when this process dies.
_LAUNCHER = """\
#!{python} -IS
import json, os, socket, sys
if sys.argv[1:3] != ["-m", {module!r}]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
request = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
os.chdir({folder!r})  # a socket's path may have no more than a hundred characters
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect("steps")
    socket.send_fds(connection, [b"\\0"], [1, 2])
    connection.sendall(json.dumps(request).encode() + b"\\n")
    code = int(connection.makefile().readline())
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def main(folder: Path) -> None:
    """Fork for every line of standard input, and say on standard output how the fork ended.

    Args:
        folder: For the launcher of steps and its socket.
    """
    for name in PACKAGES:
        importlib.import_module(name)
    # What MLflow reads of every installed package when it saves its first model.
    requirements_utils._init_modules_to_packages_map()
    sqlalchemy.orm.configure_mappers()
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", _do_not_sync)
    # The garbage collector of a fork would touch, and so copy, every page that the imports filled.
    gc.freeze()
    launcher = _start_step_server(folder)
    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            sys.executable = str(launcher)
            exit_after(run, request)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def _do_not_sync(connection: Any, _: object) -> None:
    """Spare SQLite the wait for the disk: 400 commits of a run outlive its kill without it."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


def exit_after(action: Callable[[dict[str, Any]], None], request: dict[str, Any]) -> NoReturn:
    """End as a Python that ran this would, without freeing thousands of modules (3 s of CPU)."""
    code: object = 0
    try:
        action(request)
    except SystemExit as ending:
        code = ending.code
    except Exception:  # noqa: BLE001  (whatever would end a Python)
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def become(request: dict[str, Any]) -> None:
    """Take over the process group, output, environment and folder that the request describes."""
    os.setsid()
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if request.get("append") else os.O_TRUNC)
    for number, output in ((1, request["output"]), (2, request["errors"])):
        is_open = isinstance(output, int)
        os.dup2(output if is_open else os.open(output, flags, 0o600), number)
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


def _start_step_server(folder: Path) -> Path:
    """Fork a process that forks for every step, and return the launcher that asks it to."""
    launcher = folder / "python"
    text = _LAUNCHER.format(python=sys.executable, module=_STEP_MODULE, folder=str(folder))
    launcher.write_text(text, encoding="utf-8")
    launcher.chmod(0o700)
    listener = socket.socket(socket.AF_UNIX)
    os.chdir(folder)
    listener.bind("steps")
    listener.listen()
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.close(write_end)
        # The pipe ends with the parent, which nothing else would tell a process that accepts.
        threading.Thread(target=lambda: os.read(read_end, 1) or os._exit(0), daemon=True).start()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                _run_step(connection)
            connection.close()
    listener.close()
    os.close(read_end)
    return launcher


def _run_step(connection: socket.socket) -> NoReturn:
    """Run a step in a fork; report its exit code, or kill it where nobody waits for it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, (output, errors), _, _ = socket.recv_fds(connection, 1, 2)
    request = json.loads(connection.makefile().readline())
    request |= {"output": output, "errors": errors}
    request["environment"][_PARENT_VARIABLE] = str(os.getpid())
    pid = os.fork()
    if pid == 0:
        connection.close()
        exit_after(run, request)

    def kill_with_launcher() -> None:
        connection.recv(1)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    threading.Thread(target=kill_with_launcher, daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(OSError):
        connection.sendall(f"{code}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
