"""Many commands of run.py in one process: ZenML's start, which takes seconds, is paid once."""

import json
from dataclasses import dataclass

from project import Project

_SOURCE = """
import contextlib, io, json, sys
from cli.main import main

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["run.py", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = exec(arguments[1], {}) or 0 if arguments[0] == "python" else main()
    output = out.getvalue() + err.getvalue()
    print("DONE" + json.dumps({"code": code, "output": output}), flush=True)
"""


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit code."""

    code: int
    output: str


def python(source: str) -> list[str]:
    """Return a command for ``run_all`` that runs this source, in the same process, in its place."""
    return ["python", source]


def run_all(project: Project, *commands: list[str], timeout: float = 400) -> list[Done]:
    """Run commands one after the other, whatever their exit codes."""
    done = project.warm("-c", _SOURCE, json.dumps(commands), timeout=timeout)
    lines = [line for line in done.stdout.splitlines() if line.startswith("DONE")]
    return [Done(**json.loads(line.removeprefix("DONE"))) for line in lines]
