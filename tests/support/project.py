"""A copy of this project with a home of its own, and commands run in it as a user runs them."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from cv_factory.processes.daemon import read_environment
from tests.support.paths import ROOT
from tests.support.waiting import wait_until

#: Every process that a project starts carries this variable, and so do those that they start.
_MARK = "CV_FACTORY_TEST_PROJECT"
#: Kept from the caller's environment; everything else would be the user's.
_KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "OMP_NUM_THREADS")
_WARM_PYTHON = Path(__file__).with_name("warm_python.py")

#: The first fork comes after twelve seconds of imports, more where others use the machine.
_SECONDS_TO_WARM_UP = 240

Completed = subprocess.CompletedProcess[str]


class Project:
    """The project's files in a temporary folder, with HOME, ZenML and MLflow state beside them.

    The folder never moves: ZenML and MLflow store absolute paths. ``save`` copies its whole content
    away, and ``restore`` copies back what changed since, so that a test starts from a known state
    under the same paths.

    Attributes:
        root: Holds the project's files, in a git repository with one commit.
        home: HOME, with everything that programs keep for a user.
        environment: The variables of every command.
        history: What ran in this state to make it, by name.
    """

    def __init__(self, folder: Path) -> None:
        """Copy the files and commit them."""
        self._state = folder / "state"
        self._saved = folder / "saved"
        self.root = self._state / "project"
        self.home = self._state / "home"
        self.history: dict[str, Completed] = {}
        self._mark = uuid.uuid4().hex
        self._warm_python: subprocess.Popen[bytes] | None = None
        self.environment = self._environment()
        for path in (self.home, self.root, self._state / "tmp", self._saved):
            path.mkdir(parents=True)
        self.copy_sources()
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("The project under test")

    def copy_sources(self) -> None:
        """Copy the files that git knows or would add."""
        for name in _source_files():
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)

    @property
    def zenml_config(self) -> Path:
        """Where ZenML keeps its configuration and, for the local stack, its database."""
        return self.home / "zenml"

    @property
    def head(self) -> str:
        """The full hash of the commit that is checked out."""
        return self.git("rev-parse", "HEAD").stdout.strip()

    def run(self, *arguments: str, code: int = 0, timeout: float = 480, **env: str) -> Completed:
        """Run ``python run.py`` with the arguments, in a fork of a warm Python.

        Args:
            arguments: As on the command line.
            code: The exit code that is expected.
            timeout: Seconds, after which it is killed.
            env: Variables set over the project's environment.

        Raises:
            AssertionError: It ended with another code; the message shows its output.
        """
        return self.warm("run.py", *arguments, code=code, timeout=timeout, env=env)

    def python(
        self, source: str, *arguments: str, code: int = 0, timeout: float = 240
    ) -> Completed:
        """Run Python source in a new process in the project; see ``run``."""
        return self.command([sys.executable, "-c", source, *arguments], code=code, timeout=timeout)

    def stacks(self, *arguments: str, code: int = 0, timeout: float = 240, **env: str) -> Completed:
        """Run ``python -m stacks`` with the arguments; see ``run``."""
        return self.warm("-m", "stacks", *arguments, code=code, timeout=timeout, env=env)

    def zenml(self, *arguments: str, code: int = 0, timeout: float = 240) -> Completed:
        """Run the ``zenml`` command with the arguments; see ``run``."""
        program = Path(sys.executable).with_name("zenml")
        return self.command([sys.executable, str(program), *arguments], code=code, timeout=timeout)

    def git(self, *arguments: str) -> Completed:
        """Run git in the project."""
        return self.command(["git", *arguments])

    def commit(self, message: str) -> str:
        """Commit all files as they are and return the commit's hash."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.head

    def command(
        self,
        command: list[str],
        *,
        code: int = 0,
        timeout: float = 240,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run any command in the project; see ``run``. No process of its group outlives it."""
        with self.started(command, env=env) as process:
            try:
                output, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, errors = process.communicate()
                raise AssertionError(_late(command, timeout, output, errors)) from None
        return _checked(Completed(command, process.returncode, output, errors), code)

    def warm(
        self,
        *arguments: str,
        code: int = 0,
        timeout: float = 240,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run Python with the arguments, third-party packages imported; see ``warm_python``."""
        python, pid = self._fork(*arguments, env=env)
        end = _answer(python, timeout)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        command = [sys.executable, *arguments]
        files = self._output_files().values()
        output, errors = (path.read_text(errors="replace") for path in files)
        if not end:
            _answer(python, 60)
            raise AssertionError(_late(command, timeout, output, errors))
        return _checked(Completed(command, end["code"], output, errors), code)

    def _fork(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> "tuple[subprocess.Popen[bytes], int]":
        """Return the warm Python and the id of the fork that runs the arguments."""
        python = self._warm()
        assert python.stdin is not None
        files = self._output_files()
        for path in files.values():
            path.write_bytes(b"")
        request = {
            "arguments": arguments,
            "folder": str(self.root),
            "environment": {**self.environment, **(env or {})},
            **{name: str(path) for name, path in files.items()},
        }
        python.stdin.write(json.dumps(request).encode() + b"\n")
        return python, _answer(python, _SECONDS_TO_WARM_UP)["pid"]

    def _output_files(self) -> dict[str, Path]:
        return {name: self._saved.parent / name for name in ("output", "errors")}

    def _warm(self) -> "subprocess.Popen[bytes]":
        if self._warm_python is None or self._warm_python.poll() is not None:
            folder = tempfile.mkdtemp(prefix="warm", dir=self._saved.parent)
            self._warm_python = subprocess.Popen(
                [sys.executable, str(_WARM_PYTHON), folder],
                cwd=self._saved,
                env={k: v for k, v in self.environment.items() if k != _MARK},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,  # so that select sees all there is to read
            )
        return self._warm_python

    def close(self) -> None:
        """End the warm Python and whatever else runs."""
        if self._warm_python is not None:
            self._warm_python.kill()
            self._warm_python.communicate()
        self.stop()

    @contextmanager
    def started(
        self, command: list[str], *, env: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """Start a command in a process group of its own, for a test that interrupts it.

        The group's id is the process's ``pid``; the whole group is killed at the end of the block.
        """
        process = subprocess.Popen(
            command,
            cwd=self.root,
            env={**self.environment, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()

    def kill_run(self, *arguments: str, after: str) -> None:
        """Run ``python run.py`` and kill it with SIGKILL once it has written these words.

        It runs in a fork of a warm Python; what it started ends, too.
        """
        python, pid = self._fork("run.py", *arguments)
        errors = self._output_files()["errors"]
        while after not in errors.read_text(errors="replace"):
            end = _answer(python, 0.05)
            assert not end, f"the run ended early: {errors.read_text(errors='replace')}"
        os.killpg(pid, signal.SIGKILL)
        assert _answer(python, 60), "the run outlived SIGKILL"
        self.stop()
        # The one child is the server of steps, whose forks end with those who wait for them.
        family = psutil.Process(python.pid)
        wait_until(lambda: len(family.children(recursive=True)) == 1, 60)

    def processes(self) -> list[psutil.Process]:
        """Return what still runs of all that was started here, daemons included."""
        running = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if read_environment(process).get(_MARK) == self._mark:
                    running.append(process)
        return running

    def stop(self) -> None:
        """End what still runs, at once."""
        deadline = time.monotonic() + 10
        while (remaining := self.processes()) and time.monotonic() < deadline:
            for process in remaining:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(remaining, timeout=1)

    def save(self, name: str) -> None:
        """Keep a copy of the present state under a name."""
        self.stop()
        shutil.copytree(self._state, self._saved / name, symlinks=True)

    def restore(self, name: str) -> None:
        """Return to a saved state; whatever was done since is gone, but for bytecode."""
        self.stop()
        _mirror(self._saved / name, self._state)

    def has(self, name: str) -> bool:
        """Whether a state was saved under that name."""
        return (self._saved / name).is_dir()

    def _environment(self) -> dict[str, str]:
        home, no_network = self.home, "http://127.0.0.1:9"
        return {
            **{name: os.environ[name] for name in _KEPT if name in os.environ},
            _MARK: self._mark,
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "XDG_DATA_HOME": str(home / ".local" / "share"),
            "XDG_STATE_HOME": str(home / ".local" / "state"),
            "TMPDIR": str(self._state / "tmp"),
            "ZENML_CONFIG_PATH": str(self.zenml_config),
            "ZENML_ANALYTICS_OPT_IN": "false",
            "MPLCONFIGDIR": str(home / ".config" / "matplotlib"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GX_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            # Whatever asks for the network is refused at once, instead of waiting or succeeding.
            **{f"{scheme}_proxy": no_network for scheme in ("http", "https", "all")},
            **{f"{scheme}_PROXY": no_network for scheme in ("HTTP", "HTTPS", "ALL")},
            "no_proxy": "127.0.0.1,localhost",
            "NO_PROXY": "127.0.0.1,localhost",
            "HF_HUB_OFFLINE": "1",
            # Git reads no configuration but this, and looks for no repository above the copy.
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CEILING_DIRECTORIES": str(self._state),
            **{f"GIT_{who}_NAME": "Tester" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "tester@localhost" for who in ("AUTHOR", "COMMITTER")},
            "COLUMNS": "120",
            "NO_COLOR": "1",
            "PYTHONFAULTHANDLER": "1",
        }


def _mirror(source: Path, target: Path) -> None:
    """Make a folder equal to its copy; a file is the same if size, mode and time of writing are.

    Copying two thousand files for each test takes longer than most tests. Bytecode stays: Python
    compares it with the source's size and time.
    """
    wanted = {entry.name: entry for entry in os.scandir(source)}
    for entry in list(os.scandir(target)):
        if entry.name in wanted and _same(entry, wanted[entry.name]):
            if entry.is_dir(follow_symlinks=False):
                _mirror(source / entry.name, target / entry.name)
            del wanted[entry.name]
        elif entry.is_dir(follow_symlinks=False) and entry.name != "__pycache__":
            shutil.rmtree(entry)
        elif not entry.is_dir(follow_symlinks=False):
            Path(entry).unlink()
    for name, entry in wanted.items():
        if entry.is_dir(follow_symlinks=False):
            shutil.copytree(entry, target / name, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(entry, target / name, follow_symlinks=False)


def _same(entry: "os.DirEntry[str]", other: "os.DirEntry[str]") -> bool:
    stat, expected = (e.stat(follow_symlinks=False) for e in (entry, other))
    if stat.st_mode != expected.st_mode:
        return False
    is_folder = entry.is_dir(follow_symlinks=False)
    return is_folder or (stat.st_size, stat.st_mtime_ns) == (
        expected.st_size,
        expected.st_mtime_ns,
    )


def _source_files() -> list[str]:
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = sorted(set(filter(None, output.split("\0"))))
    return [name for name in names if (ROOT / name).is_file()]


def _answer(python: "subprocess.Popen[bytes]", timeout: float) -> dict[str, int]:
    """Return the next line of the warm Python; empty where none came in time."""
    assert python.stdout is not None
    if not select.select([python.stdout], [], [], timeout)[0]:
        return {}
    answer: dict[str, int] = json.loads(python.stdout.readline())
    return answer


def _checked(done: Completed, code: int) -> Completed:
    end = f"{_shown(done.args)} ended with {done.returncode}, not {code}"
    assert done.returncode == code, f"{end}\n{_tail(done.stdout, done.stderr)}"
    return done


def _late(command: list[str], timeout: float, output: str, errors: str) -> str:
    return f"{_shown(command)} took longer than {timeout:g} s\n{_tail(output, errors)}"


def _shown(command: list[str]) -> str:
    words = [word if len(word) < 80 else f"{word[:77]}..." for word in command[1:]]
    return " ".join([Path(command[0]).name, *words])


def _tail(output: str, errors: str, lines: int = 60) -> str:
    def last(text: str) -> str:
        return "\n".join(text.rstrip().splitlines()[-lines:])

    return f"--- stdout\n{last(output)}\n--- stderr\n{last(errors)}"
