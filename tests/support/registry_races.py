"""Registry commands in processes of their own that can be killed, without paying each start.

One parent imports everything and opens nothing; each command runs in a fork of it, with connections
of its own to the real stores. Run as ``python -m tests.support.registry_races OUTPUT``.
"""

import contextlib
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

MODEL = "digits"
_MODULES = (
    "cli.commands.history",
    "cli.commands.promote",
    "cli.commands.rollback",
    "cli.commands.status",
    "cli.pipelines.deployment",
    "mlflow.store.tracking.sqlalchemy_store",
    "registry.deployments",
    "registry.model_registry",
    "stacks.compat.zenml_integrations",
    "zenml.zen_stores.sql_zen_store",
)


def main(output: Path) -> None:
    """Race two commands, read beside one, and kill one before each of its writes; write a report.

    The report is JSON.
    """
    _import_everything()
    stores = Path(os.environ["ZENML_CONFIG_PATH"])
    backup = stores.with_name("backup")
    shutil.copytree(stores, backup)
    race = _race(output.with_name("gate"))
    _restore(backup, stores)
    meanwhile = _read_beside_a_promotion(output)
    kills: list[dict[str, Any]] = []
    while True:
        _restore(backup, stores)
        killed = wait(start(partial(_promote_until, len(kills)), output))
        if killed["status"] != -signal.SIGKILL:
            break
        kills.append(wait(start(_recover, output)))
    report = {"race": race, "meanwhile": meanwhile, "kills": kills}
    output.write_text(json.dumps(report), encoding="utf-8")


def _restore(backup: Path, stores: Path) -> None:
    shutil.rmtree(stores)
    shutil.copytree(backup, stores)


def _import_everything() -> None:
    """Import what the commands import; no connection is opened."""
    for name in _MODULES:
        importlib.import_module(name)
    # The garbage collector of a fork would touch, and so copy, every page of this process.
    gc.freeze()


def _race(gate: Path) -> list[dict[str, Any]]:
    """Let a promotion and a rollback begin at the same moment: both know the same log."""
    gate.mkdir()
    prepared = wait(start(_have_two_in_production, gate.with_name("prepared")))
    assert prepared["status"] == 0, prepared

    def at_once(*arguments: str) -> Callable[[], int]:
        def command() -> int:
            _be_on_a_machine_of_its_own()
            _before_first_write(lambda: _meet(gate, arguments[0]))
            return _run(*arguments)

        return command

    commands = (("promote", "4", "--by", "Ada"), ("rollback", "--by", "Bob"))
    started = [start(at_once(*c), gate.with_name(c[0])) for c in commands]
    results = [wait(s) for s in started]
    return [*results, wait(start(_look, gate.with_name("look")))]


def _be_on_a_machine_of_its_own() -> None:
    """Take no lock: it keeps two commands of one machine apart, and not those of two."""
    from registry import deployments

    deployments.lock_deployments = lambda _: contextlib.nullcontext()  # type: ignore[assignment]


def _have_two_in_production() -> int:
    """Put version 2 after version 1, so that there is one to go back to."""
    from registry.model_registry import ModelRegistry

    registry = ModelRegistry(MODEL)
    entries = registry.log.check()
    registry._move("promote", 2, "production", "the test", "to go back from", {}, entries)
    return 0


def _meet(gate: Path, me: str) -> None:
    (gate / me).touch()
    deadline = time.monotonic() + 60
    while len(list(gate.iterdir())) < 2:
        assert time.monotonic() < deadline, "the other command never came to its first write"
        time.sleep(0.001)


def _before_first_write(action: Callable[[], None]) -> None:
    from registry.audit.log_files import LocalLogFiles

    create = LocalLogFiles.create
    first_writes: list[str] = []

    def gated(files: LocalLogFiles, name: str, content: bytes) -> None:
        if not first_writes:
            first_writes.append(name)
            action()
        create(files, name, content)

    LocalLogFiles.create = gated  # type: ignore[assignment]


def _read_beside_a_promotion(output: Path) -> dict[str, dict[str, Any]]:
    """Stop a promotion while nothing is in production, read meanwhile, and let it go on."""
    promotion = start(partial(_promote_until, 2, signal.SIGSTOP), output.with_name("promotion"))
    os.waitpid(promotion[0], os.WUNTRACED)
    names = ("history", "status")
    report = {name: wait(start(partial(_run, name), output.with_name(name))) for name in names}
    os.kill(promotion[0], signal.SIGCONT)
    return report | {"promote": wait(promotion)}


def _promote_until(n: int, end: signal.Signals = signal.SIGKILL) -> int:
    """Promote, and get a signal right before the write number ``n``, from 0."""
    from mlflow import MlflowClient

    from registry import versions
    from registry.audit.log_files import LocalLogFiles

    remaining = n

    def counted(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def write(*arguments: Any, **named: Any) -> Any:
            nonlocal remaining
            if remaining == 0:
                os.kill(os.getpid(), end)
            remaining -= 1
            return original(*arguments, **named)

        setattr(owner, name, write)

    counted(LocalLogFiles, "create")
    counted(versions, "set_stage")
    for name in (
        "set_registered_model_alias",
        "delete_registered_model_alias",
        "set_registered_model_tag",
    ):
        counted(MlflowClient, name)
    return _run("promote", "4", "--by", "Ada")


def _recover() -> int:
    """Run the next registry command, whatever it is for, and look at what is there then."""
    return _run("history") or _look()


def _look() -> int:
    """Print stages, aliases and the kinds of the log's entries."""
    from registry.model_registry import ModelRegistry

    registry = ModelRegistry(MODEL)
    aliases = registry.mirror._client.get_registered_model(MODEL).aliases
    print(
        json.dumps(
            {
                "stages": registry.stages(),
                "aliases": {name: str(number) for name, number in aliases.items()},
                "log": [entry.kind for entry in registry.log.check()],
            }
        )
    )
    return 0


def _run(*arguments: str) -> int:
    from cli.main import main as run

    sys.argv = ["run.py", *arguments]
    return run()


def start(action: Callable[[], int], output: Path) -> tuple[int, Path]:
    """Run in a fork; return its id, and where its output will lie."""
    pid = os.fork()
    output_file = output.with_suffix(".output")
    if pid:
        return pid, output_file
    with (
        output_file.open("w", buffering=1) as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        code = _exit_code(action)
    os._exit(code)


def _exit_code(action: Callable[[], int]) -> int:
    try:
        return action()
    except Exception:  # noqa: BLE001  (the test shows it; a fork has no parent that would)
        traceback.print_exc()
        return 1


def wait(started: tuple[int, Path]) -> dict[str, Any]:
    pid, output_file = started
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"status": status, "output": output_file.read_text(encoding="utf-8")}


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    main(Path(sys.argv[1]))
