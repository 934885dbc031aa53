"""Starts one process for each device of a machine, watches over them, and says which one failed.

The ranks are started here, inside the step, and not by the step operator: so they train alike on
every stack, know no ZenML, and a step that is watched by nobody else still ends when one dies. Each
of them ends when this process does, however it ends.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cv_factory.artifacts.files import canonical_json, write_atomic
from cv_factory.config.train import TrainConfig
from cv_factory.errors import TrainingError
from cv_factory.training.checkpoint import DIRECTORY_VARIABLE, Checkpoints
from cv_factory.training.distributed.environment import Nodes
from cv_factory.training.job import TrainingJob
from cv_factory.training.trained_model import TrainedModel

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

#: The first machine reads its inputs before it trains.
PATIENCE = timedelta(hours=1)
RESULT, EVENTS = "result", "events.jsonl"
_SECONDS_BETWEEN_LOOKS = 0.05
#: For the others to tell why they failed, once one has: the first cause is what is reported.
_SECONDS_FOR_CAUSES = 2.0
_LINES_OF_LOG = 30


@dataclass(frozen=True)
class Group:
    """The ranks of a training, and where they meet.

    Attributes:
        directory: Holds the job, the logs and the result; seen by every machine.
        address: Name or address of the machine that holds the store; empty on a single machine,
            where a file does.
        port: Of the store.
        first: Rank of this machine's first process.
        local: How many processes there are on this machine.
        size: How many there are in all.
    """

    directory: Path
    address: str
    port: int
    first: int
    local: int
    size: int


def train_in_ranks(
    job: TrainingJob,
    device: str,
    processes: int,
    nodes: Nodes,
    checkpoints: Checkpoints | None,
    on_epoch: Callable[[int, dict[str, float]], None],
) -> TrainedModel:
    """Train in several processes of this machine, and of the others where there are some.

    Args:
        job: What is trained on what.
        device: cpu or cuda.
        processes: How many on this machine.
        nodes: All the machines; this is the first.
        checkpoints: Where the first rank keeps checkpoints, if anywhere.
        on_epoch: Told of each epoch.

    Raises:
        TrainingError: A rank failed; the message holds its traceback, or the end of its log.
    """
    with _shared_directory(nodes) as directory:
        job.save(directory)
        settings = {"device": device, "checkpoints": None, "first": None}
        if checkpoints is not None:
            settings |= {"checkpoints": str(checkpoints.directory), "first": checkpoints.first}
        write_atomic(directory / "ranks.json", canonical_json(settings).encode())
        epochs = _Events(directory / EVENTS, on_epoch)
        if nodes.count == 1:
            run_ranks(Group(directory, "", 0, 0, processes, processes), epochs.tell)
        else:
            store = open_store(nodes, is_first=True)  # the ranks meet in it as well
            group = _announce(store, directory, job.config, device, processes, nodes)
            run_ranks(group, epochs.tell)
        epochs.tell()
        return TrainedModel.load(directory / RESULT)


def run_ranks(group: Group, watch: Callable[[], None] = lambda: None) -> None:
    """Start this machine's ranks and wait until all have ended.

    Args:
        group: Which ranks.
        watch: Called again and again meanwhile.

    Raises:
        TrainingError: One of them failed.
    """
    ranks = [_Rank(group, local) for local in range(group.local)]
    try:
        while any(rank.poll() is None for rank in ranks):
            watch()
            if any(rank.poll() for rank in ranks):
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if any(rank.poll() for rank in ranks):
            raise TrainingError(_cause(group, ranks))
    finally:
        for rank in ranks:
            rank.kill()


class _Rank:
    """One process that trains."""

    def __init__(self, group: Group, local: int) -> None:
        self.number = group.first + local
        self.log = group.directory / f"rank-{self.number}.log"
        environment = {
            **os.environ,
            "RANK": str(self.number),
            "LOCAL_RANK": str(local),
            "LOCAL_WORLD_SIZE": str(group.local),
            "WORLD_SIZE": str(group.size),
            "MASTER_ADDR": group.address,
            "MASTER_PORT": str(group.port),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        if not group.address:
            # Nothing is sent beyond this machine, nor can be reached from outside.
            environment["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
        with self.log.open("wb") as log:
            # It reads its standard input to the end, which comes when this process is gone.
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "cv_factory.training.distributed.worker",
                    str(group.directory),
                ],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()


class _Events:
    """Reads what the first rank tells of its epochs."""

    def __init__(self, path: Path, on_epoch: Callable[[int, dict[str, float]], None]) -> None:
        path.touch()
        self._path, self._on_epoch = path, on_epoch
        self._read = 0

    def tell(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):  # still being written
                    break
                self._read += len(line)
                epoch, metrics = json.loads(line)
                self._on_epoch(epoch, metrics)


def error_file(directory: Path, rank: int) -> Path:
    """Return where a rank writes why it fails: seconds since 1970, kind, message, traceback."""
    return directory / f"rank-{rank}.error.json"


def _cause(group: Group, ranks: list[_Rank]) -> str:
    """Say which rank failed first and why; the others then tell of lost connections."""
    killed = [rank for rank in ranks if (rank.poll() or 0) < 0]
    deadline = time.monotonic() + _SECONDS_FOR_CAUSES
    while time.monotonic() < deadline and any(rank.poll() is None for rank in ranks):
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if killed:
        number, log = killed[0].number, killed[0].log
        name = signal.Signals(-(killed[0].poll() or 0)).name
        hint = " (often: not enough memory)" if name == "SIGKILL" else ""
        return f"Rank {number} of {group.size} was killed by {name}{hint}.\n{_end_of(log)}"
    told = [json.loads(path.read_bytes()) for path in group.directory.glob("rank-*.error.json")]
    if told:
        first = min(told, key=lambda error: float(error["time"]))
        if first["expected"]:
            return str(first["message"])
        return f"Rank {first['rank']} of {group.size} failed:\n{first['traceback']}"
    failed = next(rank for rank in ranks if rank.poll())
    ended = f"Rank {failed.number} of {group.size} ended with exit code {failed.poll()}"
    return f"{ended}.\n{_end_of(failed.log)}"


def _end_of(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    return "\n".join(lines[-_LINES_OF_LOG:])


@contextmanager
def _shared_directory(nodes: Nodes) -> Iterator[Path]:
    """Yield a new directory that all machines see.

    Raises:
        TrainingError: There are several machines, and none is named.
    """
    root = os.environ.get(DIRECTORY_VARIABLE) if nodes.count > 1 else None
    if nodes.count > 1 and root is None:
        raise TrainingError(
            f"Training on {nodes.count} machines needs a directory that all of them see: name it "
            f"in {DIRECTORY_VARIABLE}."
        )
    with tempfile.TemporaryDirectory(prefix=".ranks-", dir=root) as name:
        yield Path(name)


def open_store(nodes: Nodes, *, is_first: bool) -> "TCPStore":
    """Open the store in which the machines meet: on the first one, or from another one."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore(
        nodes.address, nodes.port, is_master=is_first, wait_for_workers=False, timeout=PATIENCE
    )


def _announce(
    store: "TCPStore",
    directory: Path,
    config: TrainConfig,
    device: str,
    processes: int,
    nodes: Nodes,
) -> Group:
    """Learn which devices each machine has, and tell it which ranks it is to run.

    Raises:
        TrainingError: A machine has fewer GPUs than are asked for.
    """
    counts = [processes]
    for node in range(1, nodes.count):
        gpus = int(store.get(f"gpus-{node}"))
        count = processes if device == "cpu" else config.processes or gpus
        if device == "cuda" and not 0 < count <= gpus:
            raise TrainingError(
                f"Machine {node} has {gpus} GPUs, and {count or 'at least one'} is asked for. "
                "Set train.device to cpu, or train.processes."
            )
        counts.append(count)
    for node in range(1, nodes.count):
        part = {"first": sum(counts[:node]), "local": counts[node], "size": sum(counts)}
        store.set(f"job-{node}", json.dumps({"directory": str(directory), **part}))
    return Group(directory, nodes.address, nodes.port, 0, processes, sum(counts))


def end_with_parent() -> None:
    """End this process, at once, when the one that holds the other end of its input is gone."""

    def watch() -> None:
        while os.read(0, 1):  # not through sys.stdin, whose lock would stop a normal end
            pass
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
