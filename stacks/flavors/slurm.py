"""Slurm jobs through sbatch, scontrol and scancel; knows no ZenML.

A job's script, log and exit code are in a directory that this machine and the nodes share.
"""

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from cv_factory.errors import StackError
from cv_factory.processes.group import describe_exit
from cv_factory.processes.polling import poll_until

_SCRIPT, _LOG, _EXIT_CODE = "job.sh", "log", "exit_code"
_POLL_INTERVAL_S = 1.0
#: Descriptions of the states in which a job has ended.
_FINAL_STATES = {
    "COMPLETED": "ended",
    "FAILED": "",
    "CANCELLED": "was cancelled (scancel)",
    "TIMEOUT": "was ended by Slurm after its time limit (setting 'timeout', or the partition's)",
    "OUT_OF_MEMORY": "was killed by Slurm: it took more memory than it had asked for (its resource "
    "'memory')",
    "NODE_FAIL": "lost its node",
    "PREEMPTED": "was preempted",
    "BOOT_FAIL": "lost its node, which did not start",
    "DEADLINE": "was ended by Slurm at its deadline",
}


@dataclass(frozen=True)
class JobRequest:
    """Resources and options of a job.

    Attributes:
        name: Name that squeue shows.
        nodes: Number of machines; each runs one task.
        cpus: CPUs of each node; None for the partition's default.
        gpus: GPUs of each node; None or 0 for none.
        memory: Memory of each node in MiB; None for the partition's default.
        seconds: Time limit; None for the partition's.
        options: Further options of sbatch, such as ``--partition=gpu``.
    """

    name: str
    nodes: int = 1
    cpus: float | None = None
    gpus: int | None = None
    memory: float | None = None
    seconds: float | None = None
    options: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """Return the options of sbatch."""
        options = [f"--job-name={self.name}", f"--nodes={self.nodes}", "--ntasks-per-node=1"]
        if self.cpus:
            options.append(f"--cpus-per-task={ceil(self.cpus)}")
        if self.gpus:
            options.append(f"--gres=gpu:{self.gpus}")
        if self.memory:
            options.append(f"--mem={ceil(self.memory)}M")
        if self.seconds:
            options.append(f"--time={ceil(self.seconds / 60)}")
        return [*options, *self.options]


class SlurmJob:
    """``Job`` in the queue or on the cluster."""

    def __init__(self, number: int, directory: Path) -> None:
        """Refer to a job that this or another process has submitted."""
        self.number = number
        self._directory = directory
        self._state = "PENDING"
        self._log_position = 0

    @classmethod
    def submit(
        cls,
        command: Sequence[str],
        other_nodes: Sequence[str],
        environment: Mapping[str, str],
        cwd: Path,
        directory: Path,
        request: JobRequest,
    ) -> "SlurmJob":
        """Write the job's script and submit it.

        Args:
            command: Command of the first node.
            other_nodes: Command of each other node.
            environment: Variables to add to those of this process.
            cwd: Working directory, shared with the nodes like ``directory``.
            directory: Folder of script and log.
            request: Resources and options.

        Raises:
            StackError: sbatch is missing or refuses the job.
        """
        directory.mkdir(parents=True, exist_ok=True)
        script = directory / _SCRIPT
        # It holds a token: only this user may ever read it.
        script.touch(mode=0o700)
        script.write_text(_script(command, other_nodes, environment, cwd, directory, request.nodes))
        options = [
            "--parsable",
            "--requeue",
            "--open-mode=append",
            f"--output={directory / _LOG}",
        ]
        output = _call("sbatch", *options, *request.arguments(), str(script))
        return cls(int(output.strip().split(";")[0]), directory)

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it waits or runs."""
        try:
            output = _call("scontrol", "--oneliner", "show", "job", str(self.number))
        except StackError as error:
            if "Invalid job id" not in str(error):
                return None  # the controller restarts; its jobs continue
            return self._stored_exit_code()
        self._state = _field(output, "JobState")
        if self._state not in _FINAL_STATES:
            return None
        code, _, number = _field(output, "ExitCode").partition(":")
        if int(number):
            return -int(number)
        return _signed_exit_code(int(code)) or (0 if self._state == "COMPLETED" else 1)

    def wait(self) -> int:
        """Block until the job ends, showing what it prints, and return its exit code."""
        while (code := self.poll()) is None:
            self._show_log()
            time.sleep(_POLL_INTERVAL_S)
        self._show_log()
        return code

    def stop(self, grace_period: float) -> None:
        """Cancel the job, unless it has ended, and wait until it has left the nodes.

        Args:
            grace_period: Seconds to wait beyond what Slurm itself waits from SIGTERM to SIGKILL.
        """
        if self.poll() is not None:
            return
        _call("scancel", str(self.number))
        poll_until(lambda: self.poll() is not None, grace_period + 60, _POLL_INTERVAL_S)

    def describe(self, code: int) -> str:
        """Return a description of how it ended."""
        end = _FINAL_STATES.get(self._state) or describe_exit(code)
        return f"(Slurm job {self.number}) {end}"

    def remove_files(self, *, keep_log: bool) -> None:
        """Remove the script, which holds a token, and everything else but a log to keep."""
        if not keep_log:
            shutil.rmtree(self._directory, ignore_errors=True)
        (self._directory / _SCRIPT).unlink(missing_ok=True)

    @property
    def log(self) -> Path:
        """File with the output of all nodes and attempts."""
        return self._directory / _LOG

    def _stored_exit_code(self) -> int:
        """Return the code that the script wrote, for a job that Slurm no longer lists."""
        file = self._directory / _EXIT_CODE
        if file.is_file() and (code := file.read_text().strip()).isdigit():
            return _signed_exit_code(int(code))
        self._state = "CANCELLED"
        return 1

    def _show_log(self) -> None:
        if not self.log.is_file():
            return
        with self.log.open("rb") as file:
            file.seek(self._log_position)
            content = file.read()
        self._log_position += len(content)
        sys.stdout.write(content.decode(errors="replace"))
        sys.stdout.flush()


def _script(
    command: Sequence[str],
    other_nodes: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path,
    directory: Path,
    nodes: int,
) -> str:
    """Return the script of a job."""
    step = shlex.join(command)
    if nodes > 1:
        # Nodes that outlive the step are ended after a minute.
        others = shlex.join(other_nodes)
        branch = f'if [ "$SLURM_NODEID" = 0 ]; then exec {step}; else exec {others}; fi'
        step = f"srun --kill-on-bad-exit=1 --wait=60 bash -c {shlex.quote(branch)}"
    exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in sorted(environment.items()))
    return (
        f"#!/bin/bash\n{exports}cd {shlex.quote(str(cwd))} || exit 1\n{step}\n"
        f"code=$?\necho $code > {shlex.quote(str(directory / _EXIT_CODE))}\nexit $code\n"
    )


def _call(program: str, *arguments: str) -> str:
    """Run one of Slurm's programs and return its output.

    Raises:
        StackError: It is missing or fails.
    """
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        raise StackError(
            f"{program} is not installed: the launcher 'slurm' works on a machine from which jobs "
            "can be submitted."
        ) from None
    if done.returncode:
        raise StackError(f"{program} refused: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _signed_exit_code(code: int) -> int:
    """Return a shell's exit code, negative for a signal."""
    return code if code <= 128 else 128 - code


def _field(output: str, name: str) -> str:
    match = re.search(rf"(?:^|\s){name}=(\S+)", output)
    if match is None:
        raise StackError(f"scontrol show job has no field {name}: {output[:200]}")
    return match.group(1)
