"""Launcher of the ranks of a distributed training: one process a device, and one failure message.

The step starts the ranks, not the step operator, so that they train alike on every stack without
ZenML, and the step fails as soon as one rank dies. Ranks end with this process, however it ends.
"""

import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cv_factory.artifacts.files import canonical_json, write_atomic
from cv_factory.config.train import TrainConfig
from cv_factory.errors import TrainingError
from cv_factory.processes.group import describe_exit
from cv_factory.processes.polling import poll_until
from cv_factory.processes.worker_process import WorkerProcess
from cv_factory.training.callbacks import EpochCallback
from cv_factory.training.checkpoint import DIRECTORY_VARIABLE, Checkpoints
from cv_factory.training.distributed.cluster_environment import Nodes
from cv_factory.training.trained_model import TrainedModel
from cv_factory.training.training_job import TrainingJob

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

#: Modules that are started with ``-m``: a rank, and the agent of each further machine.
ENTRY_POINTS: tuple[str, ...] = (
    "cv_factory.training.distributed.worker",
    "cv_factory.training.distributed.node_agent",
)
#: The first machine reads its inputs before it opens the store.
RENDEZVOUS_TIMEOUT = timedelta(hours=1)
RESULT_DIRECTORY, EPOCH_LOG = "result", "epochs.jsonl"
#: Time for the other ranks to write their error files after one failed: the earliest is reported.
_ERROR_REPORT_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class LaunchSpec:
    """Ranks to start on this machine, and the rendezvous of all ranks.

    Attributes:
        directory: With job, logs and result; shared by all machines.
        address: Of the machine with the TCP store; empty on a single machine with a file store.
        port: Of the TCP store.
        first_rank: Rank of this machine's first process.
        local_size: Number of processes on this machine.
        world_size: Number of all processes.
    """

    directory: Path
    address: str
    port: int
    first_rank: int
    local_size: int
    world_size: int


def train_distributed(
    job: TrainingJob,
    device: str,
    processes: int,
    nodes: Nodes,
    checkpoints: Checkpoints | None,
    on_epoch: EpochCallback,
) -> TrainedModel:
    """Train in several processes of this machine, and of the others of a cluster.

    Args:
        job: Data, model and settings.
        device: cpu or cuda.
        processes: Number of processes on this machine.
        nodes: All machines; this is the first.
        checkpoints: Of rank 0; None for no checkpoints.
        on_epoch: Called after each epoch.

    Raises:
        TrainingError: A rank failed; the message holds its traceback, or the end of its log.
    """
    with _shared_directory(nodes) as directory:
        job.save(directory)
        settings: dict[str, str | None] = {
            "device": device,
            "checkpoints": None,
            "resume_from": None,
        }
        if checkpoints is not None:
            settings["checkpoints"] = str(checkpoints.directory)
            settings["resume_from"] = checkpoints.resume_from
        write_atomic(directory / "launch.json", canonical_json(settings).encode())
        epochs = _EpochLogReader(directory / EPOCH_LOG, on_epoch)
        if nodes.count == 1:
            run_workers(LaunchSpec(directory, "", 0, 0, processes, processes), epochs.poll)
        else:
            store = open_store(nodes, is_first=True)  # the ranks use it as well
            spec = _assign_ranks(store, directory, job.config, device, processes, nodes)
            run_workers(spec, epochs.poll)
        epochs.poll()
        return TrainedModel.load(directory / RESULT_DIRECTORY)


def run_workers(spec: LaunchSpec, on_poll: Callable[[], None] = lambda: None) -> None:
    """Start this machine's ranks and wait until all have ended.

    Args:
        spec: The ranks.
        on_poll: Called at every poll.

    Raises:
        TrainingError: A rank failed.
    """
    ranks = {spec.first_rank + local: _start_rank(spec, local) for local in range(spec.local_size)}

    def has_ended() -> bool:
        codes = [rank.poll() for rank in ranks.values()]
        on_poll()  # after the exit codes: an epoch that was logged before a failure is reported
        return any(codes) or None not in codes

    try:
        poll_until(has_ended, math.inf)
        if any(rank.poll() for rank in ranks.values()):
            raise TrainingError(_failure_message(spec, ranks))
    finally:
        for rank in ranks.values():
            rank.kill()


def _start_rank(spec: LaunchSpec, local: int) -> WorkerProcess:
    rank = spec.first_rank + local
    variables = {
        "RANK": str(rank),
        "LOCAL_RANK": str(local),
        "LOCAL_WORLD_SIZE": str(spec.local_size),
        "WORLD_SIZE": str(spec.world_size),
        "MASTER_ADDR": spec.address,
        "MASTER_PORT": str(spec.port),
    }
    if not spec.address:
        # On a single machine the ranks communicate over the loopback interface alone.
        variables["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    log = spec.directory / f"rank-{rank}.log"
    return WorkerProcess(ENTRY_POINTS[0], str(spec.directory), log=log, variables=variables)


class _EpochLogReader:
    """Reader of the epoch log that rank 0 writes; calls ``on_epoch`` for each new line."""

    def __init__(self, path: Path, on_epoch: EpochCallback) -> None:
        path.touch()
        self._path, self._on_epoch = path, on_epoch
        self._offset = 0

    def poll(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):  # incomplete
                    break
                self._offset += len(line)
                epoch, metrics = json.loads(line)
                self._on_epoch(epoch, metrics)


def error_file(directory: Path, rank: int) -> Path:
    """Return the path of a rank's error report (JSON): time, message, traceback."""
    return directory / f"rank-{rank}.error.json"


def _failure_message(spec: LaunchSpec, ranks: Mapping[int, WorkerProcess]) -> str:
    """Describe the first failure; later ones are lost connections that follow from it."""
    killed = [number for number, rank in ranks.items() if (rank.poll() or 0) < 0]
    poll_until(
        lambda: all(rank.poll() is not None for rank in ranks.values()), _ERROR_REPORT_TIMEOUT_S
    )
    reports = [json.loads(path.read_bytes()) for path in spec.directory.glob("rank-*.error.json")]
    if reports and not killed:
        first = min(reports, key=lambda report: float(report["time"]))
        if first["expected"]:
            return str(first["message"])
        return f"Rank {first['rank']} of {spec.world_size} failed:\n{first['traceback']}"
    number = killed[0] if killed else next(n for n, rank in ranks.items() if rank.poll())
    rank = ranks[number]
    ending = describe_exit(rank.poll() or 0)
    return f"Rank {number} of {spec.world_size} {ending}.\n{rank.log_tail()}"


@contextmanager
def _shared_directory(nodes: Nodes) -> Iterator[Path]:
    """Yield a new directory that all machines share.

    Raises:
        TrainingError: There are several machines, and ``CV_FACTORY_CHECKPOINTS`` is unset.
    """
    root = os.environ.get(DIRECTORY_VARIABLE) if nodes.count > 1 else None
    if nodes.count > 1 and root is None:
        raise TrainingError(
            f"Training on {nodes.count} machines needs a directory that they share: set "
            f"{DIRECTORY_VARIABLE} to its path."
        )
    with tempfile.TemporaryDirectory(prefix=".ranks-", dir=root) as name:
        yield Path(name)


def open_store(nodes: Nodes, *, is_first: bool) -> "TCPStore":
    """Open the TCP store of the rendezvous: serve it on the first machine, else connect to it."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore(
        nodes.address,
        nodes.port,
        is_master=is_first,
        wait_for_workers=False,
        timeout=RENDEZVOUS_TIMEOUT,
    )


def _assign_ranks(
    store: "TCPStore",
    directory: Path,
    config: TrainConfig,
    device: str,
    processes: int,
    nodes: Nodes,
) -> LaunchSpec:
    """Read the number of GPUs of each machine from the store and write its ranks to it.

    Raises:
        TrainingError: A machine has fewer GPUs than ``train.processes``.
    """
    counts = [processes]
    for node in range(1, nodes.count):
        gpus = int(store.get(f"gpus-{node}"))
        count = processes if device == "cpu" else config.processes or gpus
        if device == "cuda" and not 0 < count <= gpus:
            raise TrainingError(
                f"Machine {node} has {gpus} GPUs, but {count or 'at least one'} is required. "
                "Set train.device to cpu, or lower train.processes."
            )
        counts.append(count)
    for node in range(1, nodes.count):
        ranks = {
            "first_rank": sum(counts[:node]),
            "local_size": counts[node],
            "world_size": sum(counts),
        }
        store.set(f"job-{node}", json.dumps({"directory": str(directory), **ranks}))
    return LaunchSpec(directory, nodes.address, nodes.port, 0, processes, sum(counts))
