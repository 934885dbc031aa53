"""Many commands of run.py in one process: ZenML's start, which takes seconds, is paid once."""

import json
from dataclasses import dataclass
from typing import Any

from tests.support.project import Project
from tests.support.waiting import wait_until

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
_ZENML = """
import contextlib, io, json, sys
from zenml.cli.cli import cli
from zenml.client import Client
from stacks.compat.zenml_integrations import activate_only_stack_integrations

activate_only_stack_integrations()
services = [str(s.id) for s in Client().list_services().items]
for command in json.loads(sys.argv[1]):
    words = ["model-deployer", "models", *command.replace("UUID", services[0]).split()]
    cli.main(words, standalone_mode=False)
    print("END", flush=True)
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


def assert_codes(done: list[Done], *codes: int) -> None:
    """Check the exit codes of commands; the message is what those printed that ended otherwise."""
    assert len(done) == len(codes)
    wrong = [d for d, code in zip(done, codes, strict=True) if d.code != code]
    assert not wrong, "\n\n".join(f"ended with {d.code}: {d.output}" for d in wrong)


def await_agreement(project: Project) -> dict[str, Any]:
    """Wait until what is served is what the registry says, and return the status.

    The watcher deletes a service after the entry that ends its rollout.
    """
    done: list[Done] = []

    def agrees() -> bool:
        done[:] = run_all(project, ["status", "--json"])
        return done[0].code == 0

    wait_until(agrees, 60, "agreement of services and registry")
    (status,), _ = json.JSONDecoder().raw_decode(done[0].output)
    return dict(status)


def zenml_models(project: Project, *commands: str) -> list[str]:
    """Run ``zenml model-deployer models`` commands; UUID stands for the newest service's id."""
    output = project.warm("-c", _ZENML, json.dumps(commands)).stdout
    return output.split("END\n")[:-1]
